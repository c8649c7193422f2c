"""Whether model and local judge fit on this machine together, or must take turns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from . import memory
from .config import JudgeSettings, ModelSettings
from .errors import ConfigurationError
from .memory import Memory
from .protocols import Backend
from .trust import Leaf

Wish = Literal["auto", "together", "two"]

_IN_USE: Final = 1.25
"""What a model needs while it computes, for each byte of its weights."""

_SERVER_SHARE: Final = 0.9
"""Of a GPU's memory that a vLLM server takes unless it is told otherwise."""

_GIB: Final = 2**30


@dataclass(frozen=True, slots=True)
class Phases:
    """How model and judge share this machine, and why; nothing is said where they do not."""

    two: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True)
class Resident:
    """A model that is to run here. Relative paths are relative to `base`."""

    what: str
    settings: ModelSettings | JudgeSettings
    base: Path

    @property
    def is_server(self) -> bool:
        """It runs in a server of ours."""
        return self.settings.provider == "vllm" and self.settings.base_url is None

    @property
    def is_here(self) -> bool:
        """It runs on this machine, and for this run."""
        return self.is_server or self.settings.provider == "transformers"


def choose(
    wish: Wish,
    model: Resident,
    leaves: Sequence[Leaf],
    backend: Backend,
    base: Path,
    environ: Mapping[str, str],
    guards: Sequence[Resident] = (),
) -> Phases:
    """One phase or two, as wished, or by the memory that is free.

    Raises:
        ConfigurationError: two phases of a model that has no memory to give back, or beside a
            guard that runs here: it works while the model does.
    """
    guards = [guard for guard in guards if guard.is_here]
    chosen = _chosen(wish, model, leaves, backend, base, environ, guards)
    if chosen.two and guards:
        raise ConfigurationError(
            f"the {guards[0].what} would run here beside the model, which takes turns with others "
            f'({chosen.why}): serve the guard and set its base_url, or set phases = "together"'
        )
    return chosen


def _chosen(
    wish: Wish,
    model: Resident,
    leaves: Sequence[Leaf],
    backend: Backend,
    base: Path,
    environ: Mapping[str, str],
    guards: Sequence[Resident],
) -> Phases:
    if wish == "two":
        if not callable(getattr(backend, "free", None)):
            raise ConfigurationError(
                'phases = "two" is for a model that runs here and can give its memory back '
                "(provider vllm or transformers); leave it out"
            )
        return Phases(two=True, why="two phases, as configured: all is asked, then all is judged")
    if wish == "together" or not model.is_here:
        return Phases()
    judges = [Resident(f"judge '{leaf.name}'", leaf.settings, base) for leaf in leaves]
    if not (here := [*guards, *(judge for judge in judges if judge.is_here)]):
        return Phases()
    return _by_memory([model, *here], memory.gpus(environ), memory.ram())


def _by_memory(residents: Iterable[Resident], gpus: Sequence[Memory], ram: Memory | None) -> Phases:
    """Together if, on the one device that they would share, all of them fit."""
    gpu = gpus[0] if gpus else None
    shared = [(one, _device(one, gpu, ram)) for one in residents]
    device = shared[0][1]
    if device is None:
        return Phases(two=True, why=f"two phases: {_UNKNOWN_MEMORY}")
    on_it = [one for one, other in shared if other == device]
    if len(on_it) == 1:
        return Phases(why="one phase: model and judge run on different devices")
    needs = [(one.what, _need(one, device)) for one in on_it]
    if (unknown := next((what for what, need in needs if need is None), None)) is not None:
        return Phases(two=True, why=f"two phases: the size of the {unknown} is not known yet")
    total = sum(need for _, need in needs if need is not None)
    listed = " + ".join(f"{what} {_gib(need or 0)}" for what, need in needs)
    room = f"{_gib(device.free)} free of {device.device}"
    if total <= device.free:
        return Phases(why=f"one phase: {listed} fit into {room}")
    return Phases(two=True, why=f"two phases: {listed} do not fit into {room}")


_UNKNOWN_MEMORY: Final = "how much memory is free is not known here"


def _device(one: Resident, gpu: Memory | None, ram: Memory | None) -> Memory | None:
    wants_gpu = one.is_server or one.settings.device in ("auto", "cuda")
    return gpu if wants_gpu and gpu is not None else ram


def _need(one: Resident, device: Memory) -> int | None:
    settings = one.settings
    if one.is_server and device.device.startswith("GPU"):
        share = getattr(settings, "gpu_memory", None)
        return int(device.total * (_SERVER_SHARE if share is None else share))
    weights = weights_size(settings.model or "", settings.revision, one.base)
    if weights is None:
        return None
    doubled = 2 if settings.dtype == "float32" else 1  # most are saved with 16 bits
    return int(weights * _IN_USE * doubled)


def weights_size(model: str, revision: str | None, base: Path) -> int | None:
    """Bytes of a checkpoint's weights: in its folder, or in the hub's cache; None if unknown."""
    folder = base / model
    if folder.is_dir():
        return sum(path.stat().st_size for path in folder.glob("*.safetensors")) or None
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    try:
        index = try_to_load_from_cache(model, "model.safetensors.index.json", revision=revision)
        if isinstance(index, str):
            told = json.loads(Path(index).read_text(encoding="utf-8"))["metadata"]["total_size"]
            return int(told)
        whole = try_to_load_from_cache(model, "model.safetensors", revision=revision)
        return Path(whole).stat().st_size if isinstance(whole, str) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"
