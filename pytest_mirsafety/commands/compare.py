"""`mirsafety compare`: a run against an earlier one, and several as a trend."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from .. import whole_files
from ..errors import ConfigurationError
from ..printable import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..comparison.comparing import Comparison
    from ..gates import Criterion, Scope
    from . import Commands


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("compare", help="hold a run against an earlier one")
    run_help = "a run folder (--mir-run), or a file that mirsafety baseline wrote"
    parser.add_argument("base", type=Path, metavar="BASE", help=run_help)
    parser.add_argument("candidates", nargs="+", type=Path, metavar="CANDIDATE", help=run_help)
    parser.add_argument(
        "--max-increase",
        action="append",
        default=[],
        metavar="[NAME=]X",
        help="a gate: how much the rate may rise, overall or of a relation, group or category",
    )
    parser.add_argument(
        "--allow-different",
        default="",
        metavar="data,judge",
        help="report all the same, and decide nothing",
    )
    parser.add_argument(
        "--fail-on-alarm", action="store_true", help="exit with 1 where the alarm rings"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write it as Markdown too")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write it as a page too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the trend: .svg or .png")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compare the last run with the base, report, and give the exit code of the gates."""
    from ..comparison.comparing import compare
    from ..comparison.trend import trend
    from ..reports import comparison as report
    from ..reports import comparison_json, github, trend_plot
    from ..run_folder.pinned import read_side

    criteria = [_criterion(text) for text in options.max_increase]
    _refuse_twice(criteria)
    allow = _allowed(options.allow_different)
    _clear(options)
    if options.plot is not None:
        trend_plot.check_plot(options.plot)
    sides = [read_side(path) for path in (options.base, *options.candidates)]
    found = [compare(sides[0], side, criteria, allow) for side in sides[1:]][-1]
    several = len(sides) > 2 or options.plot is not None  # noqa: PLR2004 - a pair is no trend
    points = trend(sides) if several else ()
    code = _exit_code(found, fail_on_alarm=options.fail_on_alarm)
    if options.markdown is not None:
        whole_files.write(options.markdown, [report.markdown(found, points).encode()])
    if options.html is not None:
        from ..reports.html import comparison as page

        whole_files.write(options.html, map(str.encode, page.render(found, points)))
    if options.json is not None:
        whole_files.write(options.json, [comparison_json.to_json(found, points, code).encode()])
    if options.plot is not None:
        trend_plot.plot(points, options.plot)
    width = shutil.get_terminal_size().columns
    for line in report.render(found, points, width=width):
        print(github.harmless(line.text, os.environ))
    return code


def _exit_code(found: Comparison, *, fail_on_alarm: bool) -> int:
    """1 where a gate fails, or an alarm that may; 10 where a gate is open; 0 for a mere report."""
    from ..gates import Decision

    decisions = {gate.decision for gate in found.gates}
    alarmed = fail_on_alarm and found.alarmed and not found.overlooked
    if Decision.FAIL in decisions or alarmed:
        return 1
    return 10 if decisions - {Decision.PASS} else 0


def _criterion(text: str) -> Criterion:
    """The gate of one `--max-increase`: overall without a name."""
    from ..config import share_in
    from ..gates import Criterion
    from ..gates.criteria import MAX_DECIMALS

    name, _, value = (part.strip() for part in text.rpartition("="))
    if (share := share_in(value)) is None:
        raise ConfigurationError(
            "--max-increase takes a share such as 0.02, or NAME=0.02, from 0 to 1 and with at most "
            f"{MAX_DECIMALS} decimals, not '{one_line(text)}'"
        )
    return Criterion(_scope(name or "overall"), name or "overall", share)


def _scope(name: str) -> Scope:
    """Which kind of instances a name stands for.

    Raises:
        ConfigurationError: it is none; the nearest is named.
    """
    from ..config import SCOPES
    from ..gates import Scope
    from ..taxonomy import nearest

    names = {"overall": Scope.OVERALL}
    for scope in (Scope.RELATION, Scope.GROUP, Scope.CATEGORY):
        names |= dict.fromkeys(SCOPES[scope], scope)
    if name not in names:
        raise ConfigurationError(
            f"--max-increase: unknown gate '{one_line(name)}'; {nearest(name, list(names))}"
        )
    return names[name]


def _refuse_twice(criteria: Sequence[Criterion]) -> None:
    labels = [one.label for one in criteria]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ConfigurationError(f"--max-increase: {twice[0]} is given twice; keep one of them")


def _allowed(text: str) -> tuple[str, ...]:
    from ..comparison.sides import ALLOWABLE

    names = tuple(filter(None, (name.strip() for name in text.split(","))))
    for name in names:
        if name not in ALLOWABLE:
            raise ConfigurationError(
                f"--allow-different takes {' and '.join(ALLOWABLE)}, not '{one_line(name)}'"
            )
    return names


def _clear(options: argparse.Namespace) -> None:
    """Leave no earlier report to be read as this one, and find out that this one can be written.

    Raises:
        ConfigurationError: it cannot be, or would be written over what is read.
    """
    read = [path.resolve() for path in (options.base, *options.candidates)]
    written: list[Path] = []
    for path in (options.markdown, options.html, options.json, options.plot):
        if path is None:
            continue
        target = path.resolve()
        if any(one in (target, *target.parents) for one in read):
            raise ConfigurationError(f"{one_line(str(path))}: would be written into what is read")
        if target in written:
            raise ConfigurationError(f"{one_line(str(path))}: is where two outputs would go")
        written.append(target)
        whole_files.clear(path)
