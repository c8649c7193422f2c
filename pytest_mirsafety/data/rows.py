"""Images that are embedded in the rows of Parquet files."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from ..errors import BadInputError
from ..printable import one_line
from .scratch import Scratch

if TYPE_CHECKING:
    import pyarrow.parquet as pq

IMAGES: Final = "images"
_ROWS_AT_ONCE: Final = 4
_BUFFER: Final = 1 << 20


class RowImage(NamedTuple):
    """One image: its file, row group, row in the group, place in the row, and images declared."""

    file: int
    group: int
    row: int
    place: int
    declared: int

    def __str__(self) -> str:
        return "/".join(map(str, tuple(self)))

    @classmethod
    def from_locator(cls, locator: str) -> RowImage:
        """The inverse of `str`."""
        return cls(*map(int, locator.split("/")))


@dataclass(frozen=True, slots=True)
class _Group:
    """A row group on disk: images held by each row extracted, and what ended the extraction."""

    folder: Path
    held: tuple[int, ...]
    problem: str | None


class RowImages:
    """Reads embedded images; a locator is the text of a `RowImage`.

    Parquet cannot give one row without those before it in its row group, and instances are asked
    in another order than they are stored. So the first image asked for extracts its whole row
    group into files of a private folder under `cache`: one group at a time and a few rows at a
    time, because a page has to be in memory whole, and some writers make a group one page.
    """

    def __init__(self, files: Sequence[Path], cache: Path | None) -> None:
        self._files = tuple(files)
        self._stamps = tuple(_file_stamp(file) for file in files)
        self._scratch = Scratch(cache)
        self._groups: dict[tuple[int, int], _Group] = {}
        self._extracting = threading.Lock()

    def stamp(self, locator: str) -> str:
        """The file's path, size and times, with the row and the place in it.

        Raises:
            BadInputError: the file is missing, or is no longer the one that was loaded.
        """
        image = RowImage.from_locator(locator)
        self._check(image.file)
        return f"parquet:{self._stamps[image.file]}:{locator}"

    def read(self, locator: str) -> bytes:
        """The embedded bytes.

        Raises:
            BadInputError: the row cannot be read, or does not hold what it declares.
        """
        try:
            return self.path(locator).read_bytes()
        except OSError as error:
            raise BadInputError(f"cannot be read: {error.strerror or error}") from None

    @property
    def folder(self) -> Path:
        """The folder that all images are extracted into; made now, if it was not.

        Raises:
            OSError: it cannot be made.
        """
        return self._scratch.folder

    def path(self, locator: str) -> Path:
        """The image as a file; it is there until this source is closed or collected.

        Raises:
            BadInputError: the row cannot be read, or does not hold what it declares.
        """
        image = RowImage.from_locator(locator)
        group = self._group(image.file, image.group)
        if image.row >= len(group.held):
            raise BadInputError(f"cannot be extracted: {group.problem or 'the row is gone'}")
        if (held := group.held[image.row]) != image.declared:
            raise BadInputError(f"the row holds {held} images and declares {image.declared}")
        path = group.folder / f"{image.row}-{image.place}"
        if not path.exists():
            raise BadInputError("is not embedded in its row")
        return path

    def close(self) -> None:
        """Remove the extracted files."""
        with self._extracting:
            self._groups.clear()
            self._scratch.close()

    def _group(self, file: int, group: int) -> _Group:
        if (found := self._groups.get((file, group))) is not None:
            return found
        with self._extracting:
            if (found := self._groups.get((file, group))) is None:
                self._check(file)
                found = self._extract(file, group)
                self._groups[file, group] = found
        return found

    def _extract(self, file: int, group: int) -> _Group:
        held: list[int] = []
        problem = None
        folder = Path()
        try:
            folder = self._scratch.folder / f"{file}-{group}"
            folder.mkdir()
            for row, images in enumerate(_row_images(self._files[file], group)):
                for place, content in enumerate(images):
                    if content is not None:
                        (folder / f"{row}-{place}").write_bytes(content)
                held.append(len(images))
        except failures() as error:
            problem = one_line(str(error))
        return _Group(folder, tuple(held), problem)

    def _check(self, file: int) -> None:
        try:
            now = _file_stamp(self._files[file])
        except OSError as error:
            raise BadInputError(f"cannot be reached: {error.strerror or error}") from None
        if now != self._stamps[file]:
            raise BadInputError("the Parquet file was changed after it was loaded")


def open_file(path: Path) -> pq.ParquetFile:
    """A Parquet file that is read as it is needed, not ahead.

    Raises:
        OSError, pyarrow.ArrowException: see `failures`.
    """
    import pyarrow.parquet as pq

    return pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)


def failures() -> tuple[type[Exception], ...]:
    """What reading a Parquet file may raise when the file or the disk is at fault."""
    import pyarrow as pa

    return OSError, ValueError, pa.ArrowException, MemoryError


def _row_images(path: Path, group: int) -> Iterator[list[bytes | None]]:
    import pyarrow as pa

    with open_file(path) as file:
        batches = file.iter_batches(
            _ROWS_AT_ONCE, row_groups=[group], columns=[IMAGES], use_threads=False
        )
        for images in chain.from_iterable(batch.column(0).to_pylist() for batch in batches):
            yield [i["bytes"] if isinstance(i, dict) else i for i in images or ()]
    pa.default_memory_pool().release_unused()


def _file_stamp(path: Path) -> str:
    real = path.resolve()
    info = os.stat(real)  # noqa: PTH116 - with the line above, one look at the file
    return f"{real}:{info.st_size}:{info.st_mtime_ns}:{info.st_ctime_ns}"
