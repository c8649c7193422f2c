"""Exact tails and confidence bounds: how many unsafe answers pass, how many fail.

A decision compares integers with integers: tails are counted, never summed as floats. Floats
appear where a bound is shown, and in the clustered limits, which have no exact form.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from itertools import takewhile


@dataclass(frozen=True, slots=True)
class Limits:
    """The two counts that decide a gate: it passes up to `most`, and fails from `least` on.

    `most` is -1 when no count passes; `least` is above the number drawn when no count fails.
    """

    most: int
    least: int


def allowed(threshold: Decimal, population: int) -> int:
    """The unsafe answers that a threshold allows: floor(threshold * population), exactly."""
    return math.floor(Fraction(threshold) * population)


def hypergeometric_cdf(count: int, population: int, unsafe: int, drawn: int) -> Fraction:
    """P(X <= count): X unsafe among `drawn` of a population that holds `unsafe` of them."""
    weight = _lower_weight(_hypergeometric_weights(population, unsafe, drawn), count)
    return Fraction(weight, math.comb(population, drawn))


def binomial_cdf(count: int, drawn: int, rate: Fraction) -> Fraction:
    """P(X <= count): X unsafe among `drawn` independent answers, each unsafe at `rate` < 1."""
    weight = _lower_weight(_binomial_weights(drawn, rate), count)
    return Fraction(weight, rate.denominator**drawn)


def hypergeometric_limits(
    population: int, most_allowed: int, drawn: int, alpha: Fraction, alpha_fail: Fraction
) -> Limits:
    """The limits for the rate in a population, from a simple random sample of it.

    A count passes if P(X <= count) <= alpha with one more unsafe than allowed, and fails if
    P(X >= count) <= alpha_fail with exactly the allowed number. When the whole population is
    drawn they are the allowed number and one more.
    """
    total = math.comb(population, drawn)
    most = drawn
    if most_allowed < population:
        weights = _hypergeometric_weights(population, most_allowed + 1, drawn)
        most = _last_within(weights, math.floor(alpha * total), drawn)
    weights = _hypergeometric_weights(population, most_allowed, drawn)
    return Limits(most, _first_within(weights, total, math.floor(alpha_fail * total), drawn))


@lru_cache(maxsize=256)
def binomial_limits(drawn: int, rate: Fraction, alpha: Fraction, alpha_fail: Fraction) -> Limits:
    """The limits for a long-run rate, from independent answers.

    A count passes if its Clopper-Pearson upper bound at alpha is at most `rate`, and fails if its
    lower bound at alpha_fail is above it.
    """
    if rate == 1:
        return Limits(drawn, drawn + 1)
    total = rate.denominator**drawn
    most = _last_within(_binomial_weights(drawn, rate), math.floor(alpha * total), drawn)
    below = math.ceil(alpha_fail * total) - 1
    return Limits(most, _first_within(_binomial_weights(drawn, rate), total, below, drawn))


def clustered_limits(
    drawn: int, effective: Fraction, rate: Fraction, alpha: Fraction, alpha_fail: Fraction
) -> Limits:
    """The limits for a long-run rate over new clusters, from `effective` answers' worth of data.

    Clopper-Pearson's bounds on the effective count and size (Korn & Graubard 1998).
    """
    if effective == drawn:
        return binomial_limits(drawn, rate, alpha, alpha_fail)
    worth, threshold = effective / drawn, float(rate)

    def too_many(count: int) -> bool:
        return clopper_pearson_upper(count * worth, effective, alpha) > threshold

    def fails(count: int) -> bool:
        return clopper_pearson_lower(count * worth, effective, alpha_fail) > threshold

    counts = range(drawn + 1)
    return Limits(
        bisect_left(counts, True, key=too_many) - 1,
        bisect_left(counts, True, key=fails),
    )


def effective_size(clusters: Collection[int]) -> Fraction:
    """How many independent answers these clusters of answers are worth: n / deff.

    deff is taken at its largest, as if the answers of a cluster always agreed: sum(size^2) / n
    (Kish 1965). A deff estimated from the answers would miss its level where clusters are few,
    and could make the bound fall when an answer turns unsafe.
    """
    answers = sum(clusters)
    return Fraction(answers * answers, max(1, sum(size * size for size in clusters)))


def hypergeometric_upper(count: int, population: int, drawn: int, alpha: Fraction) -> int:
    """The largest number of unsafe in the population that `count` of `drawn` does not reject."""
    budget = math.floor(alpha * math.comb(population, drawn))
    low, high = count, population - (drawn - count)
    while low < high:
        middle = (low + high + 1) // 2
        weights = _hypergeometric_weights(population, middle, drawn)
        if _lower_weight(weights, count) > budget:
            low = middle
        else:
            high = middle - 1
    return low


def hypergeometric_lower(count: int, population: int, drawn: int, alpha: Fraction) -> int:
    """The smallest number of unsafe in the population that `count` of `drawn` does not reject."""
    return population - hypergeometric_upper(drawn - count, population, drawn, alpha)


def clopper_pearson_upper(
    count: float | Fraction, drawn: float | Fraction, alpha: Fraction
) -> float:
    """One-sided upper bound of a rate (Clopper & Pearson 1934); effective sizes are welcome."""
    from scipy.special import betaincinv

    if count >= drawn:
        return 1.0
    return float(betaincinv(float(count + 1), float(drawn - count), float(1 - alpha)))


def clopper_pearson_lower(
    count: float | Fraction, drawn: float | Fraction, alpha: Fraction
) -> float:
    """One-sided lower bound of a rate (Clopper & Pearson 1934); effective sizes are welcome."""
    from scipy.special import betaincinv

    if count <= 0:
        return 0.0
    return float(betaincinv(float(count), float(drawn - count + 1), float(alpha)))


def _lower_weight(weights: Iterable[tuple[int, int]], count: int) -> int:
    return sum(weight for _, weight in takewhile(lambda pair: pair[0] <= count, weights))


def _last_within(weights: Iterable[tuple[int, int]], budget: int, drawn: int) -> int:
    """The largest count whose lower tail weighs at most the budget; -1 if there is none."""
    tail = 0
    for count, weight in weights:
        tail += weight
        if tail > budget:
            return count - 1
    return drawn


def _first_within(weights: Iterable[tuple[int, int]], total: int, budget: int, drawn: int) -> int:
    """The smallest count whose upper tail weighs at most the budget; above `drawn` if none."""
    tail = total
    for count, weight in weights:
        tail -= weight
        if tail <= budget:
            return count + 1
    return drawn + 1


def _hypergeometric_weights(population: int, unsafe: int, drawn: int) -> Iterator[tuple[int, int]]:
    """(count, number of samples with that many unsafe), for every count that can occur."""
    first = max(0, drawn - (population - unsafe))
    weight = math.comb(unsafe, first) * math.comb(population - unsafe, drawn - first)
    for count in range(first, min(unsafe, drawn) + 1):
        yield count, weight
        weight = weight * (unsafe - count) * (drawn - count)
        weight //= (count + 1) * (population - unsafe - drawn + count + 1)


def _binomial_weights(drawn: int, rate: Fraction) -> Iterator[tuple[int, int]]:
    """(count, its probability times denominator ** drawn), for every count; rate below 1."""
    hit, miss = rate.numerator, rate.denominator - rate.numerator
    weight = miss**drawn
    for count in range(drawn + 1):
        yield count, weight
        weight = weight * (drawn - count) * hit // ((count + 1) * miss)


def joined(members: Iterable[tuple[Hashable, Hashable]]) -> tuple[int, ...]:
    """The sizes of the groups of members that have either of their two marks in common."""
    above: dict[Hashable, Hashable] = {}

    def top(mark: Hashable) -> Hashable:
        while (other := above.setdefault(mark, mark)) != mark:
            above[mark] = above.get(other, other)
            mark = other
        return mark

    firsts = []
    for one, other in members:
        above[top(one)] = top(other)
        firsts.append(one)
    return tuple(Counter(map(top, firsts)).values())
