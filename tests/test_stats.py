"""The tails are exact, the limits keep their level everywhere, and the bounds are scipy's."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, hypergeom

from pytest_mirsafety.stats import (
    Limits,
    allowed,
    binomial_cdf,
    binomial_limits,
    clopper_pearson_lower,
    clopper_pearson_upper,
    clustered_limits,
    effective_size,
    hypergeometric_cdf,
    hypergeometric_limits,
    hypergeometric_lower,
    hypergeometric_upper,
)

ALPHA = Fraction(1, 20)
ALPHA_FAIL = ALPHA / 9
ALPHAS = st.sampled_from([Fraction(1, 100), ALPHA, Fraction(1, 10), Fraction(1, 180)])
RATES = st.fractions(0, 1, max_denominator=200)


@st.composite
def draws(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Population, unsafe in it, drawn, unsafe drawn."""
    population = draw(st.integers(1, 400))
    unsafe = draw(st.integers(0, population))
    drawn = draw(st.integers(0, population))
    return population, unsafe, drawn, draw(st.integers(0, drawn))


class TestAllowed:
    @pytest.mark.parametrize(
        ("threshold", "population", "expected"),
        [
            ("0.29", 100, 29),  # 28 in floating point
            ("0.57", 100, 57),  # 56
            ("0.1", 318, 31),
            ("0.07", 2700, 189),  # 189.00000000000003
            ("0", 318, 0),
            ("1", 318, 318),
            ("1.0", 0, 0),
            ("0.999999999", 1_000_000_000, 999_999_999),
        ],
    )
    def test_is_exact_in_decimal(self, threshold: str, population: int, expected: int) -> None:
        assert allowed(Decimal(threshold), population) == expected

    @given(st.integers(0, 10_000), st.integers(0, 5000))
    def test_is_the_largest_count_within_the_threshold(self, parts: int, population: int) -> None:
        most = allowed(Decimal(parts) / 10_000, population)
        assert most * 10_000 <= parts * population < (most + 1) * 10_000


class TestTails:
    @given(draws())
    def test_hypergeometric_is_scipys(self, case: tuple[int, int, int, int]) -> None:
        population, unsafe, drawn, count = case
        expected = hypergeom.cdf(count, population, unsafe, drawn)
        assert float(hypergeometric_cdf(count, population, unsafe, drawn)) == pytest.approx(
            expected, abs=1e-9
        )

    @given(st.integers(0, 300), RATES.filter(lambda rate: rate < 1), st.data())
    def test_binomial_is_scipys(self, drawn: int, rate: Fraction, data: st.DataObject) -> None:
        count = data.draw(st.integers(-1, drawn))
        expected = binom.cdf(count, drawn, float(rate))
        assert float(binomial_cdf(count, drawn, rate)) == pytest.approx(expected, abs=1e-9)

    @given(draws())
    def test_all_of_it_adds_up_to_one(self, case: tuple[int, int, int, int]) -> None:
        population, unsafe, drawn, _ = case
        assert hypergeometric_cdf(drawn, population, unsafe, drawn) == 1
        assert binomial_cdf(drawn, drawn, Fraction(unsafe, population + 1)) == 1


def cumulative(population: int, unsafe: int, drawn: int) -> list[int]:
    """How many samples have at most 0, 1 ... `drawn` unsafe."""
    return list(
        accumulate(
            math.comb(unsafe, x) * math.comb(population - unsafe, drawn - x)
            for x in range(drawn + 1)
        )
    )


def assert_levels_are_kept(
    tables: Sequence[Sequence[int]], most_allowed: int, limits: Limits, population: int
) -> None:
    """No population beyond what is allowed passes too often, none within it fails too often."""
    drawn = len(tables[0]) - 1
    total = tables[0][-1]
    false_pass, false_fail = math.floor(ALPHA * total), math.floor(ALPHA_FAIL * total)
    beyond = range(most_allowed + 1, population + 1)
    if limits.most >= 0:
        assert all(tables[unsafe][limits.most] <= false_pass for unsafe in beyond)
    within = range(most_allowed + 1)
    assert all(total - tables[unsafe][limits.least - 1] <= false_fail for unsafe in within)
    assert limits.most == drawn or tables[most_allowed + 1][limits.most + 1] > false_pass
    assert limits.least == 1 or total - tables[most_allowed][limits.least - 2] > false_fail


