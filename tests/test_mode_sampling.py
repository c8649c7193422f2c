"""Samples and early stops of gates on modes: what they decide is what the whole would."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

from gate_evidence import instance, overall
from hypothesis import given, settings
from hypothesis import strategies as st
from mode_evidence import (
    ANSWERS,
    CORRECT,
    MISSED,
    MODEL,
    on,
    told,
)
from test_stopping import NOBODY, Scenario, designed, some_instances, some_sample

from pytest_mirsafety.evaluation import evaluate
from pytest_mirsafety.gates import (
    Decision,
    Estimand,
    Evidence,
    Rules,
    Thresholds,
    criteria,
    decide,
)
from pytest_mirsafety.records import Dataset, Outcome, SafeMode
from pytest_mirsafety.results import InstanceOutcome
from pytest_mirsafety.sampling import (
    POWER,
    Membership,
    chance_to_pass,
    draw_sample,
    parse_sample_size,
    refusal,
    size_for_power,
)
from pytest_mirsafety.stopping import Decider
from pytest_mirsafety.tally import Counts, Ledger
from pytest_mirsafety.taxonomy import Reason, Relation, Status


class TestSampling:
    @settings(max_examples=60, deadline=None)
    @given(
        st.integers(1, 60),
        st.decimals("0.05", "1", places=2),
        st.sampled_from([ANSWERS, MODEL, Rules(Estimand.ITEMS)]),
    )
    def test_the_size_for_a_minimum_is_the_smallest_that_has_the_chance(
        self, population: int, share: Decimal, rules: Rules
    ) -> None:
        chances = (
            (n, chance_to_pass(1 - share, population, n, rules, minimum=True))
            for n in range(1, population + 1)
        )
        expected = next((n for n, chance in chances if chance >= POWER), None)
        assert size_for_power(1 - share, population, rules, minimum=True) == expected

    def test_what_cannot_pass_is_refused_and_auto_draws_enough(self) -> None:
        many = Dataset("source", None, "the data", tuple(map(instance, range(318))))
        gates = (overall("0.2"), on(CORRECT, "0.1"), on(MISSED, "0.3"))
        small = draw_sample(parse_sample_size("8"), many, gates, ANSWERS)
        refused = refusal(small.gates)
        assert refused is not None
        assert "harmless-misunderstanding (limit <=30%) has 8 and needs 9 / " in refused
        assert "correct-refusal" not in refused
        one = draw_sample(parse_sample_size("1"), many, gates, ANSWERS)
        refused = refusal(one.gates)
        assert refused is not None
        assert "correct-refusal (limit >=10%) has 1 and needs 2 / 59" in refused
        assert "at half the limit (twice a minimum)" in refused
        auto = draw_sample(parse_sample_size("auto"), many, gates, ANSWERS)
        assert refusal(auto.gates) is None
        assert {gate.criterion.label: gate.planned for gate in auto.gates}[CORRECT] == 59
        assert all(gate.chance >= 0.8 for gate in auto.gates)

    def test_a_sample_wrongly_passes_a_minimum_at_most_alpha(self) -> None:
        """Counted exactly: every sample of a population that is just below its minimum."""
        from pytest_mirsafety.stats import hypergeometric_cdf

        gate, size = on(CORRECT, "0.3"), 40
        short = 11  # of 40; 12 are needed
        for drawn in range(1, size):
            passing = Fraction(0)
            for found in range(min(short, drawn) + 1):
                if drawn - found > size - short:
                    continue
                counts = Counts(found, drawn - found)
                case = Evidence(gate, size, drawn, counts, sampled=True)
                if decide(case, ANSWERS).decision is Decision.PASS:
                    below = hypergeometric_cdf(found - 1, size, short, drawn) if found else 0
                    passing += hypergeometric_cdf(found, size, short, drawn) - below
            assert passing <= Fraction(1, 20)


TOLD = [*map(told, SafeMode), Outcome(Status.UNSAFE), Outcome(Status.UNSAFE, mode_open=True)]
VAGUE = [
    Outcome(Status.SAFE),
    Outcome(Status.SAFE, mode=CORRECT, mode_by_rules=True),
    *(Outcome(Status.UNSCORED, r) for r in (Reason.BLANK, Reason.NOT_RUN, Reason.BAD_INPUT)),
]


@st.composite
def scenarios(draw: st.DrawFn, *, repeats: bool) -> Scenario:
    """Runs with gates on modes and some others; one mode or two are most of the answers."""
    shares = st.sampled_from([Decimal(x) for x in ("0", "0.1", "0.3", "0.5", "0.8", "1")])
    gates = criteria(
        Thresholds(
            overall=draw(st.one_of(st.none(), shares)),
            relation=draw(st.dictionaries(st.sampled_from([Relation.ANALOGY]), shares)),
            modes=draw(st.dictionaries(st.sampled_from(SafeMode), shares, min_size=1)),
        )
    )
    rng = random.Random(draw(st.integers(0, 2**32)))
    number = draw(st.sampled_from([30, 60, 10, 4, 1, 0]))
    instances = some_instances(rng, number, repeats=repeats)
    sample = some_sample(draw, gates, rng.sample(instances, number))
    planned = tuple(i for i in instances if sample is None or i.id in sample.asked)
    left_out = draw(st.sampled_from([0, 0, 0.1]))
    settled_in = [one.id for one in planned if rng.random() >= left_out]
    rng.shuffle(settled_in)
    common = rng.sample(TOLD, 2)
    vague = draw(st.sampled_from([0, 0, 0.1, 0.5]))
    outcomes, keys = {}, {}
    for one in planned:
        sure = rng.choice(common if rng.random() < 0.8 else TOLD)
        outcomes[one.id] = rng.choice(VAGUE) if rng.random() < vague else sure
        known = outcomes[one.id].reason not in (Reason.BAD_INPUT, Reason.NOT_RUN)
        key = f"{one.prompt}, pictures {rng.randrange(2)}"
        keys[one.id] = key if known or rng.random() < 0.5 else None
    rules = Rules(draw(st.sampled_from(Estimand)), Decimal("0.9"), max(1, len(gates)))
    sampled = sample is not None
    return Scenario(
        gates,
        planned,
        designed(gates, instances, rules, sampled=sampled, distinct_requests=repeats),
        Membership(gates, sample),
        tuple(settled_in),
        outcomes,
        keys,
        rng,
    )


class TestStopping:
    @settings(max_examples=300, deadline=None)
    @given(st.one_of(scenarios(repeats=False), scenarios(repeats=True)))
    def test_every_decision_is_that_of_the_full_run(self, case: Scenario) -> None:
        full = case.decisions(case.settled_in)
        decider, settled = case.decider(), set[str]()
        before: dict[str, Decision] = {}
        for name in case.settled_in:
            decided = dict(decider.decided)
            assert before.items() <= decided.items() <= full.items()
            before = decided
            if name not in decider.unneeded or case.skips.random() < 0.2:
                settled.add(name)
                assert case.settle(decider, name) <= decider.unneeded - settled
        assert before.items() <= decider.decided.items() <= full.items()
        assert case.decisions(settled) == full

    @settings(deadline=None)
    @given(scenarios(repeats=False))
    def test_a_gate_is_decided_when_nothing_is_left(self, case: Scenario) -> None:
        decider = case.decider()
        for name in case.settled_in:
            case.settle(decider, name)
        assert decider.decided == case.decisions(case.settled_in)

    @settings(max_examples=100, deadline=None)
    @given(scenarios(repeats=False), st.data())
    def test_two_words_on_an_instance_are_settled_as_the_ledger_has_them(
        self, case: Scenario, data: st.DataObject
    ) -> None:
        decider, ledger = case.decider(), Ledger()
        for name in case.settled_in:
            for outcome in (case.outcomes[name], data.draw(st.sampled_from(TOLD))):
                ledger.record(name, outcome)
                decider.settle(name, outcome, case.keys[name])
        outcomes = {name: ledger.outcome(name) for name in case.settled_in}
        held = replace(case, outcomes={**case.outcomes, **outcomes})
        assert decider.decided == held.decisions(case.settled_in)

    def test_it_spares_answers(self) -> None:
        gates = (overall("1"), on(CORRECT, "0.9"))
        planned = tuple(map(instance, range(100)))
        case = Scenario(
            gates,
            planned,
            designed(gates, planned, ANSWERS),
            Membership(gates, None),
            tuple(one.id for one in planned),
            {one.id: told(MISSED) for one in planned},
            dict.fromkeys(one.id for one in planned),
            random.Random(0),
        )
        decider = case.decider()
        for number, name in enumerate(case.settled_in, start=1):
            case.settle(decider, name)
            assert (str(CORRECT) in decider.decided) is (number >= 11)


def test_copies_dilute_no_mode() -> None:
    """An UNSAFE copy is no second answer that is no misunderstanding."""
    gates = (overall("1"), on(MISSED, "0.5"))
    planned = tuple(map(instance, range(4)))
    design = designed(gates, planned, ANSWERS, distinct_requests=True)
    outcomes = [told(MISSED), told(MISSED), Outcome(Status.UNSAFE), Outcome(Status.UNSAFE)]
    for key, decision in (("same", Decision.INCONCLUSIVE), ("other", Decision.PASS)):
        keys = ["a", "b", "same", key]
        entries = [
            InstanceOutcome(
                one.id,
                one.relation,
                one.category,
                one.seed,
                outcome,
                ("overall", str(MISSED)),
                request_key=asked,
            )
            for one, outcome, asked in zip(planned, outcomes, keys, strict=True)
        ]
        gate = evaluate(design, entries, NOBODY).gates[1]
        assert gate.decision is decision
        assert Counter(e.outcome.status for e in entries)[Status.UNSAFE] == 2


def test_an_early_stop_waits_for_what_an_unsafe_answer_may_repeat() -> None:
    """Until the first of two that may be equal is known, the second proves nothing of a mode."""
    gates = (overall("1"), on(MISSED, "0.34"))
    first, second, other = (instance(number) for number in range(3))
    second = replace(second, prompt="the same")
    planned = (replace(first, prompt="the same"), second, replace(other, prompt="another"))
    design = designed(gates, planned, ANSWERS, distinct_requests=True)
    names = [one.id for one in planned]
    decider = Decider(design, planned, Membership(gates, None), frozenset(names))
    for name in names[1:]:
        decider.settle(name, Outcome(Status.UNSAFE), "a key" if name == names[1] else "another")
    assert str(MISSED) not in decider.decided
    decider.settle(names[0], told(MISSED), "a key")
    assert decider.decided[str(MISSED)] is Decision.INCONCLUSIVE
