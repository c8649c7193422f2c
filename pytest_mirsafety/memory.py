"""How much memory this machine's devices have, and how much of it is free."""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_QUERY: Final = (
    "--query-gpu=index,uuid,name,memory.total,memory.free",
    "--format=csv,noheader,nounits",
)
_PATIENCE: Final = 20.0
_MEMINFO: Final = Path("/proc/meminfo")
_KIB, _MIB = 2**10, 2**20


@dataclass(frozen=True, slots=True)
class Memory:
    """A device's memory, in bytes."""

    device: str
    total: int
    free: int

    @property
    def used(self) -> int:
        """What is not free."""
        return self.total - self.free


def gpus(environ: Mapping[str, str]) -> tuple[Memory, ...]:
    """The NVIDIA GPUs that a program started with this environment would see, in its order.

    None where there are none, or no driver that tells of them. Blocks as long as that takes.
    """
    program = shutil.which("nvidia-smi", path=environ.get("PATH"))
    if program is None:
        return ()
    try:
        told = subprocess.run(  # noqa: S603 - NVIDIA's own tool
            [program, *_QUERY],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(_visible(told, environ.get("CUDA_VISIBLE_DEVICES")))


def ram() -> Memory | None:
    """Main memory, as far as programs can have it; None where the system does not tell."""
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        sizes = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines)}
        return Memory("main memory", sizes["MemTotal"] * _KIB, sizes["MemAvailable"] * _KIB)
    except (OSError, ValueError, LookupError):
        return None


def _visible(told: str, wanted: str | None) -> Iterator[Memory]:
    rows = [[cell.strip() for cell in row] for row in csv.reader(told.splitlines()) if row]
    found = {}
    for index, uuid, name, total, free in (row for row in rows if len(row) == 5):  # noqa: PLR2004
        if total.isdigit() and free.isdigit():  # some GPUs share main memory, and say [N/A]
            memory = Memory(f"GPU {index} ({name})", int(total) * _MIB, int(free) * _MIB)
            found[index, uuid] = memory
    if wanted is None:
        yield from found.values()
        return
    for name in map(str.strip, wanted.split(",")):
        # By number, or by the beginning of its UUID; CUDA sees none from the first unknown on.
        one = [m for (index, uuid), m in found.items() if name and _is_named(name, index, uuid)]
        if len(one) != 1:
            return
        yield one[0]


def _is_named(name: str, index: str, uuid: str) -> bool:
    return name == index or (name.startswith("GPU-") and uuid.startswith(name))
