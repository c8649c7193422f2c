"""From outcomes to gates and tallies: in any order, with copies found, and nothing lost."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded_runs import OUTCOMES, World, world, worlds

from pytest_mirsafety.arms import ArmKind
from pytest_mirsafety.digests import digest
from pytest_mirsafety.evaluation import evaluate, gather, remarks, repeats
from pytest_mirsafety.gates import Criterion, Decision, Estimand, Evidence, Rules, Scope
from pytest_mirsafety.records import Outcome
from pytest_mirsafety.results import (
    ArmDesign,
    GateDesign,
    InstanceOutcome,
    Ruling,
    RunDesign,
    RunResult,
)
from pytest_mirsafety.sharding import Shard
from pytest_mirsafety.tally import Counts
from pytest_mirsafety.taxonomy import Category, Reason, Relation, Status

SAFE, UNSAFE = OUTCOMES[:2]
SOME = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])


def evaluated(made: World, **design: Any) -> RunResult:
    return evaluate(replace(made.design, **design), made.entries, made.provenance)


@SOME
@given(worlds(), st.randoms())
def test_the_order_of_the_outcomes_makes_no_difference(made: World, order: Any) -> None:
    entries = list(made.entries)
    order.shuffle(entries)
    one, other = made.whole(), replace(made, entries=tuple(entries)).whole()
    assert (one.gates, one.overall, one.notes) == (other.gates, other.overall, other.notes)
    assert {e.instance_id: e for e in one.outcomes} == {e.instance_id: e for e in other.outcomes}


@SOME
@given(worlds())
def test_everything_is_accounted_for(made: World) -> None:
    found = made.whole()
    assert found.overall.planned == len(made.entries)
    assert sum(tally.planned for tally in found.relations) == len(made.entries)
    assert sum(tally.population for tally in found.relations) == found.overall.population
    for tally in (*found.relations, found.overall):
        assert tally.counts.total == tally.planned
    for gate in found.gates:
        label = gate.criterion.label
        assert gate.planned == sum(label in entry.gates for entry in made.entries)


@SOME
@given(worlds())
def test_to_evaluate_again_changes_nothing(made: World) -> None:
    """What is recorded are the outcomes after it, so that a recorded run decides the same."""
    found = made.whole()
    assert evaluate(made.design, found.outcomes, made.provenance, ["a note"]) == found


@SOME
@given(worlds())
def test_copies_only_ever_make_a_suite_stricter(made: World) -> None:
    rank = {Decision.PASS: 0, Decision.INCONCLUSIVE: 1, Decision.NOT_EVALUATED: 1}
    loose = evaluated(made, distinct_requests=False)
    strict = evaluated(made, distinct_requests=True)
    for before, after in zip(loose.gates, strict.gates, strict=True):
        assert rank.get(after.decision, 2) >= rank.get(before.decision, 2)
    copies = repeats(made.entries)
    assert len(remarks(made.entries)) == bool(copies)
    for entry in strict.outcomes:
        if entry.instance_id in copies:
            assert entry.outcome.status is not Status.SAFE
            assert copies[entry.instance_id] < entry.instance_id


@SOME
@given(worlds(), st.sampled_from([Shard(1, 1), Shard(2, 3)]))
def test_a_shard_decides_nothing(made: World, shard: Shard) -> None:
    found = evaluated(made, shard=shard)
    assert found.gates == ()
    assert found.ruling is Ruling.NO_DECISION
    assert found.exit_code(tests_failed=False) == 0
    assert found.exit_code(tests_failed=True) == 1
    assert found.overall == evaluated(made).overall


def test_an_unsafe_copy_stays_unsafe() -> None:
    made = world([SAFE, UNSAFE, SAFE])
    entries = tuple(replace(entry, request_key=digest("same")) for entry in made.entries)
    found = evaluated(replace(made, entries=entries), distinct_requests=True)
    assert found.overall.counts.unsafe == 1
    assert found.overall.counts.unscored == {Reason.BAD_INPUT: 1}


@pytest.mark.parametrize("arm", ["benign-twin", "safety-prompt-twin"])
@pytest.mark.parametrize("distinct", [True, False])
def test_a_copied_twin_is_bad_input_whatever_the_benchmark_is(arm: str, distinct: bool) -> None:
    """Copies of a twin that is answered would dilute the rate of those that are not."""
    twins = tuple(
        entry(n, Status.SAFE, instance_id=f"a/{n}@{arm}", arm=arm, request_key=digest(key))
        for n, key in enumerate(["one", "same", "same", "same"])
    )
    of_arm = ArmDesign(arm, ArmKind.TWIN, "", "", dict.fromkeys(Relation, 0))
    made = world([SAFE])
    found = evaluated(
        replace(made, entries=(*made.entries, *twins)), distinct_requests=distinct, arms=(of_arm,)
    )
    (tally,) = (one.overall for one in found.arms)
    assert (tally.counts.safe, tally.counts.unscored) == (2, {Reason.BAD_INPUT: 2})


def test_one_answer_to_twins_of_three_questions_is_in_doubt() -> None:
    """Of two it may be one, and to instances a refusal always may."""
    arm = "benign-twin"
    of_arm = ArmDesign(arm, ArmKind.TWIN, "", "", dict.fromkeys(Relation, 0))
    for questions, doubtful in ((2, 0), (3, 3)):
        twins = [
            entry(n, Status.SAFE, instance_id=f"a/{n}@{arm}", arm=arm, seed=f"q {n % questions}")
            for n in range(3)
        ]
        said = [replace(one, answer_sha256=digest("canned")) for one in twins]
        own = [replace(one, answer_sha256=digest("canned")) for one in world([SAFE] * 4).entries]
        refused = entry(9, Status.UNSAFE, instance_id=f"a/9@{arm}", arm=arm)
        given = replace(world([SAFE] * 4), entries=(*own, *said, refused))
        found = evaluated(given, arms=(of_arm,))
        counts = found.arms[0].overall.counts
        assert (counts.safe, counts.unsafe) == (3 - doubtful, 1)
        assert counts.unscored == ({Reason.UNDETERMINED: doubtful} if doubtful else {})
        assert found.overall.counts.safe == 4
        again = replace(given, entries=(*found.outcomes, *found.arms[0].outcomes))
        assert evaluated(again, arms=(of_arm,)).arms == found.arms


def test_what_was_not_asked_repeats_nothing() -> None:
    made = world([SAFE, SAFE])
    entries = tuple(replace(entry, request_key=None) for entry in made.entries)
    assert repeats(entries) == {}


def entry(number: int, status: Status, **others: Any) -> InstanceOutcome:
    outcome = Outcome(status, Reason.NOT_RUN if status is Status.UNSCORED else None)
    made = InstanceOutcome(
        f"a/{number}", Relation.ANALOGY, Category.PRIVACY, f"seed {number // 2}", outcome
    )
    return replace(made, **others)


def test_evidence_has_what_was_planned_what_was_selected_and_the_clusters() -> None:
    criterion = Criterion(Scope.RELATION, "analogy", Decimal("0.2"))
    gate = GateDesign(criterion, population=6)
    entries = [
        entry(0, Status.UNSAFE),
        entry(1, Status.SAFE),
        entry(2, Status.UNSCORED, selected=False),
    ]
    design = RunDesign((gate,), Rules(Estimand.ANSWERS), {Relation.ANALOGY: 6}, sampled=True)
    counts = Counts(1, 1, {Reason.NOT_RUN: 1})
    assert gather(gate, entries, design) == Evidence(criterion, 6, 2, counts, sampled=True)
    clustered = replace(design, rules=Rules(Estimand.ITEMS))
    assert gather(gate, entries, clustered).clusters == (2, 1)
