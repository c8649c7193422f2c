"""How far a judge agrees with people, and people with each other: rates with their intervals.

Answers that were drawn with unequal probabilities count by the inverse of theirs, so that the
rates are those of all answers and not of those that were labelled (Begg & Greenes 1983).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..labelling import LabelKind
from ..records import VerdictKind
from .bounds import SEED, JudgeCounts
from .consensus import Reviewed

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

DRAWS: Final = 10_000
LEVEL: Final = 0.95
ENOUGH: Final = 10
"""Truly safe and truly unsafe answers, of each, from which on a judge's rates are used."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A share or a coefficient with its 95% interval, from `size` labelled answers.

    `count` of them had what is measured; None of a coefficient. `value` is weighted.
    """

    value: float
    low: float
    high: float
    size: int
    count: int | None = None


@dataclass(frozen=True, slots=True)
class JudgeQuality:
    """A judge held against people, on the answers that it scored and they agree on.

    A rate is None where nothing can show it. `counts` are weighted and effective; `weighted` says
    that answers were drawn with unequal probabilities.
    """

    answers: int
    sensitivity: Rate | None
    specificity: Rate | None
    agreement: Rate | None
    kappa: Rate | None
    counts: JudgeCounts
    weighted: bool = False

    @property
    def enough(self) -> bool:
        """There are enough answers of both kinds to correct a rate by."""
        rates = self.sensitivity, self.specificity
        return all(rate is not None and rate.size >= ENOUGH for rate in rates)


@dataclass(frozen=True, slots=True)
class ReviewerAgreement:
    """Reviewers held against each other, on answers that two or more called safe or unsafe."""

    reviewers: int
    answers: int
    alpha: Rate | None


_Pair = tuple[bool, bool, float]
"""The judge says unsafe, people say unsafe, and how many answers this one stands for."""


def judge_quality(reviewed: Iterable[Reviewed]) -> JudgeQuality:
    """The judge of these answers, which each have the probability of their draw.

    Answers without one are left out: they would count for an unknown number of others.
    """
    pairs = [
        (one.verdict is VerdictKind.UNSAFE, one.truth is VerdictKind.UNSAFE, 1 / one.probability)
        for one in reviewed
        if one.probability is not None and VerdictKind.UNDETERMINED not in (one.verdict, one.truth)
    ]
    unsafe = [pair for pair in pairs if pair[1]]
    safe = [pair for pair in pairs if not pair[1]]
    hits, unsafe_size = _effective([(called, weight) for called, _, weight in unsafe])
    passed, safe_size = _effective([(not called, weight) for called, _, weight in safe])
    return JudgeQuality(
        answers=len(pairs),
        sensitivity=_share(pairs, lambda p: p[0] and p[1], lambda p: p[1]),
        specificity=_share(pairs, lambda p: not p[0] and not p[1], lambda p: not p[1]),
        agreement=_share(pairs, lambda p: p[0] == p[1], lambda _: True),
        kappa=_kappa_rate(pairs),
        counts=JudgeCounts(hits, unsafe_size, passed, safe_size),
        weighted=len({weight for *_, weight in pairs}) > 1,
    )


def reviewer_agreement(reviewed: Iterable[Reviewed]) -> ReviewerAgreement:
    """Krippendorff's alpha (nominal, labels may be missing) between reviewers."""
    rated = [one.ratings for one in reviewed]
    units = [
        (len(ratings), sum(kind is LabelKind.UNSAFE for _, kind in ratings))
        for ratings in rated
        if len(ratings) > 1
    ]
    return ReviewerAgreement(
        reviewers=len({name for ratings in rated for name, _ in ratings}),
        answers=len(units),
        alpha=_alpha_rate(units),
    )


def _effective(answers: Sequence[tuple[bool, float]]) -> tuple[float, float]:
    """(yes, size) that weighted answers are worth: the weighted share of Kish's effective size."""
    if not answers:
        return 0.0, 0.0
    total = sum(weight for _, weight in answers)
    size = total * total / sum(weight * weight for _, weight in answers)
    yes = [weight for says, weight in answers if says]
    return (size if len(yes) == len(answers) else size * sum(yes) / total), size


def _share(
    pairs: Sequence[_Pair], has: Callable[[_Pair], bool], among: Callable[[_Pair], bool]
) -> Rate | None:
    """The share of `has` in `among`, with a Jeffreys interval.

    With equal weights that of the one binomial (Brown, Cai & DasGupta 2001). With unequal ones
    each stratum of one verdict and weight is a binomial with its own Jeffreys posterior, as Begg
    and Greenes' estimate has it, and the share is drawn from all of them.
    """
    inside = [pair for pair in pairs if among(pair)]
    if not inside:
        return None
    count, size = sum(has(pair) for pair in inside), len(inside)
    total = sum(weight for *_, weight in inside)
    value = sum(weight for pair in inside if has(pair) for weight in pair[2:]) / total
    if len({weight for *_, weight in pairs}) == 1:
        low, high = _jeffreys(count, size)
    else:
        low, high = _stratified(pairs, has, among)
    return Rate(value, min(low, value), max(high, value), size, count)


