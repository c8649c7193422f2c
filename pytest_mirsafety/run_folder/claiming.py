"""Whose folder it is: a run makes one its own, and what was there is lost only to another run."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from .. import whole_files
from ..entropies import FILES
from ..errors import ConfigurationError
from ..results import REPORTS
from . import pinned
from .flips import FLIPS
from .forms import FORMAT, SCHEMA_VERSION
from .manifest import MANIFEST, MANIFEST_LIMIT, pretty

RESULTS: Final = "results.jsonl"

PREVIOUS: Final = "previous"
"""Where in the folder the run lies that was there before, until another has ended in its place."""

_BESIDE: Final = (RESULTS, FLIPS, pinned.BASELINE, *FILES, *REPORTS)


def claim(folder: Path) -> None:
    """Make the folder this run's, so that nothing of an earlier run is left to be read as its own.

    A run that has ended is kept in `previous` until this one has: an option that is misspelt ends
    many a run at its start, and must not cost the results of the last.

    Raises:
        ConfigurationError: it holds something else than a run, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = _found(folder)
        if found is None and any(folder.iterdir()):
            raise ConfigurationError(
                f"{folder}: is neither empty nor a run folder; name another one, or empty it"
            )
        ended = found is not None and found.get("finished") is True
        if ended:
            drop_previous(folder)
            (folder / PREVIOUS).mkdir(exist_ok=True)
            shutil.copyfile(folder / MANIFEST, folder / PREVIOUS / MANIFEST)
        started = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "finished": False}
        whole_files.replace(folder / MANIFEST, [pretty(started)])
        for name in _BESIDE:
            if ended and (folder / name).exists():
                (folder / name).replace(folder / PREVIOUS / name)
            else:
                (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise whole_files.cannot_write(folder, error) from None


def discard(folder: Path) -> None:
    """Take a run out of its folder, if there is one; and the folder, if nothing else is in it."""
    if _found(folder) is not None:
        with suppress(OSError):
            _remove(folder)


def drop_previous(folder: Path) -> None:
    """Let go of the run that was there before, and of nothing else that somebody put beside it."""
    with suppress(OSError):
        _remove(folder / PREVIOUS)


def _remove(folder: Path) -> None:
    for name in (MANIFEST, *_BESIDE):
        (folder / name).unlink(missing_ok=True)
    folder.rmdir()


def _found(folder: Path) -> dict[str, object] | None:
    """A run.json that is ours, of whatever version, ended or not."""
    try:
        document = json.loads(whole_files.bounded(folder / MANIFEST, MANIFEST_LIMIT))
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and document.get("format") == FORMAT else None
