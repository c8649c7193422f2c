"""From a ledger to an exit code."""

from __future__ import annotations

import subprocess
import sys

import pytest
from gate_evidence import analogy, evidence, instance, overall

from pytest_mirsafety.gates import (
    Decision,
    Estimand,
    Evidence,
    GateResult,
    Rules,
    decide,
    exit_code,
    gather,
)
from pytest_mirsafety.records import Outcome
from pytest_mirsafety.tally import Counts, Ledger
from pytest_mirsafety.taxonomy import Reason, Relation, Status

ANSWERS = Rules(Estimand.ANSWERS)
SAFE, UNSAFE = Outcome(Status.SAFE), Outcome(Status.UNSAFE)


def result(decision: Decision) -> GateResult:
    found = {
        Decision.PASS: evidence(analogy(), 10, 0),
        Decision.FAIL: evidence(analogy(), 0, 10),
        Decision.INCONCLUSIVE: evidence(analogy(), 5, 0, {Reason.BLANK: 5}),
        Decision.NOT_EVALUATED: evidence(analogy(), 0, 0, not_selected=10),
    }
    made = decide(found[decision], ANSWERS)
    assert made.decision is decision
    return made


class TestExitCode:
    @pytest.mark.parametrize(
        ("decisions", "code", "code_if_all_required"),
        [
            ("pass", 0, 0),
            ("pass,pass", 0, 0),
            ("pass,not evaluated", 0, 10),
            ("not evaluated", 10, 10),
            ("", 10, 10),
            ("pass,inconclusive", 10, 10),
            ("inconclusive,fail", 1, 1),
            ("fail", 1, 1),
            ("pass,fail,not evaluated", 1, 1),
        ],
    )
    def test_of_the_gates(self, decisions: str, code: int, code_if_all_required: int) -> None:
        results = [result(Decision(name)) for name in decisions.split(",") if name]
        for require_all, expected in ((False, code), (True, code_if_all_required)):
            assert exit_code(results, require_all=require_all, tests_failed=False) == expected
            assert exit_code(results, require_all=require_all, tests_failed=True) == 1


class TestGather:
    POPULATION = tuple(
        instance(n, relation, question=f"seed {n // 2}")
        for relation in (Relation.ANALOGY, Relation.JUMP)
        for n in range(6)
    )
    IDS = tuple(i.id for i in POPULATION)

    def ledger(self) -> Ledger:
        made = Ledger()
        for name in self.IDS:
            made.record(name, SAFE)
        made.record(self.IDS[0], UNSAFE)
        return made

    def test_takes_the_gates_own_instances(self) -> None:
        found = gather(analogy(), self.POPULATION, self.ledger(), self.IDS)
        assert found == Evidence(analogy(), 6, 6, Counts(5, 1))
        assert gather(overall(), self.POPULATION, self.ledger(), self.IDS).population == 12

    def test_what_was_not_selected_is_not_run_whatever_the_ledger_says(self) -> None:
        found = gather(analogy(), self.POPULATION, self.ledger(), self.IDS[1:5])
        assert found == Evidence(analogy(), 6, 4, Counts(4, 0, {Reason.NOT_RUN: 2}))

    def test_what_was_never_recorded_is_not_run(self) -> None:
        found = gather(analogy(), self.POPULATION, Ledger(), self.IDS)
        assert found.counts == Counts(unscored={Reason.NOT_RUN: 6})

    def test_a_sample_shrinks_what_is_planned_not_the_population(self) -> None:
        sample = {*self.IDS[:3], *self.IDS[6:]}
        found = gather(analogy(), self.POPULATION, self.ledger(), self.IDS, sample=sample)
        assert found == Evidence(analogy(), 6, 3, Counts(2, 1), sampled=True)

    def test_clusters_are_seed_questions(self) -> None:
        found = gather(analogy(), self.POPULATION, self.ledger(), self.IDS, clustered=True)
        assert found.clusters == (2, 2, 2)
        sample = set(self.IDS[:3])
        found = gather(
            analogy(), self.POPULATION, self.ledger(), self.IDS, sample=sample, clustered=True
        )
        assert found.clusters == (2, 1)


def test_a_whole_run_of_answers_never_imports_scipy() -> None:
    program = """
import sys
from decimal import Decimal
from pytest_mirsafety.gates import *
from pytest_mirsafety.sampling import size_for_power
from pytest_mirsafety.tally import Counts
gate = Criterion(Scope.OVERALL, "overall", Decimal("0.1"))
rules = Rules(Estimand.ANSWERS)
for population in (318, 600):
    found = Evidence(gate, population, 318, Counts(300, 18), sampled=population > 318)
    assert decide(found, rules).decision == "pass"
size_for_power(gate.threshold, 318, rules)
assert not [name for name in sys.modules if name.split(".")[0] in ("scipy", "numpy")]
"""
    subprocess.run([sys.executable, "-c", program], check=True)
