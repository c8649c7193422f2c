"""Whether the bounds of a regression gate keep what docs/method.md promises: a table of each.

    python tests/regression_simulation.py

takes some minutes. All but the seed questions is summed exactly, over every table of pairs that
can occur. The test suite runs a few of these settings.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.random import Generator, default_rng
from scipy.stats import binom

from pytest_mirsafety.comparison.bounds import increase_upper, newcombe_lower, tango_upper
from pytest_mirsafety.stats import effective_size

ALPHA = Fraction(1, 20)
SIZES = (152, 318, 2676)
FEW = (35, 50, 100)
MARGINS = (0.02, 0.05, 0.10)
RATES = (0.1, 0.2, 0.3)
CORRELATIONS = (0.0, 0.5, 0.8, 0.95)
MORE_UNSAFE = (0.001, 0.1, 0.3, 0.5, 1, 1.6, 2.3, 2.71, 3.04, 4, 5, 6.3, 8, 12, 18, 23, 28, 40)
NEWLY_SAFE = (0, 0.2, 0.7, 1, 1.5, 2, 2.8, 3.3, 4, 6, 8, 12, 20)
TABLES = (
    *((0.05, 0.05, 0.05, 0.85), (0.05, 0.05, 0.0, 0.9), (0.0, 0.03, 0.0, 0.97)),
    *((0.15, 0.1, 0.05, 0.7), (0.2, 0.02, 0.02, 0.76)),
)
REPETITIONS = 4000
_FAR = 9  # standard deviations, beyond which nothing is summed

Upper = Callable[[float, float, float, Fraction], float]


@lru_cache(maxsize=64)
def passing(upper: Upper, pairs: int, margin: float, most_safe: int) -> tuple[int, ...]:
    """For each number of newly safe pairs, up to how many newly unsafe ones pass; -1 if none."""
    found = []
    last = 0
    for safe in range(most_safe + 1):
        counts = range(last, min(pairs - safe, last + 200) + 1)  # it grows with the newly safe

        def bound(unsafe: int, safe: int = safe) -> float:
            return upper(unsafe, safe, pairs, ALPHA)

        number = last + bisect_right(counts, margin, key=bound) - 1
        found.append(number if bound(0) <= margin else -1)
        last = max(0, number)
    return tuple(found)


def chance_to_pass(
    upper: Upper, pairs: int, margin: float, newly_unsafe: float, newly_safe: float
) -> float:
    """P(upper bound <= margin), where each pair is newly unsafe, or newly safe, at these rates."""
    most = int(pairs * newly_safe + _FAR * (pairs * newly_safe) ** 0.5) + 12
    most = min(pairs, most)
    limits = np.array(passing(upper, pairs, margin, most))
    safe = np.arange(most + 1)
    chance = binom.pmf(safe, pairs, newly_safe)
    below = binom.cdf(limits, pairs - safe, newly_unsafe / (1 - newly_safe))
    return float(np.sum(chance * np.where(limits < 0, 0.0, below)))


def misses(upper: Upper, pairs: int, newly_unsafe: float, newly_safe: float) -> float:
    """How often the bound lies below the increase itself; rates are per pair."""
    return chance_to_pass(upper, pairs, newly_unsafe - newly_safe - 1e-12, newly_unsafe, newly_safe)


def worst_miss(upper: Upper, pairs: int) -> tuple[float, float, float]:
    """The largest of all settings, and how many pairs are newly unsafe and newly safe there."""
    return max(
        (misses(upper, pairs, (safe + more) / pairs, safe / pairs), safe + more, safe)
        for more in MORE_UNSAFE
        for safe in NEWLY_SAFE
        if safe + more < pairs / 3
    )


def lower_misses(pairs: int, table: Sequence[float], repetitions: int) -> float:
    """How often Newcombe's lower bound lies above the increase; `table` has the chances of a pair.

    Unsafe twice, newly unsafe, newly safe, safe twice.
    """
    draws = default_rng(3).multinomial(pairs, table, size=repetitions)
    kinds, often = np.unique(draws, axis=0, return_counts=True)
    above = [newcombe_lower(kind.tolist(), ALPHA) > table[1] - table[2] for kind in kinds]
    return float(np.dot(above, often) / repetitions)


def identical(pairs: int, margin: float, rate: float, correlation: float) -> float:
    """How often a model passes against itself.

    Two answers to an item are draws at the item's own rate, so that they agree with this
    correlation: each pair changes in either direction with rate * (1 - rate) * (1 - correlation).
    """
    changed = rate * (1 - rate) * (1 - correlation)
    return chance_to_pass(increase_upper, pairs, margin, changed, changed)


@dataclass(frozen=True)
class Questions:
    """Seed questions with several instances, whose answers to two models agree within a question.

    `agreement` is the correlation of the changes within one question: 1 if all change together.
    """

    sizes: tuple[int, ...]
    newly_unsafe: float
    newly_safe: float
    agreement: float

    def miss(self, random: Generator, repetitions: int) -> float:
        """How often the bound for new items lies below the increase."""
        pairs, size = sum(self.sizes), effective_size(self.sizes)
        worth = float(size / pairs)
        below = 0
        for _ in range(repetitions):
            unsafe, safe = self._draw(random)
            bound = increase_upper(unsafe * worth, safe * worth, float(size), ALPHA)
            below += bound < self.newly_unsafe - self.newly_safe
        return below / repetitions

    def _draw(self, random: Generator) -> tuple[int, int]:
        rates = np.array(
            [self.newly_unsafe, self.newly_safe, 1 - self.newly_unsafe - self.newly_safe]
        )
        sizes = np.array(self.sizes)
        if self.agreement >= 1:
            kinds = random.choice(3, size=len(sizes), p=rates)
            return int(sizes[kinds == 0].sum()), int(sizes[kinds == 1].sum())
        own = random.dirichlet(rates * (1 / self.agreement - 1), size=len(sizes))
        counts = random.multinomial(sizes, own)
        return int(counts[:, 0].sum()), int(counts[:, 1].sum())


LIKE_THE_BENCHMARK = (4,) * 100 + (5,) * 346 + (3,) * 46 + (6,) * 51 + (2,) * 1
"""544 questions with 2,576 instances: about what MIR-SafetyBench has."""

UNEVEN = (1,) * 60 + (3,) * 30 + (9,) * 10
"""100 questions of very different sizes."""


def questions() -> Iterator[tuple[str, Questions]]:
    for name, sizes in {"like the benchmark": LIKE_THE_BENCHMARK, "100, uneven": UNEVEN}.items():
        for unsafe, safe in ((0.05, 0.0), (0.05, 0.02), (0.10, 0.05), (0.15, 0.05)):
            for agreement in (0.2, 0.6, 1.0):
                yield name, Questions(sizes, unsafe, safe, agreement)


def _row(*cells: object) -> None:
    sys.stdout.write(f"| {' | '.join(map(str, cells))} |\n")
    sys.stdout.flush()


def _head(*names: str) -> None:
    _row(*names)
    _row(*("---" for _ in names))


def main() -> None:
    _head("pairs", "Tango's bound misses", "newly unsafe and safe", "the gate's", "there")
    for pairs in (*FEW, *SIZES):
        cells = []
        for upper in (tango_upper, increase_upper):
            miss, unsafe, safe = worst_miss(upper, pairs)
            cells += [f"{miss:.1%}", f"{unsafe:g} and {safe:g}"]
        _row(pairs, *cells)
    _head("ASR", "correlation", *(f"{n}: +{m:.0%}" for n in SIZES for m in MARGINS))
    for rate in RATES:
        for correlation in CORRELATIONS:
            shares = (identical(n, m, rate, correlation) for n in SIZES for m in MARGINS)
            _row(rate, correlation, *(f"{share:.0%}" for share in shares))
    _head("pairs", "unsafe twice, newly unsafe, newly safe", "Newcombe's bound misses")
    for pairs in SIZES:
        for table in TABLES:
            miss = lower_misses(pairs, table, 5 * REPETITIONS)
            _row(pairs, ", ".join(map(str, table[:3])), f"{miss:.1%}")
    _head("questions", "newly unsafe", "newly safe", "agreement", "misses")
    random = default_rng(1)
    for name, one in questions():
        miss = one.miss(random, REPETITIONS)
        _row(name, one.newly_unsafe, one.newly_safe, one.agreement, f"{miss:.1%}")


if __name__ == "__main__":
    main()
