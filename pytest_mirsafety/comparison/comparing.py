"""Two runs held against each other: every relation, group and category, and what changed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from ..errors import DataError
from ..gates import Cause, Criterion, Rules, Scope
from ..taxonomy import Category, Group, Relation, Status
from .alarm import Alarm, alarm
from .evidence import Conditions, Increase, PairEvidence, increase
from .pairs import SAFE, UNSAFE, UNSCORED, Pair, PairCounts, paired
from .regression import RegressionResult, conditions_of, covers, decide_regression, pairs_of
from .sides import Difference, Side, compared, incomparable

NOTHING: Final = Decimal(0)
"""A max_increase for rows that have no gate: it decides nothing."""


@dataclass(frozen=True, slots=True)
class Row:
    """The pairs of one relation, group or category, or of all.

    `bounds` is None where the pairs are neither all of its instances nor a random sample of them.
    Groups and categories have no alarm of their own: their pairs are those of the relations.
    """

    scope: Scope
    name: str
    counts: PairCounts
    population: int
    bounds: Increase | None
    alarm: Alarm | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """The ids of what is not as it was, and of what only one of the runs has."""

    newly_unsafe: tuple[str, ...]
    newly_safe: tuple[str, ...]
    newly_unscored: tuple[str, ...]
    only_base: tuple[str, ...]
    only_candidate: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate against its base.

    `differs` is what the runs differ in, as they may; `overlooked` what they differ in and were
    allowed to, so that no gate can pass or fail.
    """

    base: Side
    candidate: Side
    rows: tuple[Row, ...]
    changes: Changes
    gates: tuple[RegressionResult, ...]
    differs: tuple[Difference, ...]
    overlooked: tuple[Difference, ...] = ()

    @property
    def overall(self) -> Row:
        """The row of all pairs."""
        return self.rows[-1]

    @property
    def alarmed(self) -> tuple[Row, ...]:
        """The rows whose alarm rings."""
        return tuple(row for row in self.rows if row.alarm is not None and row.alarm.rings)


def compare(
    base: Side,
    candidate: Side,
    criteria: Sequence[Criterion] = (),
    allow: Collection[str] = (),
) -> Comparison:
    """Hold a run against another one, and decide gates on the increase of its rate.

    `allow` has what the two may differ in though it makes them incomparable: `data`, `judge`.

    Raises:
        DataError: they are not comparable, and why.
    """
    apart = incomparable(base.terms, candidate.terms)
    for difference in apart:
        if difference.of not in allow:
            hint = f"; --allow-different={difference.of} only reports" if difference.of else ""
            raise DataError(
                f"{base.where} and {candidate.where} are not comparable: {difference}{hint}"
            )
    known = base.by_item()
    pairs = paired(candidate.items, base)
    if any(difference.of == "data" for difference in apart):
        pairs = [pair for pair in pairs if pair.base is not None]
    rules = _rules(candidate, len(criteria))
    scopes = [*_SCOPES, Criterion(Scope.OVERALL, "overall", NOTHING)]
    rows = tuple(_row(one, pairs, base, candidate, rules) for one in scopes)
    return Comparison(
        base=base,
        candidate=candidate,
        rows=tuple(row for row in rows if row.counts.total or row.scope is Scope.OVERALL),
        changes=_changes(pairs, known, candidate),
        gates=tuple(_gate(one, pairs, base, candidate, rules, apart) for one in criteria),
        differs=compared(base.terms, candidate.terms),
        overlooked=apart,
    )


def _rules(candidate: Side, gates: int) -> Rules:
    """Those of the candidate; what its judge made of known answers is in the terms."""
    terms = candidate.terms
    return Rules(
        estimand=terms.estimand,
        confidence=terms.confidence,
        gates=max(1, gates),
        pass_allowed=terms.pass_allowed,
        sample_spent=terms.sample_spent,
    )


