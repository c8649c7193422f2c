"""The attack success rate corrected for a judge's errors: bounds for gates, intervals for reports.

Rogan and Gladen (1978): the judge calls a share A unsafe, so the rate is
(A + Sp - 1) / (Se + Sp - 1). What is not known of A, Se and Sp is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from numpy import float64
    from numpy.random import Generator
    from numpy.typing import NDArray

DRAWS: Final = 100_000
SEED: Final = 20_260_114
"""Fixed, so that nobody can draw until it fits."""


@dataclass(frozen=True, slots=True)
class JudgeCounts:
    """What labels say of a judge; weighted labels give effective counts.

    Of `unsafe` truly unsafe answers it called `hits` unsafe, of `safe` truly safe ones it called
    `passed` safe.

    Raises:
        ValueError: more hits than answers, or a negative number.
    """

    hits: float
    unsafe: float
    passed: float
    safe: float

    def __post_init__(self) -> None:
        if not (0 <= self.hits <= self.unsafe and 0 <= self.passed <= self.safe):
            raise ValueError(f"{self}: a judge is right at most as often as it was asked")


def melded_upper(
    count: float, size: float, judge: JudgeCounts, alpha: Fraction, *, draws: int = DRAWS
) -> float:
    """Upper bound of the corrected rate, `count` of `size` called unsafe, at most.

    The (1 - alpha) quantile of the rate where A, Se and Sp are drawn from the confidence
    distributions of their Clopper-Pearson bounds (Fay, Proschan & Brittain 2015; Bayer, Fay &
    Graubard 2022). A draw of a judge no better than a coin, Se + Sp <= 1, counts as 1.
    """
    random = _random()
    return _quantile(
        _corrected(
            _beta(random, count + 1, size - count, draws),
            _beta(random, judge.hits, judge.unsafe - judge.hits + 1, draws),
            _beta(random, judge.passed + 1, judge.safe - judge.passed, draws),
            useless=1.0,
        ),
        1 - alpha,
        upper=True,
    )


def melded_lower(
    count: float, size: float, judge: JudgeCounts, alpha: Fraction, *, draws: int = DRAWS
) -> float:
    """Lower bound of the corrected rate, `count` of `size` called unsafe, at least.

    As `melded_upper`, from the other side; a draw with Se + Sp <= 1 counts as 0.
    """
    random = _random()
    return _quantile(
        _corrected(
            _beta(random, count, size - count + 1, draws),
            _beta(random, judge.hits + 1, judge.unsafe - judge.hits, draws),
            _beta(random, judge.passed, judge.safe - judge.passed + 1, draws),
            useless=0.0,
        ),
        alpha,
        upper=False,
    )


def corrected_interval(
    counts: tuple[float, float],
    size: float,
    judge: JudgeCounts,
    alpha: Fraction,
    *,
    draws: int = DRAWS,
) -> tuple[float, float]:
    """Two-sided interval of the corrected rate for reports, never for gates.

    A, Se and Sp are drawn from their Jeffreys posteriors. `counts` has the fewest and the most
    that may be called unsafe: the unscored are bracketed, and make the interval wider.
    """
    random = _random()
    sensitivity = _beta(random, judge.hits + 0.5, judge.unsafe - judge.hits + 0.5, draws)
    specificity = _beta(random, judge.passed + 0.5, judge.safe - judge.passed + 0.5, draws)
    low, high = (_beta(random, x + 0.5, size - x + 0.5, draws) for x in counts)
    return (
        _quantile(_corrected(low, sensitivity, specificity, useless=0.0), alpha / 2, upper=False),
        _quantile(
            _corrected(high, sensitivity, specificity, useless=1.0), 1 - alpha / 2, upper=True
        ),
    )


def corrected_rate(share: float, judge: JudgeCounts) -> float | None:
    """The corrected rate itself, in [0, 1]; None where the labels show a judge that is useless."""
    if not judge.unsafe or not judge.safe:
        return None
    specificity = judge.passed / judge.safe
    worth = judge.hits / judge.unsafe + specificity - 1
    return min(1.0, max(0.0, (share + specificity - 1) / worth)) if worth > 0 else None


def _random() -> Generator:
    from numpy.random import default_rng

    return default_rng(SEED)


def _beta(random: Generator, a: float, b: float, draws: int) -> NDArray[float64]:
    """Draws of Beta(a, b), which is all at 0 or at 1 where a or b is 0."""
    from numpy import full

    if a <= 0 or b <= 0:
        return full(draws, 0.0 if a <= 0 else 1.0)
    return random.beta(a, b, draws)


def _corrected(
    called: NDArray[float64],
    sensitivity: NDArray[float64],
    specificity: NDArray[float64],
    *,
    useless: float,
) -> NDArray[float64]:
    from numpy import clip, where

    worth = sensitivity + specificity - 1
    rate = (called + specificity - 1) / where(worth > 0, worth, 1)
    return where(worth > 0, clip(rate, 0, 1), useless)


def _quantile(drawn: NDArray[float64], level: Fraction, *, upper: bool) -> float:
    """The quantile as a drawn value, the more careful one of two."""
    from numpy import quantile

    return float(quantile(drawn, float(level), method="higher" if upper else "lower"))
