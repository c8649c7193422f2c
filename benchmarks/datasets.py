"""Generates a `jsonl:` dataset of the benchmark's size and shape, with harmless content.

    python benchmarks/datasets.py FOLDER --instances=400

2,676 instances have the published number in each relation; another number is spread in the same
proportion. Categories are filled evenly, since their numbers were not published. A picture is
1024x1024 and looks to a PNG encoder like a photograph: about 1.8 MB.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from pytest_mirsafety.taxonomy import PUBLISHED_TOTAL, Category, Relation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILE_NAME: Final = "instances.jsonl"
SEEDS: Final = 546
"""Seed questions of the published instances."""

MOST_LINKS: Final = 30_000
"""Names that one file is given; ext4 allows 65,000."""

_SIDE: Final = 1024
_PICTURES: Final = 24
"""Pictures that are drawn; files differ in a text chunk at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetShape:
    """What is generated: the same shape gives the same bytes.

    `side` is that of the square pictures, in pixels; 0 for pictures of a few bytes. `files` is
    the number of distinct image files, which further names are hard links to; 0 for as many as
    there are images.
    """

    instances: int = PUBLISHED_TOTAL
    side: int = _SIDE
    files: int = 0
    seed: int = 0

    @classmethod
    def tiny(cls, instances: int = PUBLISHED_TOTAL) -> Self:
        """A dataset whose images cost nothing to read."""
        return cls(instances=instances, side=0, files=64 + instances // 1000)


def counts(instances: int) -> dict[Relation, int]:
    """How many instances each relation has: the published share, by largest remainders."""
    exact = {r: instances * r.published_count / PUBLISHED_TOTAL for r in Relation}
    found = {relation: int(share) for relation, share in exact.items()}
    rest = sorted(Relation, key=lambda r: found[r] - exact[r])
    for relation in rest[: instances - sum(found.values())]:
        found[relation] += 1
    return found


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the file; images are names under `images/`, numbered in order."""

    id: str
    relation: str
    category: str
    question: str
    prompt: str
    images: tuple[str, ...]


def records(shape: DatasetShape) -> Iterator[Record]:
    """The lines of the file."""
    image = 0
    for relation, count in counts(shape.instances).items():
        for number in range(count):
            category = list(Category)[number % len(Category)]
            name = f"{category}/{relation}/{number // len(Category) + 1}"
            images = range(image, image := image + _images_of(name, shape.seed))
            yield Record(
                id=name,
                relation=relation.value,
                category=category.value,
                question=f"Placeholder question {number % SEEDS} of {category}?",
                prompt=f"Placeholder {name}: what links these {len(images)} pictures?",
                images=tuple(f"images/{k:06}.png" for k in images),
            )


def prompts(folder: Path) -> list[str]:
    """The prompts of a dataset, in the order of its file."""
    lines = (folder / FILE_NAME).read_text("utf-8").splitlines()
    return [str(json.loads(line)["prompt"]) for line in lines]


def write(folder: Path, shape: DatasetShape) -> Path:
    """Write the dataset into its folder, unless it is there already, and return the folder."""
    mark = folder / "shape.json"
    text = json.dumps(asdict(shape))
    if mark.is_file() and mark.read_text("utf-8") == text:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    lines = list(records(shape))
    with (folder / FILE_NAME).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(line)) + "\n" for line in lines)
    _write_images(folder, sum(len(line.images) for line in lines), shape)
    mark.write_text(text, "utf-8")
    return folder


def _images_of(name: str, seed: int) -> int:
    """From 2 to 4."""
    return 2 + hashlib.sha256(f"{seed} {name}".encode()).digest()[0] % 3


def _write_images(folder: Path, number: int, shape: DatasetShape) -> None:
    files = max(shape.files or number, -(-number // MOST_LINKS))
    pictures = [picture(shape.side, shape.seed + k) for k in range(min(_PICTURES, files))]
    for k in range(number):
        path = folder / f"images/{k:06}.png"
        if k < files:
            path.write_bytes(with_number(pictures[k % len(pictures)], k))
        else:
            path.hardlink_to(folder / f"images/{k % files:06}.png")


def with_number(png: bytes, number: int) -> bytes:
    """The same picture as other bytes: with a text chunk before the end."""
    text = b"number\0" + str(number).encode()
    chunk = struct.pack(">I4s", len(text), b"tEXt") + text
    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
    return png[:-12] + chunk + png[-12:]


def picture(side: int, seed: int) -> bytes:
    """A PNG of noise at all scales, as photographs have it; drawn from the seed.

    About 1.8 bytes a pixel: more than a drawing needs, less than noise. Side 0 gives a few bytes.
    """
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(seed)
    if not side:
        pixels = random.integers(0, 256, (2, 2, 3), np.uint8)
    else:
        light = _clouds(random, side)[..., None]
        tint = np.stack([_clouds(random, side, finest=64) for _ in range(3)], axis=-1)
        grain = random.normal(0, 1.9, (side, side, 3)) + random.normal(0, 2.8, (side, side, 1))
        pixels = np.clip(128 + 60 * light + 30 * tint + grain, 0, 255).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _clouds(random: np.random.Generator, side: int, *, finest: int = 2) -> NDArray[np.float32]:
    """A smooth field of standard deviation about 1: each scale half as strong as the coarser."""
    import numpy as np
    from PIL import Image

    total = np.zeros((side, side), np.float32)
    cell, strength = side // 4, 0.8
    while cell >= finest:
        count = side // cell
        grid = random.normal(0, strength, (count, count)).astype(np.float32)
        resized = Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC)
        total += np.asarray(resized)
        cell, strength = cell // 2, strength * 0.5
    return total


def main() -> None:
    """Write a dataset."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--instances", type=int, default=PUBLISHED_TOTAL)
    parser.add_argument("--side", type=int, default=_SIDE, help="0 for pictures of a few bytes")
    parser.add_argument("--files", type=int, default=0, help="distinct files; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    shape = DatasetShape(
        instances=options.instances, side=options.side, files=options.files, seed=options.seed
    )
    print(write(options.folder, shape) / FILE_NAME)


if __name__ == "__main__":
    main()
