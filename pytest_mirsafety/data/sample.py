"""The bundled sample: one archive in the package, in this project's own layout."""

from __future__ import annotations

import hashlib
import threading
import zipfile
import zlib
from functools import cached_property
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from ..errors import BadInputError, DataError
from ..records import Dataset
from . import jsonl
from .scratch import Scratch

IDENTITY: Final = "2bf8087803d1d2b691ccc40bec7a8c6ed4f609b8ea2d697aa66dea81c164bfb3"
_ARCHIVE: Final = "sample.zip"


def load(cache: Path | None) -> Dataset:
    """The sample's instances; no image is read.

    Raises:
        DataError: the archive is missing or damaged; the package needs a new installation.
    """
    lines = read_member(jsonl.FILE_NAME).splitlines()
    return jsonl.assemble(lines, jsonl.FILE_NAME, ArchiveImages(cache)).dataset(
        "sample", name="sample"
    )


def read_member(name: str) -> bytes:
    """A file of the archive: instances.jsonl, benign.jsonl, answers.jsonl or an image.

    Raises:
        DataError: there is no such file, or the archive is missing or damaged.
    """
    try:
        with _archive().open("rb") as file, zipfile.ZipFile(file) as archive:
            return archive.read(name)
    except KeyError:
        raise DataError(f"{_ARCHIVE}: holds no {name}") from None
    except (OSError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{_ARCHIVE}: cannot be read, install the package anew: {error}") from None


class ArchiveImages:
    """Reads images of the archive; a locator is a name in it."""

    def __init__(self, cache: Path | None) -> None:
        self._scratch = Scratch(cache)
        self._lock = threading.Lock()

    def stamp(self, locator: str) -> str:
        """The archive's digest and the name.

        Raises:
            BadInputError: the archive cannot be read.
        """
        return f"sample:{self._digest}:{locator}"

    def read(self, locator: str) -> bytes:
        """The image's bytes.

        Raises:
            BadInputError: there is no such image.
        """
        try:
            return read_member(locator)
        except DataError as error:
            raise BadInputError(str(error)) from None

    @property
    def folder(self) -> Path:
        """The folder that all images are extracted into; made now, if it was not.

        Raises:
            OSError: it cannot be made.
        """
        return self._scratch.folder

    def path(self, locator: str) -> Path:
        """The image, extracted into a private folder; it is there until this source goes.

        Raises:
            BadInputError: there is no such image, or it cannot be written.
        """
        with self._lock:
            try:
                path = self._scratch.folder / locator
                if not path.exists():
                    content = self.read(locator)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
            except OSError as error:
                raise BadInputError(f"cannot be extracted: {error.strerror or error}") from None
            return path

    @cached_property
    def _digest(self) -> str:
        try:
            return hashlib.sha256(_archive().read_bytes()).hexdigest()
        except OSError as error:
            raise BadInputError(f"{_ARCHIVE}: cannot be read: {error.strerror}") from None


def _archive() -> Traversable:
    return resources.files("pytest_mirsafety").joinpath(_ARCHIVE)
