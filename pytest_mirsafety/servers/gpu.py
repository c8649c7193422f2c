"""Whether the GPUs' memory came back: NVIDIA's, by nvidia-smi."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from ..memory import gpus

_TOLERANCE: Final = 512 * 2**20
"""Bytes that others may have taken meanwhile."""

_PATIENCE: Final = 10.0
_GIB: Final = 2**30


def used_memory(environ: Mapping[str, str]) -> dict[str, int]:
    """Bytes in use of each GPU that is visible in this environment, by its name.

    Blocks for as long as nvidia-smi takes.
    """
    return {gpu.device: gpu.used for gpu in gpus(environ)}


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
            name: now[name] - used
            for name, used in before.items()
            if name in now and now[name] - used > _TOLERANCE
        }
        if not missing:
            return ""
        if time.monotonic() > until:
            return ", ".join(f"{size / _GIB:.1f} GiB of {name}" for name, size in missing.items())
        time.sleep(0.5)
