"""Reads the hub's layout: Parquet files with a row for each instance, images embedded."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import MissingExtraError
from ..records import Dataset, ImageRef, Instance
from ..taxonomy import nearest
from .assembly import MAX_IMAGES, Assembly
from .fields import Record, malformed
from .rows import IMAGES, RowImage, RowImages, failures, open_file

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

TEXTS: Final = ("category", "relationship_type", "original_question", "revised_prompt")
COLUMNS: Final = ("id", *TEXTS, "num_images")
_BATCH: Final = 256


@dataclass(frozen=True, slots=True)
class Origin:
    """What the dataset is called, and where its files were had from."""

    source: str
    name: str | None
    revision: str | None = None
    warnings: tuple[str, ...] = ()


def load(path: Path, origin: Origin, cache: Path | None) -> Dataset:
    """The dataset in a Parquet file, in the `*.parquet` under a folder, or of a pattern.

    No image is read: the columns read are texts, numbers, and the images' names.

    Raises:
        DataError: no such file, or something in one is wrong.
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401 - whether it is there
    except ImportError:
        raise MissingExtraError(f"reading Parquet ({origin.source})", "hub") from None
    files = _files(path)
    if not files:
        raise malformed(origin.source, "there is no such Parquet file, nor a folder with one")
    images = RowImages(files, cache)
    assembly = Assembly()
    for number, file in enumerate(files):
        for at, record in _records(file, number):
            assembly.add(record, _instance(record, at, images, assembly))
    return assembly.dataset(
        origin.source, name=origin.name, revision=origin.revision, warnings=origin.warnings
    )


def _files(path: Path) -> Sequence[Path]:
    found: Iterable[Path]
    if path.is_dir():
        found = path.rglob("*.parquet")
    elif path.exists():
        found = [path]
    else:
        found = (Path(name) for name in glob.iglob(str(path), recursive=True))  # noqa: PTH207 - the pattern may be absolute
    return sorted(file for file in found if file.is_file() and not file.name.startswith("."))


def _records(path: Path, number: int) -> Iterator[tuple[RowImage, Record]]:
    """Each row without its images, with where they are."""
    row = 0
    try:
        with open_file(path) as file:
            columns = _columns(file.schema_arrow, file, path.name)
            for group in range(file.metadata.num_row_groups):
                batches = file.iter_batches(
                    _BATCH, row_groups=[group], columns=columns, use_threads=False
                )
                values = (value for batch in batches for value in batch.to_pylist())
                for in_group, value in enumerate(values):
                    row += 1
                    record = Record(f"{path.name}, row {row}", value)
                    yield RowImage(number, group, in_group, 0, _count(record)), record
    except failures() as error:
        place = f"{path.name}, row {row + 1}" if row else path.name
        raise malformed(place, f"is not readable as Parquet: {error}") from None


def _columns(schema: pa.Schema, file: pq.ParquetFile, name: str) -> list[str]:
    """The columns to read, once it is clear that all are there and images are embedded."""
    for column in (*COLUMNS, IMAGES):
        if column not in schema.names:
            found = nearest(column, schema.names) if schema.names else "there is none at all"
            raise malformed(name, f"column '{column}' is missing; {found}")
    leaves = [file.schema.column(i).path for i in range(len(file.schema.names))]
    own = [leaf for leaf in leaves if leaf.split(".")[0] == IMAGES]
    kind = schema.field(IMAGES).type
    if not _is_image_list(kind):
        raise malformed(
            name, f"column '{IMAGES}' must be a list of embedded images (bytes, path), not {kind}"
        )
    return [*COLUMNS, *(leaf for leaf in own if leaf.endswith(".path"))]


def _is_image_list(kind: pa.DataType) -> bool:
    import pyarrow.types as t

    if not (t.is_list(kind) or t.is_large_list(kind)):
        return False
    image = kind.value_type
    if t.is_struct(image):
        if image.get_field_index("bytes") < 0:
            return False
        image = image.field("bytes").type
    return t.is_binary(image) or t.is_large_binary(image)


def _count(record: Record) -> int:
    """How many images the row declares, checked against its list where that can be seen."""
    declared = record.count("num_images")
    if not 1 <= declared <= MAX_IMAGES:
        raise record.error(f"num_images is {declared}; an instance has 1 to {MAX_IMAGES} images")
    if IMAGES in record.values and (held := len(record.sequence(IMAGES))) != declared:
        raise record.error(f"num_images is {declared}, images holds {held}")
    return declared


def _instance(record: Record, at: RowImage, images: RowImages, assembly: Assembly) -> Instance:
    category = record.category("category")
    relation = record.relation("relationship_type")
    return Instance(
        id=f"{category}/{relation}/{record.upstream_id()}",
        relation=relation,
        category=category,
        question=assembly.question(record, "original_question"),
        prompt=record.text("revised_prompt"),
        images=tuple(
            ImageRef(f"{record.place}, image {k + 1}", str(at._replace(place=k)), images)
            for k in range(at.declared)
        ),
    )