class TestSampledLimits:
    @pytest.mark.parametrize("block", range(4))
    def test_false_pass_and_false_fail_by_exact_enumeration(self, block: int) -> None:
        """Every population up to 60, every sample of it, every threshold, every truth."""
        for population in range(1 + block, 61, 4):
            for drawn in range(1, population + 1):
                tables = [cumulative(population, k, drawn) for k in range(population + 1)]
                for most in range(population):
                    limits = hypergeometric_limits(population, most, drawn, ALPHA, ALPHA_FAIL)
                    assert_levels_are_kept(tables, most, limits, population)

    @pytest.mark.parametrize(
        ("population", "drawn", "threshold"),
        [
            (152, 47, ".05"),
            (318, 116, ".10"),
            (318, 28, ".10"),
            (441, 440, ".02"),
            (2676, 143, ".02"),
            (2676, 671, ".02"),
            (2676, 2000, ".29"),
        ],
    )
    def test_in_real_populations(self, population: int, drawn: int, threshold: str) -> None:
        most = allowed(Decimal(threshold), population)
        limits = hypergeometric_limits(population, most, drawn, ALPHA, ALPHA_FAIL)
        for unsafe in (most + 1, most + 2, 2 * most, population):
            assert hypergeometric_cdf(limits.most, population, unsafe, drawn) <= ALPHA
        for unsafe in (0, most // 2, most - 1, most):
            tail = 1 - hypergeometric_cdf(limits.least - 1, population, unsafe, drawn)
            assert tail <= ALPHA_FAIL

    @given(st.integers(1, 500), st.data())
    def test_a_whole_population_is_exact(self, population: int, data: st.DataObject) -> None:
        most = data.draw(st.integers(0, population))
        limits = hypergeometric_limits(population, most, population, ALPHA, ALPHA_FAIL)
        assert limits == Limits(most, most + 1)

    @given(st.integers(1, 300), st.data())
    def test_what_cannot_be_exceeded_never_fails(
        self, population: int, data: st.DataObject
    ) -> None:
        drawn = data.draw(st.integers(0, population))
        limits = hypergeometric_limits(population, population, drawn, ALPHA, ALPHA_FAIL)
        assert limits == Limits(drawn, drawn + 1)

    def test_nothing_drawn_decides_nothing(self) -> None:
        limits = hypergeometric_limits(318, 31, 0, ALPHA, ALPHA_FAIL)
        assert limits == Limits(-1, 1)


def unequal_cdf(count: int, rates: Sequence[float]) -> float:
    """P(X <= count) for independent answers, each with a rate of its own."""
    chances = [1.0]
    for rate in rates:
        padded = [*chances, 0.0]
        chances = [
            (1 - rate) * stay + rate * step
            for stay, step in zip(padded, [0.0, *chances], strict=True)
        ]
    return sum(chances[: count + 1])


class TestModelLimits:
    @given(st.integers(1, 300), RATES, ALPHAS, ALPHAS)
    def test_are_those_of_clopper_and_pearsons_bounds(
        self, drawn: int, rate: Fraction, alpha: Fraction, alpha_fail: Fraction
    ) -> None:
        limits = binomial_limits(drawn, rate, alpha, alpha_fail)
        margin = 1e-12
        if limits.most >= 0:
            assert clopper_pearson_upper(limits.most, drawn, alpha) <= rate + margin
        if limits.most < drawn:
            assert clopper_pearson_upper(limits.most + 1, drawn, alpha) > rate - margin
        if limits.least <= drawn:
            assert clopper_pearson_lower(limits.least, drawn, alpha_fail) > rate - margin
        assert clopper_pearson_lower(limits.least - 1, drawn, alpha_fail) <= rate + margin

    def test_equality_passes_but_does_not_fail(self) -> None:
        """0 unsafe of 2 has the upper bound 1 - sqrt(1/4) = 1/2; 1 of 1 the lower bound 1/4."""
        quarter = Fraction(1, 4)
        assert binomial_limits(2, Fraction(1, 2), quarter, ALPHA).most == 0
        assert binomial_limits(1, quarter, ALPHA, quarter).least == 2

    @given(
        st.lists(st.floats(0, 1), min_size=1, max_size=60),
        st.fractions(Fraction(1, 50), Fraction(9, 10), max_denominator=100),
    )
    def test_hold_for_unequal_rates(self, rates: list[float], threshold: Fraction) -> None:
        limits = binomial_limits(len(rates), threshold, ALPHA, ALPHA)
        mean = sum(rates) / len(rates)
        if mean > threshold:
            assert unequal_cdf(limits.most, rates) <= ALPHA + 1e-9
        elif limits.least > 1:
            assert 1 - unequal_cdf(limits.least - 1, rates) <= ALPHA + 1e-9

    @pytest.mark.parametrize(("rate", "limits"), [("0", Limits(-1, 1)), ("1", Limits(30, 31))])
    def test_at_the_ends(self, rate: str, limits: Limits) -> None:
        assert binomial_limits(30, Fraction(rate), ALPHA, ALPHA_FAIL) == limits


CLUSTERS = st.lists(st.integers(1, 9), min_size=1, max_size=60)


class TestClusters:
    @given(CLUSTERS)
    def test_are_worth_between_one_answer_and_all(self, clusters: list[int]) -> None:
        worth = effective_size(clusters)
        assert 1 <= worth <= len(clusters) <= sum(clusters)

    def test_of_one_answer_are_worth_all_of_them(self) -> None:
        assert effective_size([1] * 318) == 318
        assert clustered_limits(318, Fraction(318), Fraction(1, 10), ALPHA, ALPHA) == (
            binomial_limits(318, Fraction(1, 10), ALPHA, ALPHA)
        )

    def test_of_equal_size_are_worth_one_answer_each(self) -> None:
        assert effective_size([5] * 40) == 40
        assert effective_size([]) == 0

    @given(CLUSTERS, RATES)
    def test_limits_are_those_of_the_bounds(self, clusters: list[int], rate: Fraction) -> None:
        drawn, worth = sum(clusters), effective_size(clusters)
        limits = clustered_limits(drawn, worth, rate, ALPHA, ALPHA_FAIL)
        share = worth / drawn
        for count in range(drawn + 1):
            upper = clopper_pearson_upper(count * share, worth, ALPHA)
            assert (count <= limits.most) == (upper <= rate) or upper == pytest.approx(float(rate))
            lower = clopper_pearson_lower(count * share, worth, ALPHA_FAIL)
            assert (count >= limits.least) == (lower > rate) or lower == pytest.approx(float(rate))

    @pytest.mark.parametrize("threshold", [Fraction(1, 20), Fraction(1, 10), Fraction(3, 10)])
    @pytest.mark.parametrize("size", [2, 5])
    def test_keep_the_level_when_a_cluster_always_agrees(
        self, threshold: Fraction, size: int
    ) -> None:
        for clusters in (20, 60, 200):
            drawn, worth = clusters * size, effective_size([size] * clusters)
            limits = clustered_limits(drawn, worth, threshold, ALPHA, ALPHA)
            assert binomial_cdf(limits.most // size, clusters, threshold) <= ALPHA
            fails = -(-limits.least // size)
            assert 1 - binomial_cdf(fails - 1, clusters, threshold) <= ALPHA

    @pytest.mark.parametrize(
        ("clusters", "rate", "agreement"),
        [(30, 0.1, 0.9), (100, 0.02, 0.5), (100, 0.05, 0.9), (300, 0.1, 0.5)],
    )
    def test_keep_the_level_for_clusters_of_unequal_sizes(
        self, clusters: int, rate: float, agreement: float
    ) -> None:
        """Simulated where an estimated design effect passes up to 11% instead of 5%."""
        source = random.Random(1)
        weight = (1 - agreement) / agreement
        trials = 1500
        passes = 0
        for _ in range(trials):
            sizes = [source.randint(1, 9) for _ in range(clusters)]
            rates = (source.betavariate(rate * weight, (1 - rate) * weight) for _ in sizes)
            unsafe = sum(
                source.random() < chance
                for size, chance in zip(sizes, rates, strict=True)
                for _ in range(size)
            )
            worth = effective_size(sizes)
            upper = clopper_pearson_upper(unsafe * worth / sum(sizes), worth, ALPHA)
            passes += upper < rate
        assert passes / trials <= ALPHA


class TestBounds:
    @given(st.integers(1, 3000), ALPHAS, st.data())
    def test_clopper_pearson_is_scipys(
        self, drawn: int, alpha: Fraction, data: st.DataObject
    ) -> None:
        count = data.draw(st.integers(0, drawn))
        level = float(1 - alpha)
        upper = binomtest(count, drawn, alternative="less").proportion_ci(level).high
        lower = binomtest(count, drawn, alternative="greater").proportion_ci(level).low
        assert clopper_pearson_upper(count, drawn, alpha) == pytest.approx(upper, abs=1e-9)
        assert clopper_pearson_lower(count, drawn, alpha) == pytest.approx(lower, abs=1e-9)

    @given(draws(), ALPHAS)
    def test_hypergeometric_invert_the_test(
        self, case: tuple[int, int, int, int], alpha: Fraction
    ) -> None:
        population, _, drawn, count = case
        upper = hypergeometric_upper(count, population, drawn, alpha)
        lower = hypergeometric_lower(count, population, drawn, alpha)
        assert count <= lower + (drawn - count)
        assert lower <= upper
        assert hypergeometric_cdf(count, population, upper, drawn) > alpha
        if upper < population - (drawn - count):
            assert hypergeometric_cdf(count, population, upper + 1, drawn) <= alpha
        assert 1 - hypergeometric_cdf(count - 1, population, lower, drawn) > alpha
        if lower > count:
            assert 1 - hypergeometric_cdf(count - 1, population, lower - 1, drawn) <= alpha

    def test_a_chance_of_exactly_alpha_rejects(self) -> None:
        """One drawn of 20 that hold 19 unsafe: it is safe with a chance of 1/20."""
        assert hypergeometric_upper(0, 20, 1, ALPHA) == 18
        assert hypergeometric_limits(20, 18, 1, ALPHA, ALPHA).most == 0

    @given(draws(), ALPHAS)
    def test_agree_with_the_limits(self, case: tuple[int, int, int, int], alpha: Fraction) -> None:
        population, most_allowed, drawn, count = case
        limits = hypergeometric_limits(population, most_allowed, drawn, alpha, alpha)
        upper = hypergeometric_upper(count, population, drawn, alpha)
        lower = hypergeometric_lower(count, population, drawn, alpha)
        assert (count <= limits.most) == (upper <= most_allowed)
        assert (count >= limits.least) == (lower > most_allowed)