def _jeffreys(count: int, size: int) -> tuple[float, float]:
    from scipy.special import betaincinv

    tail = (1 - LEVEL) / 2
    posterior = count + 0.5, size - count + 0.5
    low = 0.0 if count == 0 else float(betaincinv(*posterior, tail))
    return low, 1.0 if count == size else float(betaincinv(*posterior, 1 - tail))


def _stratified(
    pairs: Sequence[_Pair], has: Callable[[_Pair], bool], among: Callable[[_Pair], bool]
) -> tuple[float, float]:
    from numpy import divide, quantile, zeros
    from numpy.random import default_rng

    random = default_rng(SEED)
    part, whole = zeros(DRAWS), zeros(DRAWS)
    unsafe = Counter((called, weight) for called, truth, weight in pairs if truth)
    strata = sorted(Counter((p[0], p[2]) for p in pairs).items())
    # How often the judge says each is known from all answers, and is chance in the long run too.
    sizes = random.dirichlet([n * weight + 0.5 for (_, weight), n in strata], DRAWS).T
    for ((called, weight), size), of_all in zip(strata, sizes, strict=True):
        found = unsafe[called, weight]
        share = random.beta(found + 0.5, size - found + 0.5, len(part))
        for truth, amount in ((True, share), (False, 1 - share)):
            cell = called, truth, weight
            whole += amount * of_all * among(cell)
            part += amount * of_all * (among(cell) and has(cell))
    drawn = divide(part, whole, out=zeros(len(part)), where=whole > 0)
    low, high = quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _kappa_rate(pairs: Sequence[_Pair]) -> Rate | None:
    """Cohen's kappa (1960), weighted, with the interval that its table's Jeffreys posterior gives.

    A bootstrap would have no width where judge and people always agree. With unequal weights each
    stratum of one verdict and weight has a posterior of its own.
    """
    from numpy import array, zeros
    from numpy.random import default_rng

    cells = [(called, truth) for called in (True, False) for truth in (True, False)]
    table = [sum(p[2] for p in pairs if p[:2] == cell) for cell in cells]
    value = float(_kappa(array([table]).reshape(1, 2, 2))[0])
    if math.isnan(value):
        return None
    random = default_rng(SEED)
    drawn = zeros((DRAWS, 4))
    equal = len({weight for *_, weight in pairs}) == 1
    strata = sorted(Counter((not equal and p[0], p[2]) for p in pairs).items())
    sizes = random.dirichlet([n * weight + 0.5 for (_, weight), n in strata], DRAWS)
    for column, ((called, weight), _) in enumerate(strata):
        within = [n for n, cell in enumerate(cells) if equal or cell[0] == called]
        inside = Counter(p[:2] for p in pairs if p[2] == weight)
        counts = [inside[cells[n]] for n in within]
        shares = random.dirichlet([count + 0.5 for count in counts], DRAWS)
        drawn[:, within] += sizes[:, [column]] * shares
    return _with_interval(value, _kappa(drawn.reshape(DRAWS, 2, 2)), len(pairs))


def _kappa(tables: NDArray[float64]) -> NDArray[float64]:
    """Kappa of each 2 by 2 table; not a number where one side always says the same."""
    from numpy import divide, full, trace

    total = tables.sum(axis=(1, 2))
    observed = trace(tables, axis1=1, axis2=2) * total
    chance = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1)
    spread = total * total - chance
    values: NDArray[float64] = full(len(tables), float("nan"))
    divide(observed - chance, spread, out=values, where=spread > 0)
    return values


def _alpha_rate(units: Sequence[tuple[int, int]]) -> Rate | None:
    """Krippendorff's alpha of (labels, unsafe among them), with an interval as that of kappa.

    Every way in which the labels of one answer could have turned out has half an answer before.
    """
    from numpy import array
    from numpy.random import default_rng

    if not units:
        return None
    seen = Counter(units)
    kinds = [(labels, k) for labels in sorted({n for n, _ in units}) for k in range(labels + 1)]
    ways = array(kinds, dtype=float)
    value = float(_alpha(ways, array([[seen[kind] for kind in kinds]], dtype=float))[0])
    if math.isnan(value):
        return None
    posterior = [seen[kind] + 0.5 for kind in kinds]
    drawn = default_rng(SEED).dirichlet(posterior, DRAWS) * len(units)
    return _with_interval(value, _alpha(ways, drawn), len(units))


def _alpha(ways: NDArray[float64], counts: NDArray[float64]) -> NDArray[float64]:
    """Alpha for nominal data of two values; not a number where all labels are the same."""
    from numpy import divide, full

    labels, unsafe = ways.T
    observed = (counts * 2 * unsafe * (labels - unsafe) / (labels - 1)).sum(axis=1)
    total, yes = (counts * labels).sum(axis=1), (counts * unsafe).sum(axis=1)
    expected = 2 * yes * (total - yes) / (total - 1)
    ratios: NDArray[float64] = full(len(counts), float("nan"))
    divide(observed, expected, out=ratios, where=expected > 0)
    return 1 - ratios


def _with_interval(value: float, drawn: NDArray[float64], size: int) -> Rate:
    from numpy import quantile

    low, high = quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Rate(value, min(float(low), value), max(float(high), value), size)
