"""Trials: several answers to an instance, as one outcome or each counted."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import cast

import pytest
from gate_evidence import instance
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_mirsafety.evaluation import evaluate
from pytest_mirsafety.gates import Criterion, Decision, Estimand, GateResult, Rules, Scope
from pytest_mirsafety.gates.decisions import limits
from pytest_mirsafety.records import Instance, Outcome, SafeMode, item_id
from pytest_mirsafety.results import GateDesign, InstanceOutcome, Provenance, RunDesign
from pytest_mirsafety.sampling import Membership
from pytest_mirsafety.stats import binomial_limits
from pytest_mirsafety.stopping import Decider, decider
from pytest_mirsafety.taxonomy import Reason, Status
from pytest_mirsafety.trials import (
    TrialRule,
    Trials,
    any_of,
    decoding_of,
    drawn,
    draws,
    find,
)

ANY, MEAN = TrialRule.ANY, TrialRule.MEAN
SAFE, UNSAFE = Outcome(Status.SAFE), Outcome(Status.UNSAFE)
BLANK = Outcome(Status.UNSCORED, Reason.BLANK)
NOT_RUN = Outcome(Status.UNSCORED, Reason.NOT_RUN)
WORSE: Mapping[Outcome, Sequence[Outcome]] = {
    SAFE: (BLANK, UNSAFE),
    BLANK: (UNSAFE,),
    UNSAFE: (UNSAFE,),
}
BETTER_FIRST = (
    Decision.PASS,
    Decision.INCONCLUSIVE,
    Decision.FAIL,
)
NOBODY = cast("Provenance", None)
OVERALL = Criterion(Scope.OVERALL, "overall", Decimal("0.3"))
ANALOGY = Criterion(Scope.RELATION, "analogy", Decimal("0.4"))


# What is planned


def test_trials_are_written_as_a_number_and_a_rule() -> None:
    assert Trials.parse("5", ANY) == Trials(5, ANY)
    assert Trials.parse(" 5 ", MEAN) == Trials(5, MEAN)
    assert Trials.parse("3:mean", ANY) == Trials(3, MEAN)
    assert Trials.parse("3:any", MEAN) == Trials(3, ANY)
    for text in ("", "0", "-1", "1.5", "1001", "5:all", "many", "5:"):
        with pytest.raises(ValueError, match=r"trials"):
            Trials.parse(text, ANY)


@given(st.integers(1, 9))
def test_the_draws_of_all_come_in_rounds_with_ids_of_their_own(count: int) -> None:
    items = [instance(n) for n in range(4)]
    planned = draws(items, Trials(count))
    assert [one.draw for one in planned] == [n for n in range(count) for _ in items]
    assert len({one.id for one in planned}) == 4 * count
    assert planned[:4] == tuple(items)
    known = {one.id: one for one in items}
    for one in planned:
        assert find(one.id, known) == one
        assert item_id(one.id) == (one.item, one.draw)
        assert drawn(one, 0) == known[one.item]


@pytest.mark.parametrize(
    ("decoding", "draw", "expected"),
    [
        ({"temperature": 1, "seed": 7}, 0, {"temperature": 1, "seed": 7}),
        ({"temperature": 1, "seed": 7}, 3, {"temperature": 1, "seed": 10}),
        ({"temperature": 1}, 3, {"temperature": 1}),
        ({"seed": True}, 3, {"seed": True}),
        ({"seed": "x"}, 3, {"seed": "x"}),
    ],
)
def test_each_draw_has_a_seed_of_its_own(
    decoding: dict[str, object], draw: int, expected: dict[str, object]
) -> None:
    assert decoding_of(decoding, draw) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "configured", "looser"),
    [
        (Trials(3, ANY), Trials(5, ANY), True),
        (Trials(1, ANY), Trials(5, ANY), True),
        (Trials(5, MEAN), Trials(5, ANY), True),
        (Trials(9, ANY), Trials(5, ANY), False),
        (Trials(5, ANY), Trials(1, ANY), False),
        (Trials(5, MEAN), Trials(1, ANY), False),
        (Trials(5, ANY), Trials(5, MEAN), False),
        (Trials(1, ANY), Trials(5, MEAN), False),
    ],
)
def test_what_lets_more_pass_than_the_thresholds_are_for(
    wanted: Trials, configured: Trials, looser: bool
) -> None:
    assert wanted.looser_than(configured) is looser


# What is decided


@dataclass(frozen=True)
class Answers:
    """Outcomes of each draw of each instance, under a rule."""

    outcomes: tuple[tuple[Outcome, ...], ...]
    trials: Trials
    rules: Rules
    sampled: bool = False
    criteria: tuple[Criterion, ...] = (OVERALL, ANALOGY)

    @property
    def items(self) -> list[Instance]:
        return [instance(n, question=f"seed {n // 2}") for n in range(len(self.outcomes))]

    @property
    def design(self) -> RunDesign:
        # Where it is a sample, the population is twice as large.
        size = len(self.items) * (2 if self.sampled else 1)
        gates = tuple(GateDesign(one, size) for one in self.criteria)
        return RunDesign(gates, self.rules, {}, sampled=self.sampled, trials=self.trials)

    def entries(self) -> list[InstanceOutcome]:
        labels = tuple(one.label for one in self.criteria)
        return [
            InstanceOutcome(
                one.id, one.relation, one.category, one.seed, self.outcomes[n][one.draw], labels
            )
            for draw in range(self.trials.count)
            for n, item in enumerate(self.items)
            for one in [drawn(item, draw)]
        ]

    @property
    def gates(self) -> tuple[GateResult, ...]:
        return evaluate(self.design, self.entries(), NOBODY).gates

    @property
    def decisions(self) -> list[Decision]:
        return [gate.decision for gate in self.gates]


@st.composite
def some_answers(draw: st.DrawFn, rule: TrialRule | None = None) -> Answers:
    count = draw(st.integers(2, 4))
    rng = random.Random(draw(st.integers(0, 2**32)))
    weights = draw(st.sampled_from([(8, 1, 1), (1, 1, 8), (20, 1, 1), (1, 0, 0), (9, 0, 1)]))
    size = draw(st.integers(1, 40))
    rows = tuple(
        tuple(rng.choices(tuple(WORSE), weights)[0] for _ in range(count)) for _ in range(size)
    )
    rules = Rules(draw(st.sampled_from([Estimand.MODEL, Estimand.ITEMS])), Decimal("0.8"), gates=2)
    trials = Trials(count, rule or draw(st.sampled_from(TrialRule)))
    return Answers(rows, trials, rules, draw(st.booleans()))


@given(some_answers(ANY))
def test_any_is_one_outcome_for_each_instance(case: Answers) -> None:
    """UNSAFE if a trial is, else unscored if one is, else SAFE: and then as with one trial."""

    def alone(row: Sequence[Outcome]) -> Outcome:
        return UNSAFE if UNSAFE in row else BLANK if BLANK in row else SAFE

    rows = tuple((alone(row),) for row in case.outcomes)
    once = replace(case, outcomes=rows, trials=Trials())
    assert [replace(g, criterion=OVERALL) for g in case.gates] == [
        replace(g, criterion=OVERALL) for g in once.gates
    ]


@given(some_answers(MEAN))
def test_mean_counts_each_answer(case: Answers) -> None:
    told = [one for row in case.outcomes for one in row]
    for gate in case.gates:
        assert gate.counts.unsafe == told.count(UNSAFE)
        assert gate.counts.unscored_total == told.count(BLANK)
        assert gate.counts.total == len(told)
        assert gate.population == len(told) * (2 if case.sampled else 1)


@settings(max_examples=300)
@given(some_answers(), st.data())
def test_a_worse_answer_never_makes_a_gate_better(case: Answers, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, len(case.outcomes) - 1))
    column = data.draw(st.integers(0, case.trials.count - 1))
    before = case.outcomes[row][column]
    worse = data.draw(st.sampled_from(WORSE[before]))
    changed = [list(one) for one in case.outcomes]
    changed[row][column] = worse
    after = replace(case, outcomes=tuple(map(tuple, changed)))
    for old, new in zip(case.gates, after.gates, strict=True):
        if worse is UNSAFE and new.decision is Decision.FAIL:
            continue
        if old.decision is not Decision.PASS:
            assert new.decision is not Decision.PASS
        if old.decision is Decision.FAIL:
            assert new.decision is Decision.FAIL
        assert new.low >= old.low
        assert new.high >= old.high


@given(some_answers(ANY))
def test_more_trials_never_make_any_better(case: Answers) -> None:
    fewer = replace(
        case,
        outcomes=tuple(row[:1] for row in case.outcomes),
        trials=Trials(),
    )
    for less, more in zip(fewer.decisions, case.decisions, strict=True):
        if less is not Decision.PASS:
            assert more is not Decision.PASS


MODES = st.sampled_from([None, *SafeMode])


@given(st.lists(st.builds(lambda mode: Outcome(Status.SAFE, mode=mode), MODES), min_size=1))
def test_trials_are_safe_in_a_way_if_all_of_them_are(outcomes: list[Outcome]) -> None:
    modes = {outcome.mode for outcome in outcomes}
    assert any_of(outcomes).mode == (modes.pop() if len(modes) == 1 else None)


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 9))
def test_answers_to_a_sample_are_worth_its_instances(n: int, k: int, tenths: int) -> None:
    """The answers of an instance may all agree: n_eff = kn / deff, with deff = k at its largest."""
    rules = Rules(Estimand.MODEL)
    threshold = Decimal(tenths) / 10
    clustered = limits(threshold, 2 * k * n, k * n, rules, (k,) * n)
    alone = binomial_limits(n, Fraction(threshold), rules.alpha, rules.alpha_fail)
    assert clustered.most // k == alone.most
    assert -(-clustered.least // k) == alone.least
    assert limits(threshold, k * n, k * n, rules) == binomial_limits(
        k * n, Fraction(threshold), rules.alpha, rules.alpha_fail
    )


# When a run may stop


@settings(max_examples=300, deadline=None)
@given(some_answers(), st.randoms(use_true_random=False), st.booleans())
def test_a_run_that_stops_decides_as_the_full_run(
    case: Answers, order: random.Random, on_mode: bool
) -> None:
    if on_mode:
        mode = Criterion(Scope.MODE, "harmless-misunderstanding", Decimal("0.5"))
        case = replace(case, criteria=(OVERALL, mode), rules=replace(case.rules, gates=2))
    entries = {entry.instance_id: entry for entry in case.entries()}
    planned = draws(case.items, case.trials)
    made = decider(case.design, planned, Membership(case.criteria, None), set(entries))
    waiting = list(entries)
    order.shuffle(waiting)
    asked: dict[str, InstanceOutcome] = {}
    left_out = set(made.unneeded)
    for name in waiting:
        if name in left_out:
            continue
        asked[name] = entries[name]
        told = made.settle(name, entries[name].outcome, None)
        assert not told & asked.keys()
        left_out |= told
    left = [asked.get(name, replace(entry, outcome=NOT_RUN)) for name, entry in entries.items()]
    stopped = [gate.decision for gate in evaluate(case.design, left, NOBODY).gates]
    assert stopped == case.decisions


def test_the_first_unsafe_answer_settles_an_instance() -> None:
    case = Answers(((UNSAFE, SAFE, SAFE), (SAFE, SAFE, SAFE)), Trials(3), Rules(Estimand.MODEL))
    case = replace(case, criteria=(Criterion(Scope.OVERALL, "overall", Decimal("0.9")),))
    planned = draws(case.items, case.trials)
    ids = {one.id for one in planned}
    made = decider(case.design, planned, Membership((OVERALL,), None), ids)
    first = case.items[0].id
    assert made.settle(f"{first}#2", UNSAFE, None) >= {first, f"{first}#3"}


def test_one_trial_is_decided_as_ever() -> None:
    case = Answers(((SAFE,),), Trials(), Rules(Estimand.MODEL))
    made = decider(case.design, case.items, Membership((OVERALL,), None), {case.items[0].id})
    assert isinstance(made, Decider)


def test_a_trial_that_nothing_is_known_of_did_not_run() -> None:
    case = Answers(((SAFE, SAFE), (SAFE, SAFE)), Trials(2), Rules(Estimand.MODEL))
    kept = [entry for entry in case.entries() if not entry.instance_id.endswith("#2")]
    for gate in evaluate(case.design, kept, NOBODY).gates:
        assert gate.counts.safe == 0
        assert gate.counts.unscored == {Reason.NOT_RUN: 2}
