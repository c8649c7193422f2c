"""`mirsafety report`: a recorded run as a page and as Markdown."""

from __future__ import annotations

import argparse
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigurationError, DataError
from ..printable import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..comparison.sides import Side
    from ..records import Dataset
    from ..results import Provenance, RunResult
    from . import Commands


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("report", help="write a run as HTML and Markdown")
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run folder (--mir-run)")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="the page (report.html in the folder)"
    )
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="the Markdown (report.md in the folder)"
    )
    parser.add_argument(
        "--terminal", action="store_true", help="print the closing section of the run as well"
    )
    parser.add_argument("--junitxml", type=Path, metavar="FILE", help="write JUnit XML as well")
    parser.add_argument(
        "--summary", type=Path, metavar="FILE", help="write the summary as JSON as well"
    )
    parser.add_argument(
        "--earlier",
        action="append",
        default=[],
        type=Path,
        metavar="RUN",
        help="an earlier run, or a baseline file, as points in the picture of the arms",
    )
    parser.add_argument("--data", metavar="SOURCE", help="where the run's data is now, for images")
    parser.add_argument("--no-images", action="store_true", help="a page without pictures")
    parser.add_argument(
        "--redact", action="store_true", help="no prompts, answers or images; digests to join by"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Read the run, decide it again, write both files, and say where they are.

    Raises:
        RunError: the run or the named data cannot be read, or a file cannot be written.
    """
    from .. import reporting
    from ..reports import github

    _refuse(options)
    images = not (options.no_images or options.redact)
    reported = reporting.recorded(options.folder, images=images, redacted=options.redact)
    if options.earlier:
        reported = replace(reported, earlier=tuple(_earlier(options.earlier, reported.result)))
    if images:
        dataset, trouble = _dataset(options, reported.result.provenance)
        reported = replace(reported, dataset=dataset, trouble=trouble)
    page = reporting.write_page(reported, options.html)
    text = reporting.write_markdown(reported, options.markdown, page=page)
    if options.terminal:
        for line in reporting.closing_lines(reported, shutil.get_terminal_size().columns):
            print(github.harmless(line, os.environ))
    more = reporting.write_machines(reported, junit=options.junitxml, summary=options.summary)
    for path in (page, text, *more):
        print(one_line(str(path), 1000))


def _earlier(paths: Sequence[Path], result: RunResult) -> Iterator[Side]:
    """Earlier runs as sides.

    Raises:
        DataError: one cannot be read, or was asked other data.
    """
    from ..run_folder.pinned import read_side

    for path in paths:
        side = read_side(path)
        if side.terms.data_identity != result.provenance.data_identity:
            raise DataError(f"--earlier: {one_line(side.where)} is a run on other data")
        yield side


def _dataset(options: argparse.Namespace, provenance: Provenance) -> tuple[Dataset | None, str]:
    """The run's data, or why it is not at hand; what was named must be it.

    Raises:
        DataError: what was named with --data is not the run's data.
    """
    from .. import recorded_data
    from ..results import THUMBNAILS

    if options.data is None and (options.folder / THUMBNAILS).is_file():
        return None, ""  # made before: the page needs no data
    try:
        return recorded_data.load(provenance, options.data), ""
    except DataError as error:
        if options.data is not None:
            raise
        return None, f"There are no pictures: {one_line(str(error), 600)}"


def _refuse(options: argparse.Namespace) -> None:
    """Let no report be written over the run, or over the other one.

    Raises:
        ConfigurationError: it would be.
    """
    from ..results import MARKDOWN, PAGE, THUMBNAILS
    from ..run_folder import MANIFEST, RESULTS

    files = {
        "--html": options.html or options.folder / PAGE,
        "--markdown": options.markdown or options.folder / MARKDOWN,
        "--junitxml": options.junitxml,
        "--summary": options.summary,
    }
    taken: dict[Path, str] = {}
    own = {(options.folder / name).resolve() for name in (MANIFEST, RESULTS, THUMBNAILS)}
    for option, file in files.items():
        if file is None:
            continue
        path = file.resolve()
        if (other := taken.setdefault(path, option)) is not option:
            raise ConfigurationError(f"{other} and {option} name one file; name two")
        if path in own:
            raise ConfigurationError(one_line(f"{path}: is the run's own; name another file", 400))
