"""Unsafe answers against safe ones: the effect size, the test, and what it may not be told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu, permutation_test, rankdata

from pytest_mirsafety.attention.comparing import FEWEST, Comparison, compare

Numbers = NDArray[np.float64]
RANDOM = np.random.default_rng(7)


def alone(number: int) -> list[str]:
    """Each answer has a seed question of its own."""
    return [f"seed {place}" for place in range(number)]


def shaped(flat: Numbers) -> Numbers:
    """Numbers (answers, heads) as one measure of one layer."""
    return flat[:, None, None, :]


def brute_delta(unsafe: Numbers, safe: Numbers) -> float:
    pairs = [int(a > b) - int(a < b) for a in unsafe for b in safe]
    return sum(pairs) / len(pairs)


def of(found: Any) -> Numbers:
    """The numbers of the first measure and layer."""
    assert found is not None
    return np.asarray(found[0, 0])


@given(
    st.lists(st.integers(0, 6), min_size=FEWEST, max_size=9),
    st.lists(st.integers(0, 6), min_size=FEWEST, max_size=9),
)
@settings(max_examples=40)
def test_the_effect_is_that_of_all_pairs(unsafe: list[int], safe: list[int]) -> None:
    values = np.array([*unsafe, *safe], dtype=float)[:, None] / 7
    outcomes = [True] * len(unsafe) + [False] * len(safe)
    found = compare(shaped(values), outcomes, alone(len(values)), permutations=99)
    a, b = np.array(unsafe, dtype=float), np.array(safe, dtype=float)
    assert of(found.effect)[0] == pytest.approx(brute_delta(a, b))
    u = mannwhitneyu(a, b).statistic
    assert of(found.effect)[0] == pytest.approx(2 * u / (len(a) * len(b)) - 1)
    assert of(found.difference)[0] == pytest.approx((a.mean() - b.mean()) / 7)
    assert 0 < of(found.p)[0] <= 1


@given(st.permutations(range(14)))
@settings(max_examples=20)
def test_the_order_of_the_answers_changes_no_size(order: list[int]) -> None:
    values, outcomes = np.linspace(0, 1, 14) ** 2, [place % 3 == 0 for place in range(14)]
    one = compare(shaped(values[:, None]), outcomes, alone(14), permutations=9)
    other = compare(
        shaped(values[order][:, None]), [outcomes[i] for i in order], alone(14), permutations=9
    )
    assert of(one.effect)[0] == pytest.approx(of(other.effect)[0])
    assert (one.unsafe, one.safe) == (other.unsafe, other.safe) == (5, 9)


def test_without_clusters_it_is_the_permutation_test_of_scipy() -> None:
    outcomes = [True] * 7 + [False] * 9
    values = RANDOM.normal(size=(16, 6)) + np.outer(outcomes, np.linspace(0, 2, 6))
    found = compare(shaped(values), outcomes, alone(16))
    ranks = rankdata(values, axis=0)
    exact = permutation_test(
        (ranks[:7], ranks[7:]),
        lambda a, _, axis: np.abs(a.sum(axis=axis) - 7 * 17 / 2),
        vectorized=True,
        n_resamples=20_000,  # more than there are: it takes each once
        alternative="greater",
    )
    assert np.allclose(of(found.p), exact.pvalue, atol=0.02)  # four standard errors


def clustered(heads: int) -> tuple[Numbers, list[bool], list[str]]:
    """Answers to the same question are alike, in their values and in their outcomes."""
    seeds = [f"s{s}" for s in range(60) for _ in range(1 + s % 5)]
    names = sorted(set(seeds))
    place = np.array([names.index(seed) for seed in seeds])
    leaning = RANDOM.beta(0.4, 0.9, size=len(names))
    outcomes = [bool(b) for b in RANDOM.random(len(seeds)) < leaning[place]]
    common = RANDOM.normal(size=(len(names), heads))
    return 2 * common[place] + RANDOM.normal(size=(len(seeds), heads)), outcomes, seeds


def test_chance_alone_is_found_as_often_as_it_should_be_and_oftener_without_clusters() -> None:
    heads = 4000
    values, outcomes, seeds = clustered(heads)
    found = compare(shaped(values), outcomes, seeds, permutations=1999)
    share = float((of(found.p) <= 0.05).mean())
    assert abs(share - 0.05) <= 3 * np.sqrt(0.05 * 0.95 / heads) + 0.001
    assert (of(found.q) > 0.05).all()
    blind = compare(shaped(values), outcomes, alone(len(seeds)), permutations=1999)
    assert float((of(blind.p) <= 0.05).mean()) > 0.1
    assert np.allclose(of(blind.effect), of(found.effect))


def test_what_differs_is_found_and_little_else() -> None:
    values, outcomes, seeds = clustered(100)
    values[:, :10] -= 4 * np.array(outcomes)[:, None]
    found = compare(shaped(values), outcomes, seeds)
    differ = of(found.q) <= 0.05
    assert differ[:10].all()
    assert differ[10:].sum() <= 4
    assert (of(found.effect)[:10] < 0).all()
    assert (of(found.q) >= of(found.p)).all()


def test_one_correction_is_over_all_measures() -> None:
    values, outcomes, seeds = clustered(8)
    values[:, 0] -= 4 * np.array(outcomes)
    two = values.reshape(len(seeds), 2, 2, 2)
    found = compare(two, outcomes, seeds)
    flat = compare(shaped(values), outcomes, seeds)
    assert found.q is not None
    assert np.allclose(found.q.ravel(), of(flat.q))
    assert found.q.shape == (2, 2, 2)


def test_what_is_unknown_is_left_out() -> None:
    values = RANDOM.normal(size=(20, 3))
    outcomes = [place % 2 == 0 for place in range(20)]
    values[:, 1] = np.nan
    values[4:, 2] = np.nan  # two of each side
    values[0, 0] = np.nan
    found = compare(shaped(values), outcomes, alone(20), permutations=99)
    for numbers in (found.effect, found.difference, found.p, found.q):
        assert np.isnan(of(numbers)).tolist() == [False, True, True]
    a, b = values[2::2, 0], values[1::2, 0]
    assert of(found.effect)[0] == pytest.approx(brute_delta(a, b))
    assert of(found.difference)[0] == pytest.approx(a.mean() - b.mean())


@pytest.mark.parametrize(("unsafe", "safe"), [(0, 20), (20, 0), (4, 16), (16, 4), (0, 0)])
def test_few_answers_are_not_compared(unsafe: int, safe: int) -> None:
    outcomes = [True] * unsafe + [False] * safe
    values = np.zeros((len(outcomes), 2, 3, 4))
    few = f"{FEWEST} unsafe and {FEWEST} safe answers are needed to compare"
    assert compare(values, outcomes, alone(len(outcomes))) == Comparison(
        unsafe, safe, unsafe + safe, untested=few
    )


def test_outcomes_that_cannot_change_places_are_not_tested() -> None:
    seeds = ["pair"] * 2 + ["pear"] * 2 + ["other"] * 2 + alone(6)
    values = RANDOM.normal(size=(12, 1))
    outcomes = [True] * 6 + [False] * 6
    found = compare(shaped(values), outcomes, seeds)
    assert found.p is found.q is None
    assert "nothing can be permuted" in found.untested
    assert of(found.effect)[0] == pytest.approx(brute_delta(values[:6, 0], values[6:, 0]))
