"""`mirsafety calibrate`: a run's judge and gates, held against labels by people."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from .. import whole_files
from ..errors import ConfigurationError, DataError
from ..printable import one_line

if TYPE_CHECKING:
    from . import Commands


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("calibrate", help="hold a run's judge and gates against labels")
    parser.add_argument("folder", type=Path, metavar="RUN", help="the run's folder (--mir-run)")
    parser.add_argument(
        "--labels", type=Path, required=True, metavar="FILE", help="labels by people, as JSON lines"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON too")
    parser.add_argument("--seed", metavar="SEED", help="what the labelled sample was drawn by")
    parser.add_argument(
        "--transported",
        action="store_true",
        help="let labels of other runs or relations decide gates, by the melded bound",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Report on the judge, decide the gates with the labels, and give the exit code of that."""
    from .. import labels, run_folder
    from ..calibration import SEED, calibrate, exit_code
    from ..reports import calibration as report
    from ..reports.github import harmless

    if options.json is not None:
        _clear(options.json, options)
    recorded = run_folder.read(options.folder)
    run_folder.refuse_trials(recorded, "calibrate")
    sha256 = _sha256(options.labels)
    given = labels.read(options.labels)
    if not given:
        raise DataError(f"{one_line(str(options.labels))}: holds no label")
    if sha256 != _sha256(options.labels):
        raise DataError(f"{one_line(str(options.labels))}: was written to; try again")
    seed = SEED if options.seed is None else options.seed
    found = calibrate(recorded, given, seed=seed, transported=options.transported)
    source = report.Source(
        run=recorded.where,
        run_digest=recorded.digest,
        labels=one_line(str(options.labels)),
        labels_sha256=sha256,
        exit_code_before=exit_code(found.before, recorded),
        exit_code=exit_code(found.after, recorded),
        beside=tuple(labels.of_another_draw(options.labels, recorded.digest, seed)),
    )
    if options.json is not None:
        whole_files.write(options.json, [report.to_json(found, source).encode()])
    for line in report.render(found, source, width=shutil.get_terminal_size().columns):
        print(harmless(line, os.environ))
    return source.exit_code


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        problem = error.strerror or str(error)
        raise DataError(one_line(f"{path}: cannot be read: {problem}", 400)) from None


def _clear(path: Path, options: argparse.Namespace) -> None:
    """Leave no earlier result to be read as this one, and find out that this one can be written.

    Raises:
        ConfigurationError: it cannot be, or would be written over what is read.
    """
    folder, target = options.folder.resolve(), path.resolve()
    if target == options.labels.resolve() or folder in (target, *target.parents):
        raise ConfigurationError(f"{one_line(str(path))}: would be written into what is read")
    whole_files.clear(path)
