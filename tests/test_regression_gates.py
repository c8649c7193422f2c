"""The regression gate: nothing unknown, lost or reordered makes a PASS."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from compared_runs import (
    OUTCOMES,
    SAFE,
    UNSAFE,
    UNSCORED,
    changed,
    counts,
    pairs,
    recorded,
    side,
)
from gate_evidence import overall
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_mirsafety.comparison.bounds import increase_upper
from pytest_mirsafety.comparison.evidence import Conditions, PairEvidence, increase
from pytest_mirsafety.comparison.pairs import Pair, PairCounts
from pytest_mirsafety.comparison.recorded import side_of
from pytest_mirsafety.comparison.regression import RegressionResult, decide_regression
from pytest_mirsafety.errors import DataError
from pytest_mirsafety.evaluation import evaluate
from pytest_mirsafety.gates import Cause, Decision, Estimand, Rules
from pytest_mirsafety.merging import merge
from pytest_mirsafety.results import RecordedRun, RunResult
from pytest_mirsafety.sharding import Shard

PASS, FAIL, INCONCLUSIVE = Decision.PASS, Decision.FAIL, Decision.INCONCLUSIVE
SETTINGS = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MARGINS = st.sampled_from(["0", "0.02", "0.05", "0.1", "0.3", "1"])
ESTIMANDS = st.sampled_from(Estimand)


def gate(
    found: list[Pair], margin: str, estimand: Estimand, beyond: int = 0, **conditions: Any
) -> RegressionResult:
    """The gate on these pairs, a sample of so many more instances if `beyond` is above 0."""
    evidence = PairEvidence.of(found, len(found) + beyond, estimand)
    return decide_regression(overall(margin), evidence, Rules(estimand), Conditions(**conditions))


def of_counts(found: PairCounts, margin: str, estimand: Estimand) -> RegressionResult:
    clusters = (1,) * found.total if estimand is Estimand.ITEMS else ()
    evidence = PairEvidence(found.total, found, found.total, clusters=clusters)
    return decide_regression(overall(margin), evidence, Rules(estimand), Conditions())


WORSE: dict[str, Callable[[Pair], Pair]] = {
    "the candidate's answer is lost": lambda pair: changed(pair, candidate="?"),
    "the candidate's test is skipped": lambda pair: changed(pair, candidate="-"),
    "the base's answer is lost": lambda pair: changed(pair, base="?"),
    "the base's test was skipped": lambda pair: changed(pair, base="-"),
    "both are lost": lambda pair: changed(pair, base="?", candidate="?"),
    "the candidate is unsafe": lambda pair: changed(pair, candidate="u"),
    "the base was safe": lambda pair: changed(pair, base="s"),
    "the base has nothing of it": lambda pair: Pair(None, pair.candidate),
}


@pytest.mark.parametrize("how", WORSE)
@SETTINGS
@given(pairs(), MARGINS, ESTIMANDS, st.integers(0, 80), st.data())
def test_nothing_lost_makes_a_pass_or_lowers_the_bound(
    how: str, found: list[Pair], margin: str, estimand: Estimand, beyond: int, data: st.DataObject
) -> None:
    before = gate(found, margin, estimand, beyond)
    place = data.draw(st.integers(0, len(found) - 1))
    worse = [*found[:place], WORSE[how](found[place]), *found[place + 1 :]]
    after = gate(worse, margin, estimand, beyond)
    if before.decision is not Decision.NOT_EVALUATED is not after.decision:
        assert after.high >= before.high - 1e-12
    assert after.decision is not PASS or before.decision is PASS


@SETTINGS
@given(pairs(), MARGINS, ESTIMANDS, st.integers(0, 80), st.randoms())
def test_the_order_makes_no_difference(
    found: list[Pair], margin: str, estimand: Estimand, beyond: int, random: Any
) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)
    assert gate(shuffled, margin, estimand, beyond) == gate(found, margin, estimand, beyond)


@SETTINGS
@given(pairs(), MARGINS, ESTIMANDS, st.integers(0, 80))
def test_decision_and_bounds_never_disagree(
    found: list[Pair], margin: str, estimand: Estimand, beyond: int
) -> None:
    result = gate(found, margin, estimand, beyond)
    assert result.low <= result.high
    if result.decision is PASS:
        assert result.high <= float(margin)
    if result.decision is FAIL:
        assert result.low > float(margin)
    if result.decision is INCONCLUSIVE:
        assert result.cause is not None
        assert result.next_step
    assert result.decision is Decision.NOT_EVALUATED or result.counts.total == len(found)


@settings(max_examples=60, deadline=None)
@given(pairs(most=6))
def test_the_bracket_is_that_of_every_way_to_judge_the_rest(found: list[Pair]) -> None:
    """Against brute force: all that is unknown, once safe and once unsafe, on each side."""
    result = gate(found, "0.1", Estimand.ANSWERS)
    if result.decision is Decision.NOT_EVALUATED:
        return
    choices = []
    for pair in found:
        before, after = pair.statuses
        choices.append(
            [
                (b, c)
                for b in ((SAFE, UNSAFE) if before is UNSCORED else (before,))
                for c in ((SAFE, UNSAFE) if after is UNSCORED else (after,))
            ]
        )
    rises = [
        Fraction(sum((c is UNSAFE) - (b is UNSAFE) for b, c in world), len(found))
        for world in itertools.product(*choices)
    ]
    assert (result.low, result.high) == (float(min(rises)), float(max(rises)))
    assert result.exact


@settings(max_examples=60, deadline=None)
@given(pairs(most=40), st.randoms())
def test_the_models_bound_holds_however_the_rest_is_judged(found: list[Pair], random: Any) -> None:
    rules = Rules(Estimand.MODEL)
    evidence = PairEvidence.of(found, len(found), Estimand.MODEL)
    bounds = increase(evidence, rules)
    settled = []
    for pair in found:
        before, after = pair.statuses
        before = random.choice((SAFE, UNSAFE)) if before is UNSCORED else before
        after = random.choice((SAFE, UNSAFE)) if after is UNSCORED else after
        settled.append((before, after))
    unsafe, safe = settled.count((SAFE, UNSAFE)), settled.count((UNSAFE, SAFE))
    assert increase_upper(unsafe, safe, len(found), rules.alpha) <= bounds.high
    assert bounds.low <= Fraction(unsafe - safe, len(found))


def test_errors_on_the_newly_unsafe_pairs_change_no_fail_or_open_gate_to_a_pass() -> None:
    """Every table of 24 pairs, every number of errors on what became unsafe, every estimand."""
    for estimand, margin in itertools.product(Estimand, ("0.05", "0.2", "0.5")):
        for unsafe, safe in itertools.product(range(13), range(9)):
            rest = 24 - unsafe - safe
            honest = of_counts(counts(su=unsafe, us=safe, ss=rest), margin, estimand)
            for lost in {1, unsafe // 2, unsafe} & set(range(1, unsafe + 1)):
                table = counts(su=unsafe - lost, sx=lost, us=safe, ss=rest)
                hidden = of_counts(table, margin, estimand)
                assert hidden.high == honest.high
                assert hidden.decision is not PASS or honest.decision is PASS


def test_a_max_increase_is_taken_as_written() -> None:
    """0.29 of 100 is 28.999... in floating point; 29 more are allowed."""
    assert of_counts(counts(su=29, ss=71), "0.29", Estimand.ANSWERS).decision is PASS
    assert of_counts(counts(su=30, ss=70), "0.29", Estimand.ANSWERS).decision is FAIL


def test_what_is_allowed_is_in_points_as_the_increase_is() -> None:
    """`2% allowed` would read as a share of the baseline's rate."""
    found = of_counts(counts(ss=96, su=4), "0.025", Estimand.ANSWERS)
    assert found.reason.endswith("rose by +4.0 points, +2.5 allowed")


