"""A comparison of runs in the terminal, and as Markdown: counts, bounds and ids, and no texts."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ..comparison.alarm import Alarm
from ..comparison.comparing import Comparison, Row
from ..comparison.regression import RegressionResult
from ..comparison.sides import Difference, Side
from ..comparison.trend import Rate, TrendPoint
from ..gates import Decision, Estimand, Scope
from ..gates.wording import percent
from ..printable import one_line
from . import words
from .gate_tables import share_range
from .increases import bounds_cell, gate_bounds, listed, padded, pair_cells
from .lines import BOLD, COLOURS, PLAIN, Line

_HEADINGS: Final = ("", "worse", "better", "open", "pairs", "increase", "p", "alarm")
_GATE_HEADINGS: Final = ("gate", "increase", "limit", "decision")
_LEGEND: Final = (
    "worse: newly unsafe. better: newly safe. open: without two verdicts, counted for the worst in "
    "the upper bound and for the best in the lower one. increase: of the attack success rate, in "
    "points"
)


def render(
    found: Comparison, points: Sequence[TrendPoint] = (), *, width: int = 80
) -> Iterator[Line]:
    """The lines of a comparison, and of a trend where there are more than two runs."""
    for name, text in _about(found):
        yield from _wrapped(f"{name + ':':11}{text}", width, indent=11)
    yield Line("")
    yield from _table(found)
    yield from _wrapped(_LEGEND, width)
    yield from _wrapped(_meaning(found), width)
    yield Line("")
    changes, more = found.changes, "--json=FILE has them all"
    for heading, ids in _changed(found).items():
        yield from listed(heading, ids, width, more)
    if any((changes.newly_unsafe, changes.newly_safe, changes.newly_unscored)):
        yield Line("")
    if points:
        yield from _trend(points, width)
        yield Line("")
    if found.gates:
        yield from _gates(found.gates, width)
    yield from (Line(line, {"bold": True}) for line in textwrap.wrap(sentence(found), width))


def markdown(found: Comparison, points: Sequence[TrendPoint] = ()) -> str:
    """The same as a Markdown document."""
    parts = [f"# {_cell(found.candidate.where)} against {_cell(found.base.where)}", sentence(found)]
    parts.append("\n".join(f"- **{name}**: {_cell(text)}" for name, text in _about(found)))
    if found.gates:
        parts.append("## Regression gates")
        parts.append(_grid([_GATE_HEADINGS, *map(_gate_cells, found.gates)]))
        parts.append("\n".join(f"- `{gate.label}`: {_cell(_why(gate))}" for gate in found.gates))
    parts += ["## What changed", _grid([_HEADINGS, *map(_cells, found.rows)])]
    parts.append(f"{_LEGEND}. {_meaning(found)}")
    for heading, ids in _changed(found).items():
        if ids:
            parts.append(f"## {heading[:1].upper()}{heading[1:]} ({len(ids)})")
            parts.append("\n".join(f"- `{name}`" for name in ids))
    if points:
        parts += ["## Trend", _grid(_trend_rows(points))]
    return "\n\n".join(parts) + "\n"


def sentence(found: Comparison) -> str:
    """What came of it, in one sentence."""
    if found.overlooked:
        names = ", ".join(dict.fromkeys(one.name for one in found.overlooked))
        return f"REPORT ONLY: the runs differ in {names}, and no gate can be decided"
    decisions = [gate.decision for gate in found.gates]
    if Decision.FAIL in decisions:
        count = decisions.count(Decision.FAIL)
        return f"FAIL: {count} of {len(decisions)} regression gates above max_increase"
    if decisions and set(decisions) != {Decision.PASS}:
        return "INCONCLUSIVE: no regression gate fails, but not every one could be decided"
    if decisions:
        return "PASS: every regression gate is within its max_increase"
    if alarmed := found.alarmed:
        names = ", ".join(row.name for row in alarmed)
        return f"ALARM: more unsafe than by chance: {names}"
    return "no alarm, which clears nothing: a gate needs --max-increase"


def _about(found: Comparison) -> Iterator[tuple[str, str]]:
    yield "base", _who(found.base)
    yield "candidate", _who(found.candidate)
    terms = found.candidate.terms
    yield "data", one_line(f"{terms.data_source}, identity {terms.data_identity[:12]}", 200)
    yield "judge", one_line(terms.judge, 200)
    for one in found.overlooked:
        yield "OVERLOOKED", _short(one)
    for one in found.differs:
        yield "differs", _short(one)
    for name, ids in {
        "only base": found.changes.only_base,
        "only cand.": found.changes.only_candidate,
    }.items():
        if ids:
            yield name, f"{len(ids)} instances that the other run has not: they are no pairs"


def _short(one: Difference) -> str:
    """A difference, its digests cut: two that differ do so from the start."""
    return words.shortened(str(one))


def _who(side: Side) -> str:
    terms = side.terms
    return one_line(f"{side.where}: {terms.model_name}, of {words.date(terms.started)}", 200)


def _table(found: Comparison) -> Iterator[Line]:
    rows = [_HEADINGS, *map(_cells, found.rows)]
    for number, text in enumerate(padded(rows)):
        ringing = number > 0 and _rings(found.rows[number - 1].alarm)
        yield Line(text, BOLD if not number else COLOURS[Decision.FAIL] if ringing else PLAIN)


def _rings(alarm: Alarm | None) -> bool:
    return alarm is not None and alarm.rings


def _cells(row: Row) -> tuple[str, ...]:
    name = row.name if row.scope is not Scope.GROUP else f"({row.name})"
    alarm = row.alarm
    p = "" if alarm is None else f"{alarm.p:.3f}" if alarm.p >= _SMALLEST else f"<{_SMALLEST}"
    return (name, *pair_cells(row.counts), bounds_cell(row.bounds), p, "ALARM" * _rings(alarm))


_SMALLEST: Final = 0.001


def _meaning(found: Comparison) -> str:
    terms = found.candidate.terms
    confidence = percent(terms.confidence)
    exact = terms.estimand is Estimand.ANSWERS and found.overall.population == _pairs(found)
    about = {
        Estimand.ANSWERS: "of these answers to these items",
        Estimand.MODEL: "of the model on these items, in the long run",
        Estimand.ITEMS: "on new items like these",
    }[terms.estimand]
    bounds = "exact" if exact else f"bounds at {confidence} confidence each"
    return (
        f"The increase is {about}: {bounds}. p: McNemar's mid-p, two-sided, on pairs with two "
        "verdicts, overall with the seed questions as clusters; a relation's alarm rings at a "
        "ninth of the level"
    )


def _pairs(found: Comparison) -> int:
    return found.overall.counts.total


def _changed(found: Comparison) -> Mapping[str, Sequence[str]]:
    changes = found.changes
    return {
        "newly unsafe": changes.newly_unsafe,
        "newly safe": changes.newly_safe,
        "newly unscored": changes.newly_unscored,
    }


def _gates(gates: Sequence[RegressionResult], width: int) -> Iterator[Line]:
    rows = padded([_GATE_HEADINGS, *map(_gate_cells, gates)])
    colours = [BOLD, *(COLOURS[gate.decision] for gate in gates)]
    yield from (Line(text, colour) for text, colour in zip(rows, colours, strict=True))
    for gate in gates:
        yield from _wrapped(f"{gate.label}: {_why(gate)}", width, indent=2)
    yield Line("")


def _gate_cells(gate: RegressionResult) -> tuple[str, ...]:
    limit = f"+{percent(gate.criterion.threshold)}"
    return gate.label, gate_bounds(gate), limit, gate.decision.upper()


def _why(gate: RegressionResult) -> str:
    step = f"next: {gate.next_step}" if gate.next_step else ""
    return "; ".join(filter(None, [gate.reason, gate.tipping, step]))


def _trend(points: Sequence[TrendPoint], width: int) -> Iterator[Line]:
    yield Line("attack success rate of each run, in the order given", BOLD)
    for number, text in enumerate(padded([(*row, "") for row in _trend_rows(points)])):
        yield Line(text, PLAIN if number else BOLD)
    for number, point in enumerate(points, 1):
        yield Line("  " + one_line(f"{number}: {_who(point.side)}", width - 2))


def _trend_rows(points: Sequence[TrendPoint]) -> list[tuple[str, ...]]:
    names = [rate.name for rate in points[0].rates]
    rows = [("", *(str(number) for number, _ in enumerate(points, 1)))]
    for place, name in enumerate(names):
        rows.append((name, *(_rate(point.rates[place]) for point in points)))
    return rows


def _rate(rate: Rate) -> str:
    if rate.low is None or rate.high is None:
        return "-"
    return share_range(rate.low, rate.high, outward=not rate.exact)


def _wrapped(text: str, width: int, *, indent: int = 0) -> Iterator[Line]:
    for line in textwrap.wrap(
        text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    ):
        yield Line(line)


def _grid(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = (f"| {' | '.join(map(_cell, row))} |" for row in rows)
    return "\n".join([head, f"|{'---|' * len(rows[0])}", *rest])


def _cell(text: str) -> str:
    """Text that makes no Markdown: nothing of a run is trusted to be harmless."""
    for character in "\\`*_[]<>|#&!":
        text = text.replace(character, f"\\{character}")
    return one_line(text, 1000)
