"""The bounds of an increase, and the alarm: against published figures and other computations."""

from __future__ import annotations

import math
from fractions import Fraction
from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from regression_simulation import (
    MARGINS,
    Questions,
    identical,
    misses,
)
from scipy.optimize import minimize_scalar
from statsmodels.stats.contingency_tables import mcnemar

from pytest_mirsafety.comparison.alarm import alarm, durkalski_p, mcnemar_mid_p
from pytest_mirsafety.comparison.bounds import (
    increase_upper,
    newcombe_lower,
    score,
    tango_upper,
)

TWENTIETH, FORTIETH = Fraction(1, 20), Fraction(1, 40)


@st.composite
def tables(draw: st.DrawFn, most: int = 400) -> tuple[int, int, int]:
    """Newly unsafe, newly safe, and all pairs."""
    pairs = draw(st.integers(2, most))
    unsafe = draw(st.integers(0, pairs - 1))
    return unsafe, draw(st.integers(0, pairs - 1 - unsafe)), pairs


def test_published_figures_are_met() -> None:
    """161 patients before and after a therapy (Cavo and others 2012), as in chapter 8 of
    Fagerland, Lydersen and Laake (2017), at two-sided 95%: the package contingencytables has
    these figures in its tests."""
    twice, only_first, only_second, never = 59, 6, 16, 80
    upper = tango_upper(only_first, only_second, 161, FORTIETH)
    lower = -tango_upper(only_second, only_first, 161, FORTIETH)
    assert (round(lower, 4), round(upper, 4)) == (-0.1240, -0.0054)
    low = newcombe_lower((twice, only_first, only_second, never), FORTIETH)
    high = -newcombe_lower((twice, only_second, only_first, never), FORTIETH)
    assert (round(low, 4), round(high, 4)) == (-0.1186, -0.0046)
    assert round(mcnemar_mid_p(6, 16), 6) == 0.034690


@settings(max_examples=60, deadline=None)
@given(tables())
def test_tango_inverts_the_score_test(table: tuple[int, int, int]) -> None:
    """The statistic is that of the likeliest table with this increase, found by search."""
    unsafe, safe, pairs = table
    bound = tango_upper(unsafe, safe, pairs, TWENTIETH)

    def surprise(rate: float) -> float:
        chances = (rate + bound, rate, 1 - 2 * rate - bound)
        counts = (unsafe, safe, pairs - unsafe - safe)
        if min(chances) < 0:
            return math.inf
        return -sum(n * math.log(max(p, 1e-300)) for n, p in zip(counts, chances, strict=True) if n)

    if bound >= 1 - 1e-9:
        return
    ends = max(0.0, -bound), (1 - bound) / 2
    rate = minimize_scalar(surprise, bounds=ends, method="bounded", options={"xatol": 1e-12}).x
    variance = pairs * (2 * rate + bound - bound * bound)
    found = (unsafe - safe - pairs * bound) / math.sqrt(variance)
    assert found == pytest.approx(-NormalDist().inv_cdf(0.95), rel=1e-3)
    assert score(unsafe, safe, pairs, bound) == pytest.approx(found, rel=1e-3)


@settings(max_examples=150, deadline=None)
@given(tables(), st.sampled_from([TWENTIETH, FORTIETH, Fraction(1, 1000)]))
def test_the_bound_never_falls_for_the_worse(table: tuple[int, int, int], alpha: Fraction) -> None:
    unsafe, safe, pairs = table
    bound = increase_upper(unsafe, safe, pairs, alpha)
    assert (unsafe - safe) / pairs <= bound <= 1
    assert bound >= tango_upper(unsafe, safe, pairs, alpha)
    assert increase_upper(unsafe + 1, safe, pairs, alpha) >= bound
    if safe:
        assert increase_upper(unsafe, safe - 1, pairs, alpha) >= bound
        assert increase_upper(unsafe + 1, safe - 1, pairs, alpha) >= bound


@settings(max_examples=100, deadline=None)
@given(st.tuples(*[st.integers(0, 60)] * 4).filter(any))
def test_newcombe_is_below_the_increase_and_within_reach(table: tuple[int, ...]) -> None:
    low = newcombe_lower(table, TWENTIETH)
    assert -1 - 1e-9 <= low <= (table[1] - table[2]) / sum(table) + 1e-12
    assert low <= increase_upper(table[1], table[2], sum(table), TWENTIETH)


@pytest.mark.parametrize(("unsafe", "safe"), [(0, 0), (1, 0), (5, 2), (2, 5), (7, 7), (40, 12)])
def test_mcnemar_is_statsmodels_less_half_a_probability(unsafe: int, safe: int) -> None:
    exact = mcnemar([[3, unsafe], [safe, 9]], exact=True).pvalue
    fewer, changed = min(unsafe, safe), unsafe + safe
    half = math.comb(changed, fewer) / 2**changed
    expected = 1 - half / 2 if unsafe == safe and changed else exact - half
    assert mcnemar_mid_p(unsafe, safe) == pytest.approx(expected if changed else 1)


def test_clusters_of_one_pair_give_the_plain_test() -> None:
    clusters = [(1, 1)] * 15 + [(-1, 1)] * 4 + [(0, 1)] * 30
    plain = mcnemar([[10, 15], [4, 20]], exact=False, correction=False).pvalue
    assert durkalski_p(clusters) == pytest.approx(plain)


def test_pairs_that_agree_within_a_question_are_less_of_a_sign() -> None:
    apart = alarm(12, 2, TWENTIETH, [(1, 1)] * 12 + [(-1, 1)] * 2)
    together = alarm(12, 2, TWENTIETH, [(6, 6), (6, 6), (-1, 1), (-1, 1)])
    assert apart.rings
    assert not together.rings
    assert together.p > apart.p


def test_fewer_unsafe_ring_no_alarm() -> None:
    assert alarm(0, 30, TWENTIETH).p < 0.001
    assert not alarm(0, 30, TWENTIETH).rings
    assert not alarm(0, 0, TWENTIETH, []).rings


# What docs/method.md says; `python tests/regression_simulation.py` has all of it.


@pytest.mark.parametrize(("unsafe", "safe"), [(2.71, 0), (3.05, 3), (12, 4), (28, 0), (40, 20)])
@pytest.mark.parametrize("pairs", [152, 318])
def test_the_bound_misses_seldom_enough(pairs: int, unsafe: float, safe: float) -> None:
    assert misses(increase_upper, pairs, unsafe / pairs, safe / pairs) <= 0.055


def test_tango_alone_would_miss_too_often() -> None:
    assert misses(tango_upper, 318, 2.71 / 318, 0) > 0.06


def test_identical_models_pass_as_often_as_the_table_says() -> None:
    shares = [round(100 * identical(152, margin, 0.1, 0.5)) for margin in MARGINS]
    assert shares == [18, 58, 98]


def test_the_bound_for_new_items_stands_questions_that_change_as_one() -> None:
    from numpy.random import default_rng

    questions = Questions((4,) * 50 + (6,) * 50, 0.1, 0.05, 1.0)
    assert questions.miss(default_rng(1), 400) <= 0.08  # 5%, and three standard errors
