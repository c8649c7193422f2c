"""A private folder for images that are no files of their own; it goes when its owner does."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from pathlib import Path


class Scratch:
    """A folder with mode 0700 under `parent`, made on first use, removed on close or at exit.

    Without a parent it is under the system's temporary folder.
    """

    def __init__(self, parent: Path | None) -> None:
        self._parent = parent
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._finalizer: weakref.finalize[[str, int], Scratch] | None = None

    @property
    def folder(self) -> Path:
        """The folder, an absolute path.

        Raises:
            OSError: it cannot be made.
        """
        with self._lock:
            if self._folder is None:
                if self._parent is not None:
                    self._parent.mkdir(parents=True, exist_ok=True)
                made = tempfile.mkdtemp(prefix="images-", dir=self._parent)
                self._folder = Path(made).resolve()
                self._finalizer = weakref.finalize(self, _remove, made, os.getpid())
            return self._folder

    def close(self) -> None:
        """Remove the folder with all that is in it; the next use makes another."""
        with self._lock:
            if self._finalizer is not None:
                self._finalizer()
            self._folder = self._finalizer = None


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked child inherits the finalizer, not the folder
        shutil.rmtree(folder, ignore_errors=True)
