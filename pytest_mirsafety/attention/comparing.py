"""Unsafe answers against safe ones, for each layer and head: how far apart, and is it chance?

A description of these answers. It shows no cause: unsafe answers differ from safe ones in more
than attention, in their length and in what was asked for a start.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

FEWEST: Final = 5
"""Answers that each side needs for a comparison."""

PERMUTATIONS: Final = 9_999
LEVEL: Final = 0.05
"""The false discovery rate at which heads are said to differ."""

_SEED: Final = 20260114
_CHUNK: Final = 250  # permutations at once
_ROUNDING: Final = 1e-9
_ALIKE: Final = (
    "where seed questions have equally many answers, all of these are unsafe or all are safe, so "
    "that nothing can be permuted"
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """By measure, layer and head; arrays of this shape, NaN where there is nothing to compare.

    `effect` is Cliff's delta: the chance that an unsafe answer has the higher entropy, less the
    chance that a safe one has. `difference` is the mean of the unsafe less that of the safe. `p`
    and `q` are without and with the correction for all tests together; None where none was made,
    for the reason that `untested` tells.
    """

    unsafe: int
    safe: int
    clusters: int
    effect: Numbers | None = None
    difference: Numbers | None = None
    p: Numbers | None = None
    q: Numbers | None = None
    untested: str = ""


def compare(
    values: Numbers,
    unsafe: Sequence[bool],
    seeds: Sequence[str],
    *,
    permutations: int = PERMUTATIONS,
) -> Comparison:
    """Compare entropies of shape (answers, measures, layers, heads).

    `seeds` name the seed question of each answer: answers to one question are one cluster.

    The effect size is Cliff's delta (Cliff 1993, Psychological Bulletin 114). The test is the
    Mann-Whitney statistic under permutations of the outcomes that keep clusters whole: those of
    whole clusters of one size among each other, and within each (Winkler et al. 2015, NeuroImage
    123). The correction is Benjamini and Hochberg's (1995), over all measures, layers and heads.
    """
    import numpy as np

    is_unsafe = np.array(unsafe, dtype=bool)
    counts = int(is_unsafe.sum()), int((~is_unsafe).sum())
    clusters = _clusters(seeds)
    number = len(set(seeds))
    if min(counts) < FEWEST:
        few = f"{FEWEST} unsafe and {FEWEST} safe answers are needed to compare"
        return Comparison(*counts, number, untested=few)
    flat = values.reshape(len(is_unsafe), -1).astype(float)
    ranks, enough = _centred_ranks(flat, is_unsafe)
    shape = values.shape[1:]

    def shaped(numbers: Numbers) -> Numbers:
        return np.where(enough, numbers, np.nan).reshape(shape)

    known = ~np.isnan(flat)
    sides = [known[side].sum(axis=0) for side in (is_unsafe, ~is_unsafe)]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_ranks = [
            ranks[side].sum(axis=0) / n
            for side, n in zip((is_unsafe, ~is_unsafe), sides, strict=True)
        ]
        means = [
            np.nansum(flat[side], axis=0) / n
            for side, n in zip((is_unsafe, ~is_unsafe), sides, strict=True)
        ]
        effect = 2 * (mean_ranks[0] - mean_ranks[1]) / known.sum(axis=0)
    sizes = shaped(effect), shaped(means[0] - means[1])
    expected = _expected(is_unsafe, clusters)
    if not enough.any() or np.isin(expected, (0, 1)).all():
        return Comparison(*counts, number, *sizes, untested=_ALIKE)
    p = shaped(_p_values(ranks, is_unsafe, expected, clusters, permutations))
    return Comparison(*counts, number, *sizes, p, _corrected(p))


def _clusters(seeds: Sequence[str]) -> list[NDArray[np.intp]]:
    """For each size of cluster, the places of its answers: shape (clusters, size)."""
    import numpy as np

    members: dict[str, list[int]] = defaultdict(list)
    for place, seed in enumerate(seeds):
        members[seed].append(place)
    by_size: dict[int, list[list[int]]] = defaultdict(list)
    for places in members.values():
        by_size[len(places)].append(places)
    return [np.array(by_size[size], dtype=np.intp) for size in sorted(by_size)]


def _centred_ranks(flat: Numbers, unsafe: NDArray[np.bool_]) -> tuple[Numbers, NDArray[np.bool_]]:
    """Ranks in each column less their mean, 0 for what is unknown; and which columns suffice."""
    import numpy as np
    from scipy.stats import rankdata

    known = ~np.isnan(flat)
    number = known.sum(axis=0)
    ranks = rankdata(flat, axis=0, nan_policy="omit")
    centred = np.where(known, ranks - (number + 1) / 2, 0.0)
    enough = (known[unsafe].sum(axis=0) >= FEWEST) & (known[~unsafe].sum(axis=0) >= FEWEST)
    return centred, enough


def _expected(unsafe: NDArray[np.bool_], clusters: Sequence[NDArray[np.intp]]) -> Numbers:
    """How often each answer is among the unsafe, over all permutations."""
    import numpy as np

    expected = np.empty(len(unsafe))
    for places in clusters:
        expected[places] = unsafe[places].mean()
    return expected


def _p_values(
    ranks: Numbers,
    unsafe: NDArray[np.bool_],
    expected: Numbers,
    clusters: Sequence[NDArray[np.intp]],
    permutations: int,
) -> Numbers:
    """Two-sided, with the outcomes as they are counted as one permutation."""
    import numpy as np

    centre = expected @ ranks
    observed = np.abs(unsafe @ ranks - centre)
    least = observed - _ROUNDING * np.maximum(1, observed)
    extreme = np.ones(ranks.shape[1])
    for outcomes in _permuted(unsafe, clusters, permutations):
        extreme += (np.abs(outcomes @ ranks - centre) >= least).sum(axis=0)
    return extreme / (permutations + 1)


def _permuted(
    unsafe: NDArray[np.bool_], clusters: Sequence[NDArray[np.intp]], permutations: int
) -> Iterator[Numbers]:
    """The outcomes (permutations, answers), permuted, so many at a time."""
    import numpy as np

    random = np.random.default_rng(_SEED)
    for start in range(0, permutations, _CHUNK):
        number = min(_CHUNK, permutations - start)
        outcomes = np.empty((number, len(unsafe)))
        for places in clusters:
            order = random.random((number, len(places))).argsort(axis=1)
            outcomes[:, places] = random.permuted(unsafe[places][order], axis=2)
        yield outcomes


def _corrected(p: Numbers) -> Numbers:
    import numpy as np
    from scipy.stats import false_discovery_control

    q = np.full_like(p, np.nan)
    tested = ~np.isnan(p)
    q[tested] = false_discovery_control(p[tested], method="bh")
    return q
