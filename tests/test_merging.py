"""Shards become one run: what they decide together is what the run would have decided."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded_runs import OUTCOMES, World, world, worlds

from pytest_mirsafety.circumstances import Circumstances, Commit, Environment, Host
from pytest_mirsafety.digests import digest
from pytest_mirsafety.errors import DataError
from pytest_mirsafety.gates import Decision
from pytest_mirsafety.merging import MAY_DIFFER, circumstances, exit_code, merge
from pytest_mirsafety.records import ModelIdentity
from pytest_mirsafety.results import (
    InstanceOutcome,
    Provenance,
    RecordedRun,
    Ruling,
    RunDesign,
)
from pytest_mirsafety.sharding import Shard
from pytest_mirsafety.taxonomy import Reason, Status

SAFE, UNSAFE = OUTCOMES[:2]
COUNTS = st.integers(1, 6)
UNTIMED = [HealthCheck.too_slow]  # a machine that is busy is no failure
FEW = settings(max_examples=25, suppress_health_check=UNTIMED)


def outcomes(entries: Iterable[InstanceOutcome]) -> dict[str, tuple[Status, Reason | None]]:
    return {e.instance_id: (e.outcome.status, e.outcome.reason) for e in entries}


def four(*, threshold: str = "0.2") -> list[RecordedRun]:
    return world([SAFE] * 10, threshold).shards(4)


@settings(max_examples=120, suppress_health_check=UNTIMED)
@given(worlds(), COUNTS, st.lists(st.booleans(), min_size=6, max_size=6), st.randoms())
def test_the_shards_together_decide_what_the_whole_does(
    made: World, count: int, failed: list[bool], order: Any
) -> None:
    whole = made.whole()
    shards = [
        replace(run, tests_failed=flag, exit_code=int(flag))
        for run, flag in zip(made.shards(count), failed, strict=False)
    ]
    code = whole.exit_code(tests_failed=any(failed[:count]))
    order.shuffle(shards)
    merged = merge(shards)
    assert merged.gates == whole.gates
    assert merged.relations == whole.relations
    assert merged.overall == whole.overall
    assert merged.ruling is whole.ruling
    assert exit_code(merged, shards) == code
    assert outcomes(merged.outcomes) == outcomes(whole.outcomes)
    assert set(whole.notes) < set(merged.notes)


@FEW
@given(worlds(), COUNTS, st.randoms())
def test_the_order_of_the_shards_makes_no_difference(made: World, count: int, order: Any) -> None:
    shards = made.shards(count)
    shuffled = list(shards)
    order.shuffle(shuffled)
    assert merge(shards) == merge(shuffled)


@FEW
@given(worlds(), st.integers(2, 6), st.data())
def test_a_shard_too_few_or_too_many_is_refused(
    made: World, count: int, draw: st.DataObject
) -> None:
    shards = made.shards(count)
    picked = draw.draw(st.integers(0, count - 1))
    with pytest.raises(DataError, match="missing"):
        merge(shards[:picked] + shards[picked + 1 :])
    with pytest.raises(DataError, match="both shard"):
        merge([*shards, shards[picked]])
    with pytest.raises(DataError, match="both shard"):
        merge([*shards, replace(shards[picked], where="a copy")])


@FEW
@given(worlds(), st.integers(1, 4), st.data())
def test_instances_that_are_lost_added_or_in_two_shards_are_refused(
    made: World, count: int, draw: st.DataObject
) -> None:
    shards = made.shards(count)
    holding = [number for number, run in enumerate(shards) if run.outcomes]
    picked = draw.draw(st.sampled_from(holding))
    entries = shards[picked].outcomes
    entry = draw.draw(st.sampled_from(entries))
    other = replace(entry, instance_id=f"{entry.instance_id}-other")
    for changed in (
        tuple(e for e in entries if e is not entry),
        (*entries, other),
        tuple(other if e is entry else e for e in entries),
    ):
        edited = list(shards)
        edited[picked] = replace(shards[picked], outcomes=changed)
        with pytest.raises(DataError, match="not those that were planned"):
            merge(edited)
    if count > 1:
        edited = list(shards)
        edited[picked - 1] = replace(shards[picked - 1], outcomes=(entry,))
        with pytest.raises(DataError, match="both hold the instance"):
            merge(edited)


@FEW
@given(worlds(), st.integers(1, 4), st.data())
def test_a_worse_outcome_in_a_shard_makes_no_decision_better(
    made: World, count: int, draw: st.DataObject
) -> None:
    shards = made.shards(count)
    picked = draw.draw(st.sampled_from([n for n, run in enumerate(shards) if run.outcomes]))
    entry = draw.draw(st.sampled_from(shards[picked].outcomes))
    worse = OUTCOMES[1:] if entry.outcome.status is Status.SAFE else [UNSAFE]
    if not entry.selected:
        return
    changed = replace(entry, outcome=draw.draw(st.sampled_from(worse)))
    entries = tuple(changed if e is entry else e for e in shards[picked].outcomes)
    edited = list(shards)
    edited[picked] = replace(shards[picked], outcomes=entries)
    rank = {Decision.PASS: 0, Decision.INCONCLUSIVE: 1, Decision.NOT_EVALUATED: 1}
    for before, after in zip(merge(shards).gates, merge(edited).gates, strict=True):
        assert rank.get(after.decision, 2) >= rank.get(before.decision, 2)


OTHER: dict[str, Any] = {"gates": (), "planned": None, "populations": {}, "decoding": '{"t": 1}'}
DESIGN = [field.name for field in fields(RunDesign) if field.name not in ("shard", "rules")]
COMPARED = [field.name for field in fields(Provenance) if field.name not in MAY_DIFFER]


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    return (*value, "x") if isinstance(value, tuple) else f"{value}x"


@pytest.mark.parametrize("name", DESIGN)
def test_shards_of_different_designs_are_refused(name: str) -> None:
    shards = four()
    design = shards[2].design
    value = OTHER[name] if name in OTHER else changed(getattr(design, name))
    shards[2] = replace(shards[2], design=replace(design, **{name: value}))
    refused(shards, name)


@pytest.mark.parametrize("name", COMPARED)
def test_shards_of_different_provenance_are_refused(name: str) -> None:
    shards = four()
    provenance = shards[2].provenance
    value = changed(getattr(provenance, name))
    shards[2] = replace(shards[2], provenance=replace(provenance, **{name: value}))
    refused(shards, name)


def refused(shards: list[RecordedRun], name: str) -> None:
    with pytest.raises(DataError) as caught:
        merge(shards)
    assert str(caught.value).startswith("runs/1 and runs/3 are not of one run: they differ in ")
    assert name.replace("_", " ") in str(caught.value)


def test_what_may_differ_is_a_field() -> None:
    assert {field.name for field in fields(Provenance)} > MAY_DIFFER


@pytest.mark.parametrize(("name", "value"), [("pass_allowed", False), ("gates", 7)])
def test_other_rules_are_refused(name: str, value: Any) -> None:
    shards = four()
    design = shards[1].design
    rules = replace(design.rules, **{name: value})
    shards[1] = replace(shards[1], design=replace(design, rules=rules))
    with pytest.raises(DataError, match=rf"differ in rules \({name}\): "):
        merge(shards)


def test_another_threshold_is_named_with_its_gate() -> None:
    shards = four()
    shards[3] = four(threshold="0.25")[3]
    with pytest.raises(DataError, match=r"in gates \(analogy\): .*0\.2 of 10 and .*0\.25 of 10"):
        merge(shards)


def test_shards_of_different_counts_are_refused() -> None:
    shards = four()
    shards[1] = world([SAFE] * 10).shards(3)[1]
    with pytest.raises(DataError, match="differ in number of shards: 4 and 3"):
        merge(shards)


def test_a_run_that_is_no_shard_is_refused() -> None:
    with pytest.raises(DataError, match="whole is no shard"):
        merge([world([SAFE] * 10).recorded()])


def test_nothing_is_no_run() -> None:
    with pytest.raises(DataError, match="no run folder"):
        merge([])


def test_every_missing_shard_is_named() -> None:
    with pytest.raises(DataError, match=r"shard 1/4, 3/4 is missing: all 4"):
        merge([run for run in four() if run.design.shard in (Shard(2, 4), Shard(4, 4))])


def test_equal_requests_are_found_across_shards() -> None:
    """Two copies of one safe answer would dilute the rate of a private suite."""
    made = world([SAFE, SAFE, UNSAFE, SAFE, SAFE, SAFE], threshold="0.2")
    entries = tuple(replace(entry, request_key=digest("same")) for entry in made.entries)
    distinct = replace(made.design, distinct_requests=True)
    made = replace(made, design=distinct, entries=entries)
    shards = made.shards(6)
    assert all(entry.outcome.reason is None for run in shards for entry in run.outcomes)
    merged = merge(shards)
    assert merged.overall.counts.unscored == {Reason.BAD_INPUT: 4}
    assert merged.ruling is Ruling.INCONCLUSIVE
    assert "5 instances ask exactly what another one asks" in merged.notes


def test_a_sample_that_one_shard_knows_as_spent_is_spent() -> None:
    shards = four()
    design = shards[2].design
    rules = replace(design.rules, sample_spent=True)
    shards[2] = replace(shards[2], design=replace(design, rules=rules))
    assert merge(shards).design.rules.sample_spent


def test_numbers_are_added_and_times_are_not() -> None:
    shards = four()
    third = replace(shards[2].provenance, attempt=3, elapsed=9.0, oldest_answer=7.0, input_tokens=1)
    third = replace(third, cost_usd=Decimal("0.5"), asked_input_tokens=4)
    shards[2] = replace(shards[2], provenance=third)
    found = merge(shards).provenance
    assert (found.attempt, found.elapsed, found.started) == (3, 9.0, 1.0)
    assert (found.oldest_answer, found.input_tokens, found.output_tokens) == (7.0, 301, 40)
    assert (found.answers_asked, found.answers_from_store) == (80, 12)
    assert (found.asked_input_tokens, found.cost_usd) == (274, Decimal("1.25"))
    shards[1] = replace(shards[1], provenance=replace(shards[1].provenance, cost_usd=None))
    assert merge(shards).provenance.cost_usd is None


@pytest.mark.parametrize(
    ("codes", "failed", "expected"),
    [
        ([0, 0, 0, 0], False, 0),
        ([0, 1, 0, 0], True, 1),
        ([0, 0, 2, 0], False, 2),
        ([1, 3, 6, 2], True, 2),
    ],
)
def test_pytests_own_codes_come_first(codes: list[int], failed: bool, expected: int) -> None:
    shards = [
        replace(run, exit_code=code, tests_failed=failed and code == 1)
        for run, code in zip(four(), codes, strict=True)
    ]
    merged = merge(shards)
    assert exit_code(merged, shards) == expected
    early = [note for note in merged.notes if "ended with exit code" in note]
    assert len(early) == sum(code > 1 for code in codes)


def on(host: str, torch: str, sha: str) -> Environment:
    return Environment(
        {"python": "3.11", "torch": torch}, Host("Linux", host, 4), Commit(sha, None)
    )


def told(*environments: Environment) -> list[RecordedRun]:
    """A shard in each of these environments."""
    return [
        replace(run, circumstances=Circumstances(10.0 + i, ModelIdentity("http", "m"), (one,)))
        for i, (one, run) in enumerate(
            zip(environments, world([SAFE] * 10).shards(len(environments)), strict=True)
        )
    ]


def test_shards_of_different_hosts_are_one_run() -> None:
    here, there = on("x86_64", "2.7", "a" * 40), on("aarch64", "2.7", "a" * 40)
    shards = told(here, there, here)
    assert circumstances(reversed(shards)) == Circumstances(
        12.0, ModelIdentity("http", "m"), (here, there)
    )
    assert not [note for note in merge(shards).notes if "different" in note]


def test_other_versions_and_commits_are_noted() -> None:
    shards = told(on("x86_64", "2.7", "a" * 40), on("x86_64", "2.8", "b" * 40))
    notes = merge(shards).notes
    assert "shards ran with different versions of torch: 2.7, 2.8" in notes
    assert f"shards ran on different commits: {'a' * 12}, {'b' * 12}" in notes


def test_a_shard_that_tells_nothing_leaves_the_end_open() -> None:
    shards = told(on("x86_64", "2.7", "a" * 40), on("x86_64", "2.7", "a" * 40))
    shards[1] = replace(shards[1], circumstances=Circumstances())
    found = circumstances(shards)
    assert (found.ended, len(found.environments)) == (None, 1)
    assert found.model == ModelIdentity("http", "m")
