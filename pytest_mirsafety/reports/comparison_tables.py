"""A comparison in words and tables: the same in the terminal, as Markdown and on a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Final

from ..comparison.alarm import Alarm
from ..comparison.comparing import Comparison, Row
from ..comparison.regression import RegressionResult
from ..comparison.sides import ArmRate, Side
from ..comparison.trend import Rate, TrendPoint
from ..comparison.wording import points
from ..gates import Decision, Estimand, Scope
from ..gates.wording import percent
from ..printable import one_line
from . import words
from .gate_tables import share_range
from .increases import bounds_cell, gate_cells, pair_cells
from .tables import NONE, Table, kind, share

LEGEND: Final = (
    "worse: newly unsafe. better: newly safe. open: without two verdicts, counted for the worst in "
    "the upper bound and for the best in the lower one. increase: of the attack success rate, in "
    "points."
)
_SMALLEST: Final = 0.001


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


def ruling(found: Comparison) -> str:
    """The sentence's first word as `pass`, `fail`, `inconclusive`, or nothing."""
    first = sentence(found).partition(":")[0]
    return {"PASS": "pass", "FAIL": "fail", "INCONCLUSIVE": "inconclusive", "ALARM": "fail"}.get(
        first, ""
    )


def about(found: Comparison) -> Iterator[tuple[str, str]]:
    """The two runs, and what they differ in."""
    yield "base", who(found.base)
    yield "candidate", who(found.candidate)
    terms = found.candidate.terms
    yield "data", one_line(f"{terms.data_source}, identity {terms.data_identity[:12]}", 200)
    yield "judge", words.shortened(terms.judge)
    if terms.run and terms.run == found.base.terms.run:
        yield "SAME RUN", "base and candidate are one run, so that nothing can have changed"
    for one in found.overlooked:
        yield "OVERLOOKED", words.shortened(str(one))
    for one in found.differs:
        yield "differs", words.shortened(str(one))
    only = {"only base": found.changes.only_base, "only cand.": found.changes.only_candidate}
    for name, ids in only.items():
        if ids:
            yield name, f"{len(ids)} instances that the other run has not"


def who(side: Side) -> str:
    """A run by its place, its model and its time."""
    terms = side.terms
    return one_line(f"{side.where}: {terms.model_name}, of {words.date(terms.started)}", 200)


def changed(found: Comparison) -> Mapping[str, Sequence[str]]:
    """The ids of what is not as it was, by a heading."""
    changes = found.changes
    return {
        "newly unsafe": changes.newly_unsafe,
        "newly safe": changes.newly_safe,
        "newly unscored": changes.newly_unscored,
    }


def pairs(found: Comparison) -> Table:
    """Every relation, group and category, and all."""
    return Table(
        ("instances", "worse", "better", "open", "pairs", "increase", "p", "alarm"),
        tuple(map(_cells, found.rows)),
        kinds=tuple("fail" if rings(row.alarm) else "" for row in found.rows),
        words=frozenset({7}),
    )


def arms(found: Comparison) -> Table | None:
    """What came of each arm in both runs; None where neither has another than `multi`."""
    base = {one.name: one for one in found.base.terms.arms}
    candidate = {one.name: one for one in found.candidate.terms.arms}
    names = dict.fromkeys([*base, *candidate])
    if not names:
        return None
    apart = [
        f"{name}: is not asked the same in both runs"
        for name in names
        if name in base and name in candidate and base[name].identity != candidate[name].identity
    ]
    rows = [(name, *_arm_cells(base.get(name), candidate.get(name))) for name in names]
    legend = "unsafe of scored, of twins not answered; change: of the rate, in points"
    return Table(("arm", "base", "candidate", "change"), tuple(rows), (legend, *apart))


def _arm_cells(base: ArmRate | None, candidate: ArmRate | None) -> tuple[str, str, str]:
    change = NONE
    if base is not None and candidate is not None and base.scored and candidate.scored:
        rates = Fraction(candidate.unsafe, candidate.scored) - Fraction(base.unsafe, base.scored)
        change = points(rates)
    return _arm_rate(base), _arm_rate(candidate), change


def _arm_rate(one: ArmRate | None) -> str:
    if one is None:
        return NONE
    rate = share(Fraction(one.unsafe, one.scored)) if one.scored else NONE
    unscored = one.planned - one.scored
    return f"{rate} ({one.unsafe:,}/{one.scored:,})" + (f", {unscored:,} open" if unscored else "")


def rings(alarm: Alarm | None) -> bool:
    """There is an alarm, and it rings."""
    return alarm is not None and alarm.rings


def _cells(row: Row) -> tuple[str, ...]:
    name = row.name if row.scope is not Scope.GROUP else f"({row.name})"
    alarm = row.alarm
    p = "" if alarm is None else f"{alarm.p:.3f}" if alarm.p >= _SMALLEST else f"<{_SMALLEST}"
    return (name, *pair_cells(row.counts), bounds_cell(row.bounds), p, "ALARM" * rings(alarm))


def meaning(found: Comparison) -> str:
    """What the bounds, p and the alarm are of."""
    terms, overall = found.candidate.terms, found.overall
    exact = terms.estimand is Estimand.ANSWERS and overall.population == overall.counts.total
    of = words.MEANINGS[terms.estimand]
    bounds = "exact" if exact else f"one-sided bounds at {percent(terms.confidence)} each"
    return (
        f"The increase is {of}: {bounds}. p: McNemar's mid-p, two-sided, on pairs with two "
        "verdicts, overall with the seed questions as clusters. A relation's alarm rings at a "
        "ninth of the level; without an alarm nothing is cleared."
    )


def gates(found: Comparison) -> Table:
    """The regression gates."""
    return Table(
        ("gate", "decision", "increase", "limit"),
        tuple(_gate(gate) for gate in found.gates),
        kinds=tuple(kind(gate.decision) for gate in found.gates),
        words=frozenset({1}),
    )


def _gate(gate: RegressionResult) -> tuple[str, ...]:
    *_, bounds, limit, decision = gate_cells(gate)
    return gate.label, decision, bounds, limit


def why(gate: RegressionResult) -> str:
    """A gate's reason, what would tip it, and the next step."""
    step = f"next: {gate.next_step}" if gate.next_step else ""
    return "; ".join(filter(None, [gate.reason, gate.tipping, step]))


def trend(points: Sequence[TrendPoint]) -> Table:
    """The rate of each run by relation, a column each, by its number."""
    names = [rate.name for rate in points[0].rates]
    return Table(
        ("relation", *(str(number) for number, _ in enumerate(points, 1))),
        tuple(
            (name, *(_rate(point.rates[place]) for point in points))
            for place, name in enumerate(names)
        ),
        tuple(f"{number}: {who(point.side)}" for number, point in enumerate(points, 1)),
    )


def _rate(rate: Rate) -> str:
    if rate.low is None or rate.high is None:
        return NONE
    return share_range(rate.low, rate.high, outward=not rate.exact)
