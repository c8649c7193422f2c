"""`mirsafety data`: what a data source holds, and its identity."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ..taxonomy import Category, Relation

if TYPE_CHECKING:
    from . import Commands


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("data", help="print what a data source holds, and its identity")
    parser.add_argument(
        "source", metavar="SOURCE", help="sample, folder:PATH, parquet:PATH, hub:..., jsonl:PATH"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Counts per relation and category, the identity, and whether it is what was published."""
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
