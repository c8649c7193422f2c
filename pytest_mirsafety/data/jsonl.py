"""Reads this project's own layout: one JSON object a line, beside the images it names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from ..protocols import ImageSource
from ..records import Dataset, ImageRef, Instance
from .assembly import Assembly
from .fields import Record, decode_text, malformed, parse_json, shown
from .files import FileImages, inside

FILE_NAME: Final = "instances.jsonl"
REQUIRED: Final = ("id", "relation", "category", "question", "prompt", "images")
OPTIONAL: Final = ("keywords", "descriptions", "must_mention", "iteration", "notes")

ReadsMore = Callable[[Record, Instance], None]

_SHA256 = re.compile(r"[0-9a-f]{64}")


def load(path: Path, source: str) -> Dataset:
    """The suite in a file, or in the `instances.jsonl` of a folder. No image is read.

    Raises:
        DataError: no such file, or something in it is wrong.
    """
    return read(path, source).dataset(source, name=None)


def read(
    path: Path, source: str, in_folder: str = FILE_NAME, also: ReadsMore | None = None
) -> Assembly:
    """The instances of a file, or of the file `in_folder` of a folder; `also` as for `assemble`.

    Raises:
        DataError: no such file, or something in it is wrong.
    """
    file = path / in_folder if path.is_dir() else path
    if not file.is_file():
        raise malformed(source, f"there is no file {file.name}")
    try:
        with file.open("rb") as lines:
            return assemble(lines, file.name, FileImages(file.parent), also)
    except OSError as error:
        raise malformed(file.name, f"cannot be read: {error.strerror or error}") from None


def assemble(
    lines: Iterable[bytes], file: str, images: ImageSource, also: ReadsMore | None = None
) -> Assembly:
    """The instances that the lines describe; blank lines are passed over.

    `also` is called with each record and its instance, to read what no instance holds.

    Raises:
        DataError: something in a line is wrong; the message names `file` and the line.
    """
    assembly = Assembly()
    for record in _records(lines, file):
        assembly.add(record, instance := _instance(record, images, assembly))
        if also is not None:
            also(record, instance)
    return assembly


def _records(lines: Iterable[bytes], file: str) -> Iterator[Record]:
    for number, line in enumerate(lines, start=1):
        place = f"{file}, line {number}"
        if (text := decode_text(line, place)).strip():
            yield Record.from_value(parse_json(text, file, number), place)


def _instance(record: Record, images: ImageSource, assembly: Assembly) -> Instance:
    record.check_keys(REQUIRED, OPTIONAL)
    return Instance(
        id=record.text("id"),
        relation=record.relation("relation"),
        category=record.category("category"),
        question=assembly.question(record, "question"),
        prompt=record.text("prompt"),
        images=tuple(_images(record, images)),
    )


def _images(record: Record, images: ImageSource) -> Iterable[ImageRef]:
    for value in record.sequence("images"):
        if isinstance(value, str):
            file, sha256 = value, None
        else:
            image = Record.from_value(value, f"{record.place}, images")
            image.check_keys(("file",), ("sha256",))
            file = image.text("file")
            sha256 = image.text("sha256") if "sha256" in image.values else None
        if sha256 is not None and _SHA256.fullmatch(sha256) is None:
            raise record.error(f"sha256 must be 64 digits 0-9 a-f, not {shown(sha256)}")
        try:
            locator = inside(file)
        except ValueError as error:
            raise record.error(str(error)) from None
        yield ImageRef(locator, locator, images, sha256)