def test_a_fall_passes_a_max_increase_of_nothing() -> None:
    assert of_counts(counts(us=3, su=3, ss=10), "0", Estimand.ANSWERS).decision is PASS
    assert of_counts(counts(us=3, su=4, ss=10), "0", Estimand.ANSWERS).decision is FAIL


def test_everything_unsafe_passes_nothing_even_at_one() -> None:
    assert of_counts(counts(uu=9), "1", Estimand.ANSWERS).decision is INCONCLUSIVE
    assert of_counts(counts(uu=9, us=1), "1", Estimand.ANSWERS).decision is PASS


def test_few_pairs_cannot_tell_a_rise_from_none() -> None:
    result = of_counts(counts(ss=30), "0.02", Estimand.MODEL)
    assert (result.decision, result.cause) == (INCONCLUSIVE, Cause.ZONE)
    assert result.tipping == "cannot pass with 30 pairs"


@pytest.mark.parametrize(
    ("table", "cause"),
    [
        ({"ss": 90, "sx": 10}, Cause.UNSCORED),
        ({"ss": 90, "xu": 10}, Cause.BASELINE),
        ({"ss": 90, "xx": 10}, Cause.BASELINE),
    ],
)
def test_whose_verdict_is_missing_is_named(table: dict[str, int], cause: Cause) -> None:
    result = of_counts(counts(**table), "0.05", Estimand.ANSWERS)
    assert (result.decision, result.cause) == (INCONCLUSIVE, cause)
    assert result.tipping == "passes up to 5 newly unsafe, has 10 at worst"


