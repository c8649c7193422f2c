"""What a checkpoint computes on: torch's devices on this machine."""

from __future__ import annotations

from importlib.util import find_spec

from ..errors import ConfigurationError, MissingExtraError
from ..printable import one_line


def check_installed(what: str) -> None:
    """Do nothing when torch and transformers are there; neither is imported.

    Raises:
        MissingExtraError: one of them is missing.
    """
    if find_spec("torch") is None or find_spec("transformers") is None:
        raise MissingExtraError(what, "transformers")


def choose_device(name: str, what: str) -> str:
    """The device of this name (`auto`, `cpu`, `cuda`, `mps`); `auto` is the best there is.

    Raises:
        MissingExtraError: torch or transformers cannot be imported.
        ConfigurationError: the device is not on this machine.
    """
    try:
        import torch
        import transformers  # noqa: F401 - missing is found before anything is asked
    except ImportError:
        raise MissingExtraError(what, "transformers") from None
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return next(device for device, found in there.items() if found)
    if not there.get(name, False):
        found = ", ".join(device for device, found in there.items() if found)
        raise ConfigurationError(f"device '{one_line(name, 40)}' is not on this machine: {found}")
    return name
