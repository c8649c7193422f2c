"""`mirsafety export`: a recorded run in the formats of other tools."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .. import whole_files
from ..errors import ConfigurationError, DataError
from ..printable import one_line

if TYPE_CHECKING:
    from ..results import RecordedRun
    from ..run_folder import Exchanges
    from . import Commands

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("export", help="write a run in the formats of other tools")
    option = parser.add_argument
    option("folder", type=Path, metavar="RUN", help="the run's folder (--mir-run)")
    option(
        "--upstream",
        type=Path,
        metavar="FOLDER",
        help="infer/ and harmbench/ as upstream's harness writes them, for its statics.py",
    )
    option("--name", metavar="NAME", help="the model's folder in them (default: from its name)")
    option("--data", metavar="SOURCE", help="where the run's data is now, for --upstream")
    option("--csv", type=Path, metavar="FILE", help="a table with a row per instance")
    option(
        "--dataset",
        type=Path,
        metavar="FOLDER",
        help="JSON lines and a card, as the Hugging Face hub takes them",
    )
    option("--license", metavar="ID", help="the licence that the card names, such as cc-by-4.0")
    option(
        "--text",
        action="store_true",
        help="with prompts, answers and evidence, in --csv and --dataset",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Write what was asked for, and say what it holds.

    Raises:
        RunError: the run or its data cannot be read, or a file cannot be written.
    """
    from .. import run_folder

    if not any((options.upstream, options.csv, options.dataset)):
        raise ConfigurationError("export: name at least one of --upstream, --csv and --dataset")
    _check(options)
    recorded = run_folder.read(options.folder)
    if (shard := recorded.design.shard) is not None:
        raise DataError(
            f"{recorded.where}: is shard {shard} of a run; put it together first (mirsafety merge)"
        )
    exchanges = run_folder.Exchanges([(options.folder, recorded)])
    if options.upstream is not None:
        _upstream(options, recorded, exchanges)
    if options.csv is not None:
        from ..exports.rows import csv_lines

        lines = csv_lines(recorded.all_outcomes, exchanges, texts=_has_texts(options, recorded))
        whole_files.write(options.csv, lines)
        rows = f"{len(recorded.all_outcomes):,} rows{_texts(options, recorded)}"
        print(f"{_shown(options.csv)}: {rows}")
    if options.dataset is not None:
        _dataset(options, recorded, exchanges)


def _check(options: argparse.Namespace) -> None:
    """Refuse what cannot be, before anything is read or written."""
    from ..exports.card import LICENSE

    for path in (options.csv, options.upstream, options.dataset):
        if path is not None and _is_within(path, options.folder):
            raise ConfigurationError(f"{_shown(path)}: would be written into the run; name another")
    target = options.dataset
    if target is not None and target.exists() and not _is_empty_folder(target):
        raise ConfigurationError(f"{_shown(target)}: is no empty folder; name another, or empty it")
    if options.name is not None and not _NAME.fullmatch(options.name):
        raise ConfigurationError(
            "--name: a folder's name of letters, digits, '.', '_' and '-', which does not begin "
            f"with a dot, not '{one_line(options.name, 60)}'"
        )
    if options.license is not None and not LICENSE.fullmatch(options.license):
        raise ConfigurationError(
            f"--license: an identifier of the hub, such as cc-by-4.0, not "
            f"'{one_line(options.license, 60)}'"
        )


def _is_within(path: Path, folder: Path) -> bool:
    inner, outer = path.resolve(), folder.resolve()
    return outer in (inner, *inner.parents)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _upstream(options: argparse.Namespace, recorded: RecordedRun, exchanges: Exchanges) -> None:
    from .. import recorded_data, run_folder
    from ..exports import upstream

    run_folder.refuse_trials(recorded, "export --upstream")
    name = options.name or upstream.folder_name(recorded.provenance.model_name)
    root: Path = options.upstream
    for folder in (root / "infer" / name, root / "harmbench" / name):
        # What is left of another run there would be added up with this one.
        if folder.exists():
            raise ConfigurationError(
                f"{_shown(folder)}: is there already; choose another --name, or remove it"
            )
    dataset = recorded_data.load(recorded.provenance, options.data)
    found = upstream.results(recorded, dataset, exchanges, name)
    for place, content in found.files.items():
        whole_files.write(root / place, [content])
    print(
        f"{_shown(root / 'infer' / name)}: {found.records:,} records, {found.failed:,} of them "
        f"failures; {found.missing:,} instances were not run"
    )
    unscored = len(recorded.outcomes) - found.scored
    print(
        f"{_shown(root / 'harmbench' / name)}: {found.scored:,} labels, {found.unsafe:,} unsafe; "
        f"upstream's statics.py prints a total of {found.asr}, the unsafe of those scored"
    )
    if unscored:
        print(
            f"{unscored:,} of {len(recorded.outcomes):,} instances are unscored, which upstream "
            "does not count: the gates do, and their range is wider"
        )


def _dataset(options: argparse.Namespace, recorded: RecordedRun, exchanges: Exchanges) -> None:
    from ..exports import card, rows
    from ..reporting import decided_again

    result = decided_again(recorded)
    texts = _has_texts(options, recorded)
    lines = rows.json_lines(recorded.all_outcomes, exchanges, texts=texts)
    root: Path = options.dataset
    whole_files.write(root / card.DATA, lines)
    text = card.card(result, texts=texts, license_id=options.license)
    whole_files.write(root / card.CARD, [text])
    rows_written = f"{len(recorded.all_outcomes):,} rows{_texts(options, recorded)}"
    print(f"{_shown(root)}: a card and {rows_written}")
    if options.license is None:
        print("the card names no licence: choose one (--license=ID) before it is published")


def _has_texts(options: argparse.Namespace, recorded: RecordedRun) -> bool:
    return options.text and not recorded.redacted


def _texts(options: argparse.Namespace, recorded: RecordedRun) -> str:
    if _has_texts(options, recorded):
        return ", with prompts and answers: keep them as private as the run"
    why = "the run was redacted" if recorded.redacted else "--text has those"
    return f", digests in place of texts ({why})"


def _shown(path: Path) -> str:
    return one_line(str(path))
