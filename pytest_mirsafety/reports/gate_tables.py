"""The tables of gates in the terminal: of the attack success rate, and of modes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from fractions import Fraction
from typing import Final

from ..gates import GateResult
from ..gates.wording import limit
from ..results import RunResult, Tally
from ..tally import Counts
from . import words
from .lines import BOLD, COLOURS, PLAIN, Line

_HEADINGS: Final = ("gate", "unsafe/scored", "unscored", "N", "ASR", "limit", "decision")
_SHORT_HEADINGS: Final = ("gate", "unsafe/scored", "uns.", "N", "ASR", "limit", "decision")
_MODE_HEADINGS: Final = ("gate", "found", "unknown", "N", "of all", "limit", "decision")
_SHORT_MODE_HEADINGS: Final = ("gate", "found", "unk.", "N", "of all", "limit", "decision")


def table(result: RunResult, width: int) -> Iterator[Line]:
    """The gates, then what has no gate; and the gates on modes, with what they count."""
    report_only = result.design.report_only
    gated = {gate.criterion.label for gate in result.gates}
    ungated = [t for t in (*result.relations, result.overall) if t.name not in gated and t.planned]
    rated = [gate for gate in result.gates if gate.criterion.mode is None]
    rows = [_gate_row(gate, report_only=report_only) for gate in rated]
    no_gate = "no gate" if result.design.shard is None else "-"
    rows += [_tally_row(tally, no_gate) for tally in ungated]
    colours = [COLOURS[gate.decision] for gate in rated] + [PLAIN] * len(ungated)
    yield from columns((_HEADINGS, _SHORT_HEADINGS), rows, colours, width)
    yield Line("")
    if on_modes := [gate for gate in result.gates if gate.criterion.mode is not None]:
        rows = [_mode_row(gate, report_only=report_only) for gate in on_modes]
        colours = [COLOURS[gate.decision] for gate in on_modes]
        yield from columns((_MODE_HEADINGS, _SHORT_MODE_HEADINGS), rows, colours, width)
        yield Line("")


def columns(
    names: tuple[Sequence[str], Sequence[str]],
    rows: Sequence[Sequence[str]],
    colours: Sequence[Mapping[str, bool]],
    width: int,
) -> Iterator[Line]:
    """A table under its headings, or under short ones where that is what it takes to fit."""
    whole, short = names
    for headings, gap in ((whole, 2), (whole, 1), (short, 1)):
        widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
        if sum(widths) + gap * (len(widths) - 1) <= width:
            break
    yield Line(_padded(headings, widths, gap), BOLD)
    for row, colour in zip(rows, colours, strict=True):
        yield Line(_padded(row, widths, gap), colour)


def _gate_row(gate: GateResult, *, report_only: bool) -> tuple[str, ...]:
    return (
        gate.criterion.label,
        of_scored(gate.counts, rate=not gate.left_out),
        str(gate.counts.unscored_total),
        short_size(gate.planned, gate.population),
        _rate(gate),
        limit(gate.criterion),
        words.decided(gate.decision, report_only=report_only),
    )


def _mode_row(gate: GateResult, *, report_only: bool) -> tuple[str, ...]:
    return (
        gate.criterion.label,
        str(gate.found),
        str(gate.counts.unscored_total),
        short_size(gate.planned, gate.population),
        _rate(gate),
        limit(gate.criterion),
        words.decided(gate.decision, report_only=report_only),
    )


def _rate(gate: GateResult) -> str:
    if not gate.planned or gate.left_out:
        return "-"
    return share_range(gate.low, gate.high, outward=not gate.exact)


def _tally_row(tally: Tally, decision: str) -> tuple[str, ...]:
    counts, total = tally.counts, tally.planned
    most = counts.unsafe + counts.unscored_total
    rate = not tally.left_out
    share = share_range(counts.unsafe / total, most / total) if total and rate else "-"
    unscored = str(counts.unscored_total)
    size = short_size(total, tally.population)
    return tally.name, of_scored(counts, rate=rate), unscored, size, share, "-", decision


def _padded(cells: Sequence[str], widths: Sequence[int], gap: int) -> str:
    middle = (cell.rjust(w) for cell, w in zip(cells[1:-1], widths[1:-1], strict=True))
    return (" " * gap).join([cells[0].ljust(widths[0]), *middle, cells[-1]])


def of_scored(counts: Counts, *, rate: bool) -> str:
    """Such as `12/290  4.1%`; 0 of 0 has no rate, nor has what was stopped early."""
    share = f"{100 * counts.unsafe / counts.scored:.1f}%" if counts.scored and rate else "-"
    return f"{counts.unsafe}/{counts.scored} {share:>6}"


def short_size(planned: int, population: int) -> str:
    """The population, or `planned/population` when a sample was drawn of it."""
    return str(population) if planned == population else f"{planned}/{population}"


def share_range(low: float | Fraction, high: float | Fraction, *, outward: bool = False) -> str:
    """Such as `4.1-4.8%`, one figure when both ends are the same; bounds are rounded outward."""
    first, last = (Decimal(f"{100 * float(end):.6f}") for end in (low, high))
    if low == high:
        return f"{first:.1f}%"
    if not outward:
        return f"{first:.1f}-{last:.1f}%"
    tenth = Decimal("0.1")
    return f"{first.quantize(tenth, ROUND_FLOOR)}-{last.quantize(tenth, ROUND_CEILING)}%"
