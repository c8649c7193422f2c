"""How much of the GPUs' memory is in use, and whether it came back: NVIDIA's, by nvidia-smi."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Mapping
from typing import Final

_TOLERANCE: Final = 512
"""MiB that others may have taken meanwhile."""

_PATIENCE: Final = 10.0
_ASKING: Final = 20.0
_FIELDS: Final = 3


def used_memory(environ: Mapping[str, str]) -> dict[str, int]:
    """MiB in use by the index of each GPU that CUDA_VISIBLE_DEVICES names; empty without any.

    Blocks for as long as nvidia-smi takes.
    """
    program = shutil.which("nvidia-smi", path=environ.get("PATH"))
    if program is None:
        return {}
    query = ["--query-gpu=index,uuid,memory.used", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(  # noqa: S603 - NVIDIA's own tool
            [program, *query],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=_ASKING,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    found = {}
    for line in told.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == _FIELDS and fields[2].isdigit() and _is_visible(fields, environ):
            found[fields[0]] = int(fields[2])
    return found


def not_returned(before: Mapping[str, int], environ: Mapping[str, str]) -> str:
    """Which GPU's memory is not back as it was, in words; empty if all is, or none was known.

    Blocks until it is back, or for some seconds.
    """
    if not before:
        return ""
    until = time.monotonic() + _PATIENCE
    while True:
        now = used_memory(environ)
        missing = {
            index: now[index] - used
            for index, used in before.items()
            if index in now and now[index] - used > _TOLERANCE
        }
        if not missing:
            return ""
        if time.monotonic() > until:
            return ", ".join(f"{mib / 1024:.1f} GiB of GPU {i}" for i, mib in missing.items())
        time.sleep(0.5)


def _is_visible(fields: list[str], environ: Mapping[str, str]) -> bool:
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return True
    index, uuid = fields[:2]
    names = [name.strip() for name in chosen.split(",")]
    return any(name == index or (name and uuid.startswith(name)) for name in names)