def _evidence(
    criterion: Criterion, pairs: Sequence[Pair], base: Side, candidate: Side
) -> PairEvidence:
    own, drawn = pairs_of(criterion, pairs, base, sampled=candidate.terms.sampled)
    population = len(own)
    for side in (base, candidate):
        if side.terms.sampled:
            drawn = drawn and criterion.label in side.terms.gates
            population = side.terms.gates.get(criterion.label, population)
    return PairEvidence.of(own, max(population, len(own)), candidate.terms.estimand, drawn=drawn)


def _row(
    criterion: Criterion, pairs: Sequence[Pair], base: Side, candidate: Side, rules: Rules
) -> Row:
    evidence = _evidence(criterion, pairs, base, candidate)
    own = [pair for pair in pairs if covers(criterion, pair)]
    bounded = evidence.drawn and evidence.counts.total
    return Row(
        scope=criterion.scope,
        name=criterion.label,
        counts=evidence.counts if evidence.drawn else PairCounts.of(own),
        population=evidence.population,
        bounds=increase(evidence, rules) if bounded else None,
        alarm=_alarm(criterion, own, rules),
    )


def _alarm(criterion: Criterion, pairs: Sequence[Pair], rules: Rules) -> Alarm | None:
    """On pairs with two verdicts; of all of them with the seed questions as clusters."""
    counts = PairCounts.of(pairs)
    changed = counts.newly_unsafe, counts.newly_safe
    if criterion.scope is Scope.RELATION:
        return alarm(*changed, rules.alpha / len(Relation))
    if criterion.scope is not Scope.OVERALL:
        return None
    net: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for pair in pairs:
        before, after = pair.statuses
        if UNSCORED not in (before, after):
            size[pair.candidate.seed] += 1
            net[pair.candidate.seed] += (after is UNSAFE) - (before is UNSAFE)
    return alarm(*changed, rules.alpha, [(net[seed], size[seed]) for seed in size])


def _changes(pairs: Iterable[Pair], known: Collection[str], candidate: Side) -> Changes:
    found: dict[tuple[Status, Status], list[str]] = defaultdict(list)
    for pair in pairs:
        found[pair.statuses].append(pair.candidate.item)
    there = {one.item for one in candidate.items}
    return Changes(
        newly_unsafe=tuple(found[SAFE, UNSAFE]),
        newly_safe=tuple(found[UNSAFE, SAFE]),
        newly_unscored=tuple(sorted([*found[SAFE, UNSCORED], *found[UNSAFE, UNSCORED]])),
        only_base=tuple(item for item in known if item not in there),
        only_candidate=tuple(one.item for one in candidate.items if one.item not in known),
    )


def _gate(
    criterion: Criterion,
    pairs: Sequence[Pair],
    base: Side,
    candidate: Side,
    rules: Rules,
    apart: Sequence[Difference],
) -> RegressionResult:
    evidence = _evidence(criterion, pairs, base, candidate)
    return decide_regression(criterion, evidence, rules, _conditions(base, candidate, rules, apart))


def _conditions(
    base: Side, candidate: Side, rules: Rules, apart: Sequence[Difference]
) -> Conditions:
    if apart:
        but = f"the runs differ in {apart[0].name}"
        return Conditions(but, Cause.BASELINE, but)
    terms = candidate.terms
    found = conditions_of(rules, base.terms, sampled=terms.sampled, sample_seed=terms.sample_seed)
    wrong = "the judge was wrong about known answers, or was not tried to the end"
    if terms.pass_is_void:
        found = replace(found, held_back=wrong, held_back_by=Cause.CANARY)
    return replace(found, excused=wrong) if terms.fail_is_void else found


_SCOPES: Final = (
    *(Criterion(Scope.RELATION, name, NOTHING) for name in Relation),
    *(Criterion(Scope.GROUP, name, NOTHING) for name in Group),
    *(Criterion(Scope.CATEGORY, name, NOTHING) for name in Category),
)
