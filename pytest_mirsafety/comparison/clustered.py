"""The interval of a paired difference where pairs come in clusters, as those of one question."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Final, TypeAlias

from .bounds import newcombe_interval

Table: TypeAlias = tuple[int, int, int, int]
"""Pairs that are unsafe in both, in the second only, in the first only, and in neither."""

PRIOR: Final = 2
"""In clusters. The design effect is estimated from the clusters that show a difference; few of
them say little of it. So as many more are added that agree as much as clusters can."""


def clustered_interval(clusters: Sequence[Table], alpha: Fraction) -> tuple[float, float] | None:
    """The two-sided 1 - alpha interval of the second rate less the first; None of one cluster.

    Newcombe's method 10 (1998) on as many pairs as the clusters are worth, with Student's t for
    the normal. What they are worth is the variance of the difference between clusters, as of a
    ratio (Obuchowski 1998), against that of independent pairs (`design_effect`). In large samples
    it is the interval of that variance; with few clusters, or few that differ, it does not become
    too narrow, and without any difference it has a width.
    """
    some = [table for table in clusters if sum(table)]
    if len(some) < 2:  # noqa: PLR2004 - one cluster has no variance
        return None
    effect = design_effect(some)
    whole = [sum(table[kind] for table in some) / effect for kind in range(4)]
    low, high = newcombe_interval(whole, _student(len(some) - 1, alpha))
    return max(-1.0, low), min(1.0, high)


def design_effect(clusters: Sequence[Table]) -> float:
    """By how much the difference varies more than one of as many independent pairs; 1 or more.

    That of the clusters which show a difference, averaged with `PRIOR` clusters whose pairs
    always agree (Kish 1965), unless they show as much themselves.
    """
    sizes = [sum(table) for table in clusters]
    nets = [second - first for _, second, first, _ in clusters]
    pairs, number = sum(sizes), len(clusters)
    difference = sum(nets) / pairs
    most = sum(size * size for size in sizes) / pairs
    between = sum((net - difference * size) ** 2 for net, size in zip(nets, sizes, strict=True)) * (
        number / (number - 1)
    )
    changed = sum(second + first for _, second, first, _ in clusters)
    within = changed - difference * difference * pairs
    told = sum(net != 0 for net in nets) if within > 0 else 0
    found = max(1.0, between / within) if told else most
    return found if found >= most else (told * found + PRIOR * most) / (told + PRIOR)


def _student(freedom: int, alpha: Fraction) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - float(alpha) / 2)) if freedom else math.inf
