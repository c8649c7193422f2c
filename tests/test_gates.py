"""From a ledger to an exit code."""

from __future__ import annotations

import subprocess
import sys

import pytest
from gate_evidence import analogy, evidence

from pytest_mirsafety.gates import (
    Decision,
    Estimand,
    GateResult,
    Rules,
    decide,
    exit_code,
)
from pytest_mirsafety.taxonomy import Reason

ANSWERS = Rules(Estimand.ANSWERS)


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
