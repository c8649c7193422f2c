"""Multi-image safety benchmarks as pytest tests, attack success rates as release gates."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .data import load as load_dataset
    from .defended import Asked, Blocked, Passed
    from .errors import MirsafetyError, RetryableError, RunError, UnscoredError
    from .protocols import Backend, Defence, ImageSource, Judge
    from .records import (
        Completion,
        Dataset,
        ImageRef,
        Instance,
        LoadedImage,
        ModelIdentity,
        Request,
        Response,
        SafeMode,
        Verdict,
        VerdictKind,
    )
    from .taxonomy import Category, Group, Relation

__all__ = [
    "Asked",
    "Backend",
    "Blocked",
    "Category",
    "Completion",
    "Dataset",
    "Defence",
    "Group",
    "ImageRef",
    "ImageSource",
    "Instance",
    "Judge",
    "LoadedImage",
    "MirsafetyError",
    "ModelIdentity",
    "Passed",
    "Relation",
    "Request",
    "Response",
    "RetryableError",
    "RunError",
    "SafeMode",
    "UnscoredError",
    "Verdict",
    "VerdictKind",
    "load_dataset",
]

_HOMES = {
    "defended": ("Asked", "Blocked", "Passed"),
    "errors": ("MirsafetyError", "RetryableError", "RunError", "UnscoredError"),
    "protocols": ("Backend", "Defence", "ImageSource", "Judge"),
    "records": (
        "Completion",
        "Dataset",
        "ImageRef",
        "Instance",
        "LoadedImage",
        "ModelIdentity",
        "Request",
        "Response",
        "SafeMode",
        "Verdict",
        "VerdictKind",
    ),
    "taxonomy": ("Category", "Group", "Relation"),
}


def __getattr__(name: str) -> object:
    """Import on use: every pytest run imports this file, few need what it names."""
    if name == "load_dataset":
        return importlib.import_module(".data", __name__).load
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
