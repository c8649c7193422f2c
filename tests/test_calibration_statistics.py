"""The judge against people: values as scikit-learn, statsmodels and krippendorff have them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import krippendorff
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judge_error_simulation import (
    Labelling,
    Setting,
    bound_misses,
    interval_misses,
    rate_misses,
)
from sklearn.metrics import cohen_kappa_score, confusion_matrix
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import proportion_confint

from pytest_mirsafety.calibration.agreement import judge_quality, reviewer_agreement
from pytest_mirsafety.calibration.bounds import (
    JudgeCounts,
    corrected_interval,
    corrected_rate,
    melded_lower,
    melded_upper,
)
from pytest_mirsafety.calibration.consensus import Reviewed
from pytest_mirsafety.labelling import LabelKind
from pytest_mirsafety.records import VerdictKind
from pytest_mirsafety.stats import clopper_pearson_lower, clopper_pearson_upper

ALPHA = Fraction(1, 20)
SAFE, UNSAFE = VerdictKind.SAFE, VerdictKind.UNSAFE
QUICK = 4000


def reviewed(
    verdict: VerdictKind,
    truth: VerdictKind,
    probability: float | None = 0.5,
    ratings: Sequence[tuple[str, LabelKind]] = (),
) -> Reviewed:
    doubted = truth is UNSAFE
    return Reviewed("a", "j", verdict, truth, doubted, probability, tuple(ratings))


def table(hits: int, missed: int, alarms: int, passed: int) -> list[Reviewed]:
    return [
        *[reviewed(UNSAFE, UNSAFE)] * hits,
        *[reviewed(SAFE, UNSAFE)] * missed,
        *[reviewed(UNSAFE, SAFE)] * alarms,
        *[reviewed(SAFE, SAFE)] * passed,
    ]


answers = st.lists(
    st.builds(
        reviewed,
        st.sampled_from([SAFE, UNSAFE]),
        st.sampled_from([SAFE, UNSAFE]),
        st.sampled_from([0.1, 0.5, 1.0]),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=40)
@given(answers)
def test_weighted_rates_are_those_of_scikit_learn(given_answers: list[Reviewed]) -> None:
    quality = judge_quality(given_answers)
    truth = [one.truth is UNSAFE for one in given_answers]
    called = [one.verdict is UNSAFE for one in given_answers]
    weights = [1 / (one.probability or math.nan) for one in given_answers]
    matrix = confusion_matrix(truth, called, labels=[False, True], sample_weight=weights)
    (passed, alarms), (missed, hits) = matrix
    for rate, right, wrong in (
        (quality.sensitivity, hits, missed),
        (quality.specificity, passed, alarms),
        (quality.agreement, hits + passed, missed + alarms),
    ):
        assert (rate is None) == (right + wrong == 0)
        if rate is not None:
            assert rate.value == pytest.approx(right / (right + wrong))
            assert 0 <= rate.low <= rate.value <= rate.high <= 1
    if quality.kappa is None:
        assert len(set(truth)) == len(set(called)) == 1
        assert truth[0] == called[0]
    else:
        oracle = cohen_kappa_score(truth, called, sample_weight=weights)
        assert quality.kappa.value == pytest.approx(oracle)
        assert quality.kappa.low <= quality.kappa.value <= quality.kappa.high


@given(st.integers(0, 60), st.integers(0, 60))
def test_intervals_of_a_simple_random_sample_are_jeffreys(hits: int, missed: int) -> None:
    rate = judge_quality(table(hits, missed, 1, 1)).sensitivity
    if hits + missed == 0:
        assert rate is None
        return
    assert rate is not None
    low, high = proportion_confint(hits, hits + missed, method="jeffreys")
    # At the ends the interval reaches 0 and 1, as Brown, Cai and DasGupta have it.
    assert rate.low == (0 if hits == 0 else pytest.approx(low))
    assert rate.high == (1 if missed == 0 else pytest.approx(high))
    assert (rate.count, rate.size) == (hits, hits + missed)


@pytest.mark.parametrize("counts", [(60, 10, 12, 218), (140, 20, 10, 130)])
def test_kappa_has_nearly_the_analytic_interval(counts: tuple[int, int, int, int]) -> None:
    kappa = judge_quality(table(*counts)).kappa
    hits, missed, alarms, passed = counts
    oracle = cohens_kappa([[hits, alarms], [missed, passed]])
    assert kappa is not None
    assert kappa.value == pytest.approx(oracle.kappa)
    assert kappa.low == pytest.approx(oracle.kappa_low, abs=0.015)
    assert kappa.high == pytest.approx(oracle.kappa_upp, abs=0.015)


def test_perfect_agreement_is_not_taken_for_certainty() -> None:
    quality = judge_quality(table(15, 0, 0, 15))
    assert quality.kappa is not None
    assert quality.kappa.value == quality.kappa.high == 1
    assert 0.7 < quality.kappa.low < 0.95


def test_answers_without_probability_or_agreement_are_not_held_against_the_judge() -> None:
    plain = table(20, 2, 3, 30)
    more = [
        *plain,
        *[reviewed(UNSAFE, SAFE, None)] * 20,
        *[reviewed(UNSAFE, VerdictKind.UNDETERMINED)] * 20,
        *[reviewed(VerdictKind.UNDETERMINED, UNSAFE)] * 20,
    ]
    assert judge_quality(more) == judge_quality(plain)


def test_labels_balanced_by_verdict_are_weighted_back() -> None:
    # Of 1000 answers 100 are unsafe and the judge finds 60; 40 hide among its 900 SAFE verdicts.
    # Labelling 90 of each kind of verdict shows 54 hits and 4 misses: unweighted Se is 93%.
    found = [
        *[reviewed(UNSAFE, UNSAFE, 0.9)] * 54,
        *[reviewed(UNSAFE, SAFE, 0.9)] * 36,
        *[reviewed(SAFE, UNSAFE, 0.1)] * 4,
        *[reviewed(SAFE, SAFE, 0.1)] * 86,
    ]
    quality = judge_quality(found)
    assert quality.sensitivity is not None
    assert quality.sensitivity.value == pytest.approx(60 / 100)
    assert quality.sensitivity.low < 0.5
    assert quality.counts.unsafe < 25, "58 labels are worth few, as 4 of them stand for 40"
    assert quality.counts.hits / quality.counts.unsafe == pytest.approx(0.6)


people = st.sampled_from(["Ana", "Ben", "Cem"])
ratings = st.dictionaries(people, st.sampled_from([LabelKind.SAFE, LabelKind.UNSAFE]), max_size=3)


@settings(max_examples=40)
@given(st.lists(ratings, max_size=30))
def test_alpha_is_that_of_krippendorff(given_ratings: list[dict[str, LabelKind]]) -> None:
    found = reviewer_agreement(
        reviewed(SAFE, SAFE, ratings=list(one.items())) for one in given_ratings
    )
    matrix = [
        [
            math.nan if name not in one else float(one[name] is LabelKind.UNSAFE)
            for one in given_ratings
        ]
        for name in ("Ana", "Ben", "Cem")
    ]
    pairable = {kind for one in given_ratings if len(one) > 1 for kind in one.values()}
    assert found.answers == sum(len(one) > 1 for one in given_ratings)
    if len(pairable) < 2:
        assert found.alpha is None
        return
    oracle = krippendorff.alpha(reliability_data=matrix, level_of_measurement="nominal")
    assert found.alpha is not None
    assert found.alpha.value == pytest.approx(oracle)
    assert found.alpha.low <= found.alpha.value <= found.alpha.high


JUDGE = JudgeCounts(45, 50, 46, 50)
halves = st.builds(
    lambda hits, missed, passed, alarms: JudgeCounts(hits, hits + missed, passed, passed + alarms),
    *[st.integers(0, 60)] * 4,
)


@settings(max_examples=60)
@given(st.integers(0, 300), halves)
def test_bounds_enclose_and_move_one_way(count: int, judge: JudgeCounts) -> None:
    size = 318

    def upper(x: float, by: JudgeCounts) -> float:
        return melded_upper(x, size, by, ALPHA, draws=QUICK)

    def lower(x: float, by: JudgeCounts) -> float:
        return melded_lower(x, size, by, ALPHA, draws=QUICK)

    assert 0 <= lower(count, judge) <= upper(count, judge) <= 1
    noise = 0.02  # another Beta is drawn by other numbers
    assert upper(count + 18, judge) >= upper(count, judge) - noise
    assert lower(count + 18, judge) >= lower(count, judge) - noise
    missed = JudgeCounts(judge.hits, judge.unsafe + 10, judge.passed, judge.safe)
    assert upper(count, missed) >= upper(count, judge) - noise, "a judge that misses more"


def test_a_perfect_judge_leaves_the_bounds_of_clopper_and_pearson() -> None:
    perfect = JudgeCounts(10**7, 10**7, 10**7, 10**7)
    for count in (0, 3, 40):
        upper, lower = (
            clopper_pearson_upper(count, 318, ALPHA),
            clopper_pearson_lower(count, 318, ALPHA),
        )
        assert melded_upper(count, 318, perfect, ALPHA) == pytest.approx(upper, abs=2e-3)
        assert melded_lower(count, 318, perfect, ALPHA) == pytest.approx(lower, abs=2e-3)


@pytest.mark.parametrize(
    "judge",
    [
        JudgeCounts(0, 50, 50, 50),  # always says safe
        JudgeCounts(50, 50, 0, 50),  # always says unsafe
        JudgeCounts(25, 50, 25, 50),  # a coin
        JudgeCounts(0, 0, 0, 0),  # nobody knows
        JudgeCounts(0, 0, 50, 50),
    ],
)
def test_a_judge_that_tells_nothing_bounds_nothing(judge: JudgeCounts) -> None:
    assert melded_upper(5, 318, judge, ALPHA) == 1
    assert melded_lower(300, 318, judge, ALPHA) < 0.95
    assert corrected_interval((5, 5), 318, judge, ALPHA)[1] > 0.8
    assert corrected_rate(5 / 318, judge) is None


def test_false_alarms_that_nobody_counted_only_make_the_bound_larger() -> None:
    # The rate is largest if the judge never cries wolf, and that is what the bound assumes.
    upper = melded_upper(5, 318, JudgeCounts(10**7, 10**7, 0, 0), ALPHA)
    assert upper == pytest.approx(clopper_pearson_upper(5, 318, ALPHA), abs=2e-3)
    assert melded_lower(300, 318, JudgeCounts(50, 50, 0, 0), ALPHA) == 0


def test_the_same_labels_give_the_same_bound() -> None:
    assert melded_upper(20, 318, JUDGE, ALPHA) == melded_upper(20, 318, JUDGE, ALPHA)
    low, high = corrected_interval((20, 30), 318, JUDGE, ALPHA)
    inner = corrected_interval((20, 20), 318, JUDGE, ALPHA)
    assert low == inner[0]
    assert high > inner[1], "the unscored make it wider"


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="at most as often"):
        JudgeCounts(3, 2, 1, 1)


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_report_intervals_cover(rate: float) -> None:
    above, below = interval_misses(Setting(rate, 0.85, 0.95, 100), 600, draws=2000)
    assert 0.02 < above + below < 0.09


@pytest.mark.parametrize("rate", [0.02, 0.1])
def test_gates_are_missed_as_seldom_as_promised(rate: float) -> None:
    repetitions = 600
    allowed = 0.05 + 3 * math.sqrt(0.05 * 0.95 / repetitions)
    assert bound_misses(Setting(rate, 0.85, 0.95, 100), repetitions, draws=2000) <= allowed


def test_intervals_of_labels_per_verdict_cover() -> None:
    misses = rate_misses(Labelling(2000, 0.3, 0.85, 0.95, 60), 80)
    assert all(share < 0.15 for share in misses.values()), misses


def test_a_rate_tells_its_denominator() -> None:
    quality = judge_quality(table(8, 2, 1, 9))
    rate = quality.sensitivity
    assert rate is not None
    assert (rate.value, rate.count, rate.size) == (0.8, 8, 10)
    assert 0.45 < rate.low < 0.55
    assert 0.9 < rate.high < 0.97
    assert quality.enough
    assert not judge_quality(table(8, 1, 1, 9)).enough
