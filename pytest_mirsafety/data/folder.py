"""Reads upstream's extracted layout: `<Category>/<Relation>_final.json` beside its images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ..records import Dataset, ImageRef, Instance
from ..taxonomy import Category, Relation, parse_category, parse_relation
from .assembly import Assembly
from .fields import Record, malformed, parse_json, read_text, shown
from .files import FileImages, inside

_SUFFIX: Final = "_final.json"


def load(root: Path, source: str, name: str | None) -> Dataset:
    """The dataset in the folder `root`. Its JSON files are read, its images are not.

    Raises:
        DataError: no such folder, no `*_final.json` in it, or something in one is wrong.
    """
    if not root.is_dir():
        raise malformed(source, "there is no such folder")
    images = FileImages(root)
    assembly = Assembly()
    found = False
    for category, relation, path in _files(root, source):
        found = True
        for record in _records(path):
            assembly.add(record, _instance(record, category, relation, path, images, assembly))
    if not found:
        raise malformed(
            source, f"holds no <Category>/<Relation>{_SUFFIX}; give the folder that was extracted"
        )
    return assembly.dataset(source, name=name)


def _files(root: Path, source: str) -> Iterator[tuple[Category, Relation, Path]]:
    if any(_visible(root, f"*{_SUFFIX}")):
        raise malformed(source, "is the folder of one category; give the folder above it")
    for folder in _visible(root, "*"):
        for path in _visible(folder, f"*{_SUFFIX}") if folder.is_dir() else ():
            place = f"{folder.name}/{path.name}"
            try:
                category = parse_category(folder.name)
                relation = parse_relation(path.name.removesuffix(_SUFFIX))
            except ValueError as error:
                raise malformed(place, str(error)) from None
            yield category, relation, path


def _visible(folder: Path, pattern: str) -> Sequence[Path]:
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def _records(path: Path) -> Iterator[Record]:
    name = f"{path.parent.name}/{path.name}"
    records = parse_json(read_text(path, name), name)
    if not isinstance(records, list):
        raise malformed(name, f"must hold a list of records, not {shown(records)}")
    for number, value in enumerate(records, start=1):
        yield Record.from_value(value, f"{name}, record {number}")


def _instance(
    record: Record,
    category: Category,
    relation: Relation,
    path: Path,
    images: FileImages,
    assembly: Assembly,
) -> Instance:
    record.agree(
        "relationship_type", record.relation("relationship_type"), relation, "the file's name says"
    )
    if "category" in record.values:
        record.agree("category", record.category("category"), category, "the folder's name says")
    files = record.sequence("images")
    if "num_images" in record.values and record.count("num_images") != len(files):
        raise record.error(f"num_images is {record.count('num_images')}, images holds {len(files)}")
    return Instance(
        id=f"{category}/{relation}/{record.upstream_id()}",
        relation=relation,
        category=category,
        question=assembly.question(record, "original_question"),
        prompt=record.text("revised_prompt"),
        images=tuple(_image(record, file, path.parent.name, images) for file in files),
    )


def _image(record: Record, file: object, folder: str, images: FileImages) -> ImageRef:
    if not isinstance(file, str):
        raise record.error(f"an image must be the path of a file, not {shown(file)}")
    try:
        locator = f"{folder}/{inside(file)}"
    except ValueError as error:
        raise record.error(str(error)) from None
    return ImageRef(locator, locator, images)
