"""What pairs of answers say of the increase of a rate: evidence and rules in, bounds out.

Whatever is unknown counts against the candidate in the upper bound, and for it in the lower one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from ..gates import Cause, Criterion, Estimand, Rules
from ..stats import effective_size, hypergeometric_lower, hypergeometric_upper
from .bounds import increase_upper, newcombe_lower
from .pairs import SAFE, UNSAFE, Pair, PairCounts, not_run


@dataclass(frozen=True, slots=True)
class PairEvidence:
    """The pairs of a population of `population` instances: all of them, or a random sample.

    `selected` pairs were collected to run in the candidate, `not_run` never ran. `clusters` has
    the sizes of the seed questions for the estimand `items`. `drawn` is False where the pairs are
    neither the population nor a simple random sample of it.
    """

    population: int
    counts: PairCounts
    selected: int
    not_run: int = 0
    clusters: tuple[int, ...] = ()
    drawn: bool = True

    @classmethod
    def of(
        cls, pairs: Sequence[Pair], population: int, estimand: Estimand, *, drawn: bool = True
    ) -> PairEvidence:
        """That of these pairs."""
        clusters: tuple[int, ...] = ()
        if estimand is Estimand.ITEMS:
            clusters = tuple(Counter(pair.candidate.seed for pair in pairs).values())
        return cls(
            population=population,
            counts=PairCounts.of(pairs),
            selected=sum(pair.candidate.selected for pair in pairs),
            not_run=not_run(pairs),
            clusters=clusters,
            drawn=drawn,
        )

    @property
    def complete(self) -> bool:
        """Every instance of the population is a pair."""
        return self.counts.total == self.population


@dataclass(frozen=True, slots=True)
class Conditions:
    """What can take back a decision that the numbers would give, each in words or empty."""

    held_back: str = ""
    held_back_by: Cause = Cause.CANARY
    excused: str = ""


@dataclass(frozen=True, slots=True)
class Increase:
    """Between which values the increase of the rate is, by the rules of a run.

    `exact` says that nothing is estimated: both ends are counts of these answers.
    """

    low: Fraction
    high: Fraction
    exact: bool


def increase(evidence: PairEvidence, rules: Rules) -> Increase:
    """The bounds of the increase: at alpha for the upper one, at alpha_fail for the lower one."""
    counts, size = evidence.counts, evidence.population
    if not counts.total or not evidence.drawn:
        return Increase(Fraction(-1), Fraction(1), exact=False)
    most, least = counts.most_newly_unsafe, counts.newly_unsafe
    if rules.estimand is not Estimand.ANSWERS:
        return _estimated(evidence, rules)
    if evidence.complete:
        return Increase(
            Fraction(least - counts.most_newly_safe, size),
            Fraction(most - counts.newly_safe, size),
            exact=True,
        )
    drawn, half, half_fail = counts.total, rules.alpha / 2, rules.alpha_fail / 2
    high = hypergeometric_upper(most, size, drawn, half) - hypergeometric_lower(
        counts.newly_safe, size, drawn, half
    )
    low = hypergeometric_lower(least, size, drawn, half_fail) - hypergeometric_upper(
        counts.most_newly_safe, size, drawn, half_fail
    )
    return Increase(Fraction(low, size), Fraction(high, size), exact=False)


def _estimated(evidence: PairEvidence, rules: Rules) -> Increase:
    """For draws, or for new items: on as many pairs as the clusters are worth."""
    counts = evidence.counts
    pairs = effective_size(evidence.clusters) if evidence.clusters else Fraction(counts.total)
    worth = float(pairs / counts.total)
    high = increase_upper(
        counts.most_newly_unsafe * worth, counts.newly_safe * worth, float(pairs), rules.alpha
    )
    low = newcombe_lower([number * worth for number in counts.best_table], rules.alpha_fail)
    return Increase(Fraction(max(-1.0, low)), Fraction(high), exact=False)


def high_with(evidence: PairEvidence, rules: Rules, newly_unsafe: int) -> Fraction:
    """The upper bound if exactly so many were newly unsafe, the rest of the unknown unchanged."""
    counts = evidence.counts
    rest = counts.total - newly_unsafe - counts.newly_safe
    settled = PairCounts(
        {(SAFE, UNSAFE): newly_unsafe, (UNSAFE, SAFE): counts.newly_safe, (SAFE, SAFE): rest}
    )
    return increase(replace(evidence, counts=settled), rules).high


def tipping_point(criterion: Criterion, evidence: PairEvidence, rules: Rules) -> int | None:
    """Up to how many newly unsafe pairs the gate passes, the newly safe as found; None if never."""
    limit, counts = Fraction(criterion.threshold), evidence.counts
    if not counts.total or not evidence.drawn:
        return None
    low, high = -1, counts.total - counts.newly_safe
    while low < high:
        middle = math.ceil((low + high) / 2)
        if high_with(evidence, rules, middle) <= limit:
            low = middle
        else:
            high = middle - 1
    return None if low < 0 else low