def test_what_is_held_back_does_not_pass_and_what_is_excused_does_not_fail() -> None:
    base = side("ssss")
    good = [Pair(one, one) for one in base.items]
    assert gate(good, "0", Estimand.ANSWERS).decision is PASS
    held = gate(good, "0", Estimand.ANSWERS, held_back="why", held_back_by=Cause.JUDGE)
    assert (held.decision, held.cause) == (INCONCLUSIVE, Cause.JUDGE)
    assert "why" in held.reason
    bad = [changed(pair, candidate="u") for pair in good]
    assert gate(bad, "0", Estimand.ANSWERS).decision is FAIL
    assert gate(bad, "0", Estimand.ANSWERS, excused="why").decision is INCONCLUSIVE


# Runs: the same through evaluate, and through the shards of one.


def result_of(run: RecordedRun) -> RunResult:
    return evaluate(run.design, run.outcomes, run.provenance, run.notes, run.baseline)


@SETTINGS
@given(OUTCOMES, OUTCOMES, MARGINS, ESTIMANDS, st.integers(1, 4))
def test_the_shards_together_decide_what_the_whole_does(
    before: str, after: str, margin: str, estimand: Estimand, count: int
) -> None:
    length = min(len(before), len(after))
    base = side(before[:length], estimand=estimand)
    run = recorded(after[:length], estimand=estimand, baseline=base, increase=margin)
    whole = result_of(run)
    shards = []
    for index in range(1, count + 1):
        own = [e for number, e in enumerate(run.outcomes) if number % count == index - 1]
        design = replace(run.design, shard=Shard(index, count))
        shards.append(replace(run, where=f"{index}", design=design, outcomes=tuple(own)))
        assert not result_of(shards[-1]).regression
    merged = merge(shards)
    assert merged.regression == whole.regression
    assert merged.ruling is whole.ruling


@SETTINGS
@given(OUTCOMES, MARGINS, ESTIMANDS)
def test_a_gate_on_an_increase_gives_no_zero_that_the_others_do_not(
    outcomes: str, margin: str, estimand: Estimand
) -> None:
    run = recorded(
        outcomes, estimand=estimand, baseline=side(outcomes, estimand=estimand), increase=margin
    )
    result = result_of(run)
    alone = replace(result, gates=())
    assert alone.exit_code(tests_failed=False) != 0
    without = replace(result, design=replace(run.design, regression=()), regression=())
    codes = {0: 0, 10: 1, 1: 2}  # from good to bad
    mine, theirs = (r.exit_code(tests_failed=False) for r in (result, without))
    assert codes[mine] >= codes[theirs]
    lost = replace(result, regression=(), baseline=None)
    assert lost.exit_code(tests_failed=False) != 0


def test_instances_that_are_not_there_are_no_sample() -> None:
    run = recorded("s" * 40, baseline=side("s" * 40), increase="0.2")
    assert result_of(run).regression[0].decision is PASS
    missing = replace(run, outcomes=run.outcomes[:-1], design=replace(run.design, planned=None))
    with pytest.raises(DataError, match="holds 39 of the data's 40 instances"):
        side_of(missing)
    design = replace(missing.design, gates=())  # which would find out
    for outcomes in (run.outcomes[:-1], (*run.outcomes, replace(run.outcomes[0], instance_id="x"))):
        with pytest.raises(ValueError, match="only a sample may leave instances out"):
            result_of(replace(missing, design=design, outcomes=outcomes))


def test_the_false_fails_of_all_gates_are_shared() -> None:
    base = side("s" * 40, estimand=Estimand.MODEL)
    run = recorded("u" * 8 + "s" * 32, estimand=Estimand.MODEL, baseline=base, increase="0.05")
    assert run.design.rules.gates == 2
    (found,) = result_of(run).regression
    alone = replace(run.design, rules=Rules(Estimand.MODEL))
    (other,) = result_of(replace(run, design=alone)).regression
    assert found.low < other.low
    assert found.high == other.high
