"""Whether two runs differ by more than chance: it may raise an alarm, and never clears a model."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Alarm:
    """The two-sided p of no change, and whether it is an increase beyond `level`.

    `rings` is False also where too little was seen: that is no sign of safety.
    """

    p: float
    level: Fraction
    rings: bool


def alarm(
    newly_unsafe: int,
    newly_safe: int,
    level: Fraction,
    clusters: Iterable[tuple[int, int]] | None = None,
) -> Alarm:
    """McNemar's mid-p; with `clusters` the larger of it and of Durkalski's clustered test.

    Each cluster has its net number of newly unsafe pairs, and its size.
    """
    p = mcnemar_mid_p(newly_unsafe, newly_safe)
    if clusters is not None:
        p = max(p, durkalski_p(clusters))
    return Alarm(p, level, newly_unsafe > newly_safe and p <= level)


def mcnemar_mid_p(newly_unsafe: int, newly_safe: int) -> float:
    """McNemar's mid-p, two-sided (Fagerland, Lydersen and Laake 2013); 1 without a change."""
    changed, fewer = newly_unsafe + newly_safe, min(newly_unsafe, newly_safe)
    if newly_unsafe == newly_safe:
        return (
            1.0 if not changed else float(1 - Fraction(math.comb(changed, fewer), 2**changed) / 2)
        )
    tail = sum(math.comb(changed, k) for k in range(fewer + 1))
    return float(Fraction(2 * tail - math.comb(changed, fewer), 2**changed))


def durkalski_p(clusters: Iterable[tuple[int, int]]) -> float:
    """The two-sided p of McNemar's test for clustered pairs (Durkalski and others 2003).

    The sum of each cluster's net share of newly unsafe pairs, against the sum of their squares:
    clusters are independent, and the pairs in one may agree as they like. 1 without a net change.
    """
    shares = [net / size for net, size in clusters if size]
    squares = sum(share * share for share in shares)
    if not squares:
        return 1.0
    return math.erfc(abs(sum(shares)) / math.sqrt(2 * squares))
