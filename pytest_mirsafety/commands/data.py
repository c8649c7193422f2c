"""`mirsafety data`: what a data source holds, and its identity."""

from __future__ import annotations

import argparse
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import BadInputError, DataError
from ..printable import one_line
from ..taxonomy import Category, Relation

if TYPE_CHECKING:
    from ..images import ImageReader
    from ..records import Dataset, Instance
    from . import Commands

_MOST_NAMED: Final = 20
"""Bad images that are named; of any more only the number is told."""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("data", help="print what a data source holds, and its identity")
    parser.add_argument(
        "source", metavar="SOURCE", help="sample, folder:PATH, parquet:PATH, hub:..., jsonl:PATH"
    )
    parser.add_argument(
        "--images",
        action="store_true",
        help="read every image and decode it; exit code 4 if one is missing or damaged",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Counts per relation and category, the identity, and whether it is what was published.

    Raises:
        DataError: the source cannot be loaded, or an image is not whole.
    """
    from .. import data

    dataset = data.load(options.source, base=Path.cwd())
    cells = Counter((i.relation, i.category) for i in dataset.instances)
    named = f", as {dataset.name}" if dataset.name else ", a private suite"
    print(f"{dataset.source}: {len(dataset.instances)} instances{named}")
    print(f'data_digest = "sha256:{dataset.identity}"')
    if dataset.revision:
        print(f"revision: {dataset.revision}")
    print()
    for part in (0, 1):
        heads = (category.partition("-")[2 * part] for category in Category)
        print(f"{'' if part else 'relation':16}" + "".join(f"{head:>11}" for head in heads))
    for relation in Relation:
        row = [cells[relation, category] for category in Category]
        print(f"{relation:16}" + "".join(f"{n:11}" for n in row))
    for warning in dataset.warnings:
        print(f"warning: {warning}")
    if (mismatch := data.mismatch(dataset, None)) is not None:
        print(f"mismatch: {mismatch}")
    if options.images:
        _check_images(dataset)


def _check_images(dataset: Dataset) -> None:
    from ..images import ImageLimits, ImageReader

    reader = ImageReader(ImageLimits(), None, pixels=True)
    with ThreadPoolExecutor() as threads:
        found = threads.map(_troubles, repeat(reader), dataset.instances)
        troubles = list(chain.from_iterable(found))
    total = sum(len(instance.images) for instance in dataset.instances)
    if not troubles:
        print(f"{total} images: each was decoded, and is whole")
        return
    for trouble in troubles[:_MOST_NAMED]:
        print(trouble)
    if more := len(troubles[_MOST_NAMED:]):
        print(f"... and {more} more")
    raise DataError(f"{dataset.source}: {len(troubles)} of {total} images cannot be sent")


def _troubles(reader: ImageReader, instance: Instance) -> list[str]:
    """What is wrong with its images, a line each."""
    troubles = []
    for ref in instance.images:
        try:
            reader.inspect(ref)
        except BadInputError as error:
            troubles.append(one_line(f"{instance.id}: {error.detail}", 500))
    return troubles
