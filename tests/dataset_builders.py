"""Writes small datasets in every layout that can be loaded, without Pillow.

`Item` is one instance; `write_folder`, `write_parquet` and `write_jsonl` write the same items in
upstream's extracted layout, in the hub's, and in this project's own.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_mirsafety.taxonomy import Category, Relation


def tiny_png(number: int = 0, *, width: int = 4, height: int = 4) -> bytes:
    """A PNG picture of one colour; another number gives other bytes."""
    colour = hashlib.sha256(str(number).encode()).digest()[:3]
    rows = (b"\0" + colour * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    text = b"number\0" + str(number).encode()
    chunks = ((b"IHDR", header), (b"tEXt", text), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, data) for kind, data in chunks)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file, with its length and checksum."""
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


@dataclass(frozen=True)
class Item:
    """One instance to write; images are the bytes of the files."""

    category: Category
    relation: Relation
    number: int
    question: str
    prompt: str
    images: tuple[bytes, ...]

    @property
    def id(self) -> str:
        """The id that it is loaded under."""
        return f"{self.category}/{self.relation}/{self.number}"

    @property
    def files(self) -> tuple[str, ...]:
        """Where upstream's layout puts its images, from the category's folder."""
        label = self.relation.label
        return tuple(
            f"images/{label}/{label}_{self.number}_{k}.png" for k in range(len(self.images))
        )


def make_items(
    relations: Iterable[Relation] = tuple(Relation),
    categories: Iterable[Category] = tuple(Category),
    *,
    per_cell: int = 1,
    images: int = 2,
) -> list[Item]:
    """Harmless items with distinct texts and images: `per_cell` for each relation and category."""
    categories = tuple(categories)
    cells = [(r, c, n) for r in relations for c in categories for n in range(1, per_cell + 1)]
    return [
        Item(
            category=category,
            relation=relation,
            number=number,
            question=f"Seed question {number} of {category}",
            prompt=f"What links these pictures? ({relation}, {category}, {number})",
            images=tuple(tiny_png(at * images + k) for k in range(images)),
        )
        for at, (relation, category, number) in enumerate(cells)
    ]


def folder_record(item: Item) -> dict[str, Any]:
    """An item as upstream's `<Relation>_final.json` holds it."""
    return {
        "id": item.number,
        "original_question": item.question,
        "relationship_type": item.relation.label,
        "revised_prompt": item.prompt,
        "image_descriptions": ["a picture"] * len(item.images),
        "image_keywords": ["keyword"] * len(item.images),
        "images": list(item.files),
        "iteration": 1,
    }


def write_folder(root: Path, items: Iterable[Item]) -> Path:
    """Write upstream's extracted layout under `root`, and return it."""
    records: dict[Path, list[dict[str, Any]]] = defaultdict(list)
    root.mkdir(parents=True, exist_ok=True)
    for item in items:
        folder = root / item.category.label
        for file, content in zip(item.files, item.images, strict=True):
            write(folder / file, content)
        records[folder / f"{item.relation.label}_final.json"].append(folder_record(item))
    for path, values in records.items():
        path.write_text(json.dumps(values, ensure_ascii=False, indent=2), "utf-8")
    return root


def parquet_row(item: Item) -> dict[str, Any]:
    """An item as a row of the hub's table."""
    return {
        "id": str(item.number),
        "category": item.category.label,
        "relationship_type": item.relation.label,
        "original_question": item.question,
        "revised_prompt": item.prompt,
        "image_descriptions": ["a picture"] * len(item.images),
        "image_keywords": ["keyword"] * len(item.images),
        "images": [{"bytes": content, "path": None} for content in item.images],
        "num_images": len(item.images),
        "iteration": 1,
    }


def write_parquet(
    root: Path, items: Sequence[Item], *, shards: int = 1, row_group_size: int | None = None
) -> Path:
    """Write the hub's layout, `data/train-*.parquet` under `root`, and return `root`."""
    for shard in range(shards):
        rows = [parquet_row(item) for item in items[shard::shards]]
        path = root / "data" / f"train-{shard:05}-of-{shards:05}.parquet"
        write_rows(path, rows, row_group_size=row_group_size)
    return root


def write_rows(
    path: Path, rows: Sequence[dict[str, Any]], *, row_group_size: int | None = None
) -> Path:
    """Write rows of any shape to one Parquet file, and return it.

    Columns that the hub's table has are written with its types where the values fit them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    own: dict[str, Any] = dict.fromkeys(_COLUMNS, pa.string()) | {
        "image_descriptions": pa.list_(pa.string()),
        "image_keywords": pa.list_(pa.string()),
        "images": pa.list_(image),
        "num_images": pa.int64(),
        "iteration": pa.int64(),
    }
    columns: dict[str, Any] = {}
    for name in rows[0] if rows else _COLUMNS:
        values = [row[name] for row in rows]
        try:
            columns[name] = pa.array(values, own.get(name))
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            columns[name] = pa.array(values)
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


_COLUMNS = (
    "id",
    "category",
    "relationship_type",
    "original_question",
    "revised_prompt",
    "image_descriptions",
    "image_keywords",
    "images",
    "num_images",
    "iteration",
)


def jsonl_record(item: Item, *, declare: bool = True) -> dict[str, Any]:
    """An item as a line of `instances.jsonl`; `declare` adds the images' digests."""
    files = (f"images/{item.category}-{item.relation}-{item.number}-{k}.png" for k in range(99))
    images: list[Any] = [
        {"file": file, "sha256": hashlib.sha256(content).hexdigest()} if declare else file
        for file, content in zip(files, item.images, strict=False)
    ]
    return {
        "id": item.id,
        "relation": item.relation.value,
        "category": item.category.value,
        "question": item.question,
        "prompt": item.prompt,
        "images": images,
    }


def write_jsonl(root: Path, items: Iterable[Item], *, declare: bool = True) -> Path:
    """Write `instances.jsonl` and its images under `root`, and return `root`."""
    lines = []
    for item in items:
        record = jsonl_record(item, declare=declare)
        for image, content in zip(record["images"], item.images, strict=True):
            write(root / (image["file"] if declare else image), content)
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    write(root / "instances.jsonl", "".join(lines).encode())
    return root


def write(path: Path, content: bytes) -> Path:
    """Write a file, its folders too, and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
