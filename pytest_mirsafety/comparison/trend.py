"""The rate of several runs, one after the other: of each relation, and of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from ..gates import Criterion, Estimand, Evidence, Rules, Scope
from ..gates.decisions import Case
from ..records import Instance
from ..tally import Counts
from ..taxonomy import Relation
from .sides import ItemOutcome, Side


@dataclass(frozen=True, slots=True)
class Rate:
    """The counts of one relation in one run, or of all, and between which shares its rate is.

    `low` and `high` are those of a gate on it: the bracket of the unscored, or bounds at the
    confidence of the run. None where the instances are no simple random sample of the relation.
    """

    name: str
    counts: Counts
    low: float | None
    high: float | None
    exact: bool = False


@dataclass(frozen=True, slots=True)
class TrendPoint:
    """A run and its rates, in one order for all runs."""

    side: Side
    rates: tuple[Rate, ...]


def trend(sides: Sequence[Side]) -> tuple[TrendPoint, ...]:
    """The rates of these runs; relations that none of them has are left out."""
    there = {one.relation for side in sides for one in side.items}
    scopes = [Criterion(Scope.RELATION, name, Decimal(0)) for name in Relation if name in there]
    scopes.append(Criterion(Scope.OVERALL, "overall", Decimal(0)))
    return tuple(
        TrendPoint(side, tuple(_rate(criterion, side) for criterion in scopes)) for side in sides
    )


def _rate(criterion: Criterion, side: Side) -> Rate:
    terms = side.terms
    own = [one for one in side.items if criterion.covers(_like(one))]
    if terms.sampled:
        drawn = [one for one in own if criterion.label in one.gates]
        if not drawn:
            return Rate(criterion.label, _counts(own), None, None)
        own = drawn
    counts = _counts(own)
    if not own:
        return Rate(criterion.label, counts, None, None)
    clusters: tuple[int, ...] = ()
    if terms.estimand is Estimand.ITEMS:
        clusters = tuple(Counter(one.seed for one in own).values())
    evidence = Evidence(
        criterion=criterion,
        population=terms.gates[criterion.label] if terms.sampled else len(own),
        selected=len(own),
        counts=counts,
        sampled=terms.sampled,
        clusters=clusters,
    )
    case = Case.of(evidence, Rules(terms.estimand, terms.confidence))
    return Rate(criterion.label, counts, *case.bounds(), case.exact)


def _counts(items: Sequence[ItemOutcome]) -> Counts:
    return Counts.of_readings((one.status, one.reason) for one in items)


def _like(one: ItemOutcome) -> Instance:
    return Instance(one.item, one.relation, one.category, "", "", ())
