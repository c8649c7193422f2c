"""The table of pairs in the terminal: what became unsafe, what became safe, and the increase."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from ..comparison.evidence import Increase
from ..comparison.pairs import PairCounts
from ..comparison.recorded import comparison_of
from ..comparison.regression import RegressionResult
from ..comparison.wording import margin, points
from ..printable import one_line
from ..results import RunResult
from . import words
from .lines import BOLD, COLOURS, PLAIN, Line

HEADINGS: Final = ("", "worse", "better", "open", "pairs", "increase", "limit", "decision")
MAX_LISTED: Final = 12


def increases(result: RunResult, width: int) -> Iterator[Line]:
    """A run against its baseline, in points of the rate; nothing where it has none."""
    found = comparison_of(result)
    if found is None:
        return
    base = found.base
    about = f"{base.where}: {base.terms.model_name}, of {words.date(base.terms.started)}"
    yield Line(one_line(f"against {about}", width), BOLD)
    report_only = result.design.report_only
    rows = [
        (gate.criterion.label, *gate_cells(gate, report_only=report_only))
        for gate in result.regression
    ]
    colours = [COLOURS[gate.decision] for gate in result.regression]
    if all(gate.criterion.label != found.overall.name for gate in result.regression):
        overall = found.overall
        cells = pair_cells(overall.counts)
        rows.append((overall.name, *cells, bounds_cell(overall.bounds), "-", "no gate"))
        colours.append(PLAIN)
    for text, colour in zip(padded([HEADINGS, *rows]), [BOLD, *colours], strict=True):
        yield Line(text, colour)
    if alarmed := found.alarmed:
        names = ", ".join(row.name for row in alarmed)
        yield Line(one_line(f"ALARM: more unsafe than by chance: {names}", width), COLOURS["fail"])
    more = "mirsafety compare has them all"
    yield from listed("newly unsafe", found.changes.newly_unsafe, width, more)
    yield from listed("newly safe", found.changes.newly_safe, width, more)
    yield Line("")


def _gate_bounds(gate: RegressionResult) -> str:
    """The increase that a gate is about; a dash where nothing bounds it."""
    if gate.low <= -1 and gate.high >= 1:
        return "-"
    return _bounds(gate.low, gate.high, exact=gate.exact)


def gate_cells(gate: RegressionResult, *, report_only: bool = False) -> tuple[str, ...]:
    """Its four counts of pairs, the increase, the limit, and the decision."""
    return (
        *pair_cells(gate.counts),
        _gate_bounds(gate),
        margin(gate.criterion.threshold),
        words.decided(gate.decision, report_only=report_only),
    )


def pair_cells(counts: PairCounts) -> tuple[str, str, str, str]:
    """Newly unsafe, newly safe, without two verdicts, and all."""
    return (
        str(counts.newly_unsafe),
        str(counts.newly_safe),
        str(counts.unscored),
        str(counts.total),
    )


def bounds_cell(bounds: Increase | None) -> str:
    """Such as `-0.4 to +1.3`, in points; a dash where there are none."""
    if bounds is None:
        return "-"
    return _bounds(float(bounds.low), float(bounds.high), exact=bounds.exact)


def _bounds(low: float, high: float, *, exact: bool) -> str:
    if low == high:
        return points(low)
    if exact:
        return f"{points(low)} to {points(high)}"
    return f"{points(low, up=False)} to {points(high, up=True)}"


def padded(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines: the first column to the left, the last as it is, others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:-1], widths[1:-1], strict=True)),
                row[-1],
            ]
        ).rstrip()
        for row in rows
    ]


def listed(heading: str, ids: Sequence[str], width: int, more: str) -> Iterator[Line]:
    """The ids under a heading with their number, a dozen at most; `more` says where all are."""
    if not ids:
        return
    yield Line(f"{heading} ({len(ids)})", BOLD)
    yield from (Line("  " + one_line(name, width - 2), PLAIN) for name in ids[:MAX_LISTED])
    if len(ids) > MAX_LISTED:
        yield Line(f"  (+{len(ids) - MAX_LISTED} more; {more})")
