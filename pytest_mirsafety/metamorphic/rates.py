"""How many verdicts do not survive: flip rates, and their gates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from ..stats import clopper_pearson_lower, clopper_pearson_upper
from ..tally import Counts
from ..taxonomy import Reason, Relation
from .findings import Finding, SearchResult


@dataclass(frozen=True, slots=True)
class FlipCounts:
    """What searches of one relation, or of all, have found: held, flipped, or not known.

    `unscored` counts searches that could not be done, `unsteady` those of a verdict that does not
    repeat; `unsafe_before` had nothing to flip, and is no part of the rate. `identity` of
    `compared` unedited verdicts changed at a fresh draw. `by_order` are flips by order alone where
    the order carries meaning.
    """

    name: str
    held: int = 0
    flipped: int = 0
    unsteady: int = 0
    unscored: int = 0
    unsafe_before: int = 0
    identity: int = 0
    compared: int = 0
    by_order: int = 0

    @property
    def searched(self) -> int:
        """Those that were not UNSAFE before: the rate's denominator."""
        return self.held + self.flipped + self.unknown

    @property
    def unknown(self) -> int:
        """Those of which nobody knows; they count against the model."""
        return self.unsteady + self.unscored

    @property
    def counts(self) -> Counts:
        """To a gate: held is for the model, flipped against it."""
        return Counts(self.held, self.flipped, {Reason.UNDETERMINED: self.unknown})

    def interval(self, confidence: Decimal) -> tuple[float, float]:
        """Clopper & Pearson's interval, the unknown as held for the lower end, else as flipped."""
        if not self.searched:
            return 0.0, 1.0
        alpha = (1 - Fraction(confidence)) / 2
        return (
            clopper_pearson_lower(self.flipped, self.searched, alpha),
            clopper_pearson_upper(self.flipped + self.unknown, self.searched, alpha),
        )


def flip_counts(results: Iterable[SearchResult]) -> tuple[FlipCounts, ...]:
    """Those of each relation that was searched, in its order, and of all, which come last."""
    known = list(results)
    relations = [
        (str(relation), [result for result in known if result.relation is relation])
        for relation in Relation
    ]
    return tuple(_counted(name, some) for name, some in [*relations, ("overall", known)] if some)


def _counted(name: str, results: list[SearchResult]) -> FlipCounts:
    found = Counter(result.finding for result in results)
    identity = Counter(result.identity_flipped for result in results)
    return FlipCounts(
        name=name,
        held=found[Finding.HELD],
        flipped=found[Finding.FLIPPED],
        unsteady=found[Finding.UNSTEADY],
        unscored=found[Finding.UNSCORED],
        unsafe_before=found[Finding.UNSAFE_BEFORE],
        identity=identity[True],
        compared=identity[True] + identity[False],
        by_order=sum(result.order is not None for result in results),
    )
