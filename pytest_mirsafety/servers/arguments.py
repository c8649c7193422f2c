"""What a vLLM server is started with: the run's own arguments, and the user's behind them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from ..digests import digest
from ..errors import ConfigurationError
from ..printable import one_line

HOST: Final = "127.0.0.1"
_LIMIT: Final = "--limit-mm-per-prompt"
_OURS: Final[Mapping[str, str]] = {
    "--api-key": "the key is drawn anew for each run",
    "--host": "the server listens on this machine only",
    "--uds": "the server is reached over a port",
    "--root-path": "the server has no prefix",
    "--ssl-keyfile": "the server is reached on this machine only",
    "--ssl-certfile": "the server is reached on this machine only",
    "--headless": "the run needs an endpoint",
    "--config": "write its settings into server_args",
    "--served-model-name": "the run chooses it",
    "--model": "it is the setting model",
    "--revision": "it is the setting revision",
    "--allowed-local-media-path": "it is where the dataset's images are",
    "--trust-remote-code": "it is the setting trust_remote_code",
}
"""Arguments that the run sets itself, with the reason."""

_OF_NO_ANSWER: Final = frozenset(
    {
        *("--port", "--enforce-eager", "--limit-mm-per-prompt", "--max-model-len"),
        *("--gpu-memory-utilization", "--max-num-seqs", "--max-num-batched-tokens"),
        *("--tensor-parallel-size", "--data-parallel-size", "--pipeline-parallel-size"),
        *("--download-dir", "--uvicorn-log-level", "--enable-log-requests", "--disable-log-stats"),
    }
)
"""Arguments that change how fast a model answers, or how much of it, and not what it is."""

_SHORTEST: Final = len("--hos")


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmSettings:
    """What is served and how: `source` is a folder or the hub's name, `name` what it is asked as.

    `images` are the most that a prompt has; 0 for texts. `gpu_memory` is a share of each GPU's.
    `arguments` go to the server behind ours. `start_timeout` is in seconds.
    """

    source: str
    name: str
    revision: str | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False
    max_model_len: int | None = None
    tensor_parallel: int = 1
    data_parallel: int = 1
    gpu_memory: float | None = None
    images: int = 0
    arguments: tuple[str, ...] = ()
    start_timeout: float = 1800.0


def check_arguments(settings: VllmSettings) -> None:
    """Do nothing when these arguments go with those that the run sets.

    Raises:
        ConfigurationError: one is the run's to choose, or it allows fewer images than are asked.
    """
    for argument in settings.arguments:
        name = _spelling(argument)
        for ours, why in _OURS.items():
            if name == ours or (len(name) >= _SHORTEST and ours.startswith(name)):
                raise ConfigurationError(f"server_args: leave out {ours}: {why}")
    limit = _image_limit(settings.arguments)
    if limit is not None and settings.images > limit:
        raise ConfigurationError(
            f"server_args: {_LIMIT} allows {limit} images a prompt, and the dataset has "
            f"instances with {settings.images}; raise it, or leave it out"
        )
    fixed_port(settings.arguments)


def numerics(dtype: str, arguments: tuple[str, ...]) -> str:
    """What of the settings makes another model of the same weights; empty where nothing does.

    The number format, and a digest of all arguments that are not known to leave answers alone,
    such as a quantization.
    """
    kept: list[str] = []
    keeps = True
    for argument in arguments:
        if name := _spelling(argument):
            keeps = name.partition(".")[0] not in _OF_NO_ANSWER
        if keeps:
            kept.append(argument)
    digits = f"args-{digest(kept)[:8]}" if kept else ""
    return "+".join(filter(None, ("" if dtype == "auto" else dtype, digits)))


def command(settings: VllmSettings, port: int, mark: str, media: Path | None) -> list[str]:
    """The server's command line; it holds nothing secret."""
    own = settings
    # Not `vllm serve`: it looks for a distribution named vllm, and the CPU build has another name.
    # -P: a folder called vllm beside the tests is not it.
    line = [sys.executable, "-P", "-m", "vllm.entrypoints.openai.api_server"]
    line += ["--model", own.source]
    line += ["--served-model-name", own.name, mark, "--host", HOST, "--port", str(port)]
    given = {_spelling(argument).partition(".")[0] for argument in own.arguments}
    optional: dict[str, object] = {
        "--revision": own.revision,
        "--dtype": own.dtype,
        # Nothing is unpickled: a checkpoint without safetensors is refused.
        "--load-format": "safetensors",
        "--max-model-len": own.max_model_len,
        "--tensor-parallel-size": own.tensor_parallel if own.tensor_parallel > 1 else None,
        "--data-parallel-size": own.data_parallel if own.data_parallel > 1 else None,
        "--gpu-memory-utilization": own.gpu_memory,
        _LIMIT: json.dumps({"image": own.images}) if own.images else None,
        "--allowed-local-media-path": media,
    }
    for name, value in optional.items():
        if value is not None and name not in given:
            line += [name, str(value)]
    if own.trust_remote_code:
        line.append("--trust-remote-code")
    return [*line, *own.arguments]


def fixed_port(arguments: tuple[str, ...]) -> int | None:
    """The port that the user's own arguments choose, if they do.

    Raises:
        ConfigurationError: it is none.
    """
    text = _value(arguments, "--port")
    if text is None:
        return None
    if not text.isdecimal() or not 0 < int(text) < 2**16:
        raise ConfigurationError(f"server_args: --port {one_line(text, 20)} is no port")
    return int(text)


def _spelling(argument: str) -> str:
    """An option's name as vLLM reads it: `--a_b=c` is `--a-b`; a value has none."""
    return argument.partition("=")[0].replace("_", "-") if argument.startswith("--") else ""


def _value(arguments: tuple[str, ...], name: str) -> str | None:
    """What the last argument of this name is given."""
    found = None
    for argument, following in zip_longest(arguments, arguments[1:]):
        if _spelling(argument) == name:
            _, equals, value = argument.partition("=")
            found = value if equals else following
    return found


def _image_limit(arguments: tuple[str, ...]) -> int | None:
    """How many images the user's own arguments allow, where they say so."""
    text = _value(arguments, f"{_LIMIT}.image") or _value(arguments, _LIMIT) or ""
    try:
        told: Any = json.loads(text)
    except ValueError:
        told = text.partition("image=")[2].partition(",")[0]  # the form of older versions
    if isinstance(told, dict):
        told = told.get("image")
        told = told.get("count") if isinstance(told, dict) else told
    try:
        return int(told)
    except (TypeError, ValueError):
        return None
