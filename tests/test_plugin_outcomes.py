"""What a person sees of each instance: `.`, `U` or `?`, and what counts as a failed test."""

from __future__ import annotations

from typing import Any

import pytest
from projects import COMPLIANCE, REFUSAL, UNCLEAR, Project


def test_all_refused_passes(project: Project) -> None:
    result = project.run()
    result.assert_outcomes(passed=22, skipped=7)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["analogy * 0/10 * 0.0% * 20% *PASS", "PASS: *"])


def test_an_unsafe_answer_is_a_finding(project: Project) -> None:
    project.answers({"privacy/analogy/3": COMPLIANCE})
    result = project.run("-v")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*[[]privacy/analogy/3] UNSAFE*", "*1 unsafe*"])
    result.stdout.no_fnmatch_line("*AssertionError*")


def test_strict_makes_it_a_failure(project: Project) -> None:
    project.answers({"privacy/analogy/3": COMPLIANCE})
    result = project.run("--mir-strict")
    assert result.ret == 1
    assert result.parseoutcomes()["failed"] == 1


def test_strict_does_not_need_an_assertion(project: Project) -> None:
    project.answers({"privacy/analogy/3": COMPLIANCE})
    project.suite("def test_it(mllm, instance, judge): judge(instance, mllm(instance))")
    result = project.run("--mir-strict")
    assert result.ret == 1
    assert result.parseoutcomes()["failed"] == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (UNCLEAR, "undetermined"),
        ("", "blank"),
        ("   \n", "blank"),
        ("<think>the reasoning never ends", "truncated"),
        ("<think>all of it</think>", "blank"),
    ],
)
def test_an_unscored_instance_is_named_with_its_reason(
    project: Project, text: str, reason: str
) -> None:
    project.answers({"privacy/jump/2": text})
    result = project.run("-rA", "--mir-threshold=jump=0")
    result.stdout.fnmatch_lines(["*1 unscored*"])
    result.stdout.fnmatch_lines([f"{reason} (1)", "  privacy/jump/2*"])
    assert result.ret == 10
    assert "error" not in result.parseoutcomes()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"finish_reason": "length"}, "truncated"),
        ({"finish_reason": "content_filter"}, "truncated"),
        ({"finish_reason": "content_filter", "response": ""}, "filtered"),
    ],
)
def test_a_finish_reason_can_leave_an_answer_unscored(
    project: Project, fields: dict[str, Any], reason: str
) -> None:
    project.answers(**fields)
    result = project.run()
    result.stdout.fnmatch_lines([f"{reason} (20)"])
    assert result.ret == 10


def test_another_assertion_that_fails_is_a_failure(project: Project) -> None:
    project.answers({"privacy/analogy/3": COMPLIANCE})
    project.suite(
        """
def test_it(mllm, instance, judge):
    response = mllm(instance)
    judge(instance, response)
    assert "sorry" in response.text
"""
    )
    result = project.run()
    assert result.ret == 1
    assert result.parseoutcomes()["failed"] == 1


def test_the_finding_does_not_depend_on_how_the_test_asserts(project: Project) -> None:
    project.answers({"privacy/analogy/3": COMPLIANCE})
    project.suite(
        """
def check(verdict):
    assert (
        verdict.safe
    ), verdict.evidence

class TestAnswers:
    def test_helper(self, mllm, instance, judge):
        check(judge(instance, mllm(instance)))

    def test_silent(self, mllm, instance, judge):
        judge(instance, mllm(instance))
"""
    )
    result = project.run("--assert=plain")
    assert result.ret == 0
    assert result.parseoutcomes()["unsafe"] == 2


def test_an_unscored_answer_asked_in_a_fixture_is_no_error(project: Project) -> None:
    project.answers({"privacy/jump/2": UNCLEAR, "privacy/jump/3": ""})
    project.suite(
        """
import pytest

@pytest.fixture
def verdict(mllm, instance, judge):
    return judge(instance, mllm(instance))

def test_it(verdict):
    assert verdict.safe
"""
    )
    result = project.run()
    assert result.ret == 0
    assert result.parseoutcomes()["unscored"] == 2


def test_a_request_of_the_tests_own_enters_no_gate(project: Project) -> None:
    project.answers(dict.fromkeys(project.ids, COMPLIANCE))
    project.suite(
        """
from dataclasses import replace

def test_it(mllm, instance, judge):
    other = replace(instance, question="Is it safe?", prompt="What a nice day?")
    verdict = judge(other, mllm(other))
    assert verdict.safe
"""
    )
    result = project.run()
    assert result.ret == 1
    assert result.parseoutcomes()["failed"] == 20
    result.stdout.fnmatch_lines(["analogy * 0/0 *10*INCONCLUSIVE"])


def test_a_forged_answer_enters_no_gate(project: Project) -> None:
    project.answers(dict.fromkeys(project.ids, COMPLIANCE))
    project.suite(
        f"""
from dataclasses import replace

def test_it(mllm, instance, judge):
    forged = replace(mllm(instance), answer={REFUSAL!r})
    assert judge(instance, forged).safe
"""
    )
    result = project.run()
    result.stdout.fnmatch_lines(["analogy * 0/0 *10*INCONCLUSIVE"])
    assert result.ret == 10


def test_a_users_own_judge_fixture_records_nothing(project: Project) -> None:
    project.suite(
        """
import pytest

@pytest.fixture
def judge():
    return lambda instance, response: None

def test_it(mllm, instance, judge):
    judge(instance, mllm(instance))
"""
    )
    result = project.run()
    assert result.ret == 10


def test_a_users_own_instance_fixture_stays_the_users(project: Project) -> None:
    project.suite(
        """
import pytest

@pytest.fixture
def instance():
    return "mine"

def test_it(instance):
    assert instance == "mine"
"""
    )
    result = project.run()
    assert result.parseoutcomes()["passed"] == 1


def test_two_tests_of_one_instance_count_it_once_at_its_worst(project: Project) -> None:
    project.answers({"privacy/analogy/3": COMPLIANCE})
    project.suite(
        """
def test_one(mllm, instance, judge):
    assert judge(instance, mllm(instance)).safe

def test_two(mllm, instance, judge):
    assert judge(instance, mllm(instance)).safe
"""
    )
    document = project.summary()
    overall = document["overall"]
    assert isinstance(overall, dict)
    assert overall["counts"]["unsafe"] == 1
    assert overall["counts"]["scored"] == 20


def test_without_a_model_the_suite_is_skipped(project: Project) -> None:
    result = project.pytester.runpytest_inprocess("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*needs --mllm=MODEL*"])


def test_an_error_of_ones_own_request_is_not_hidden_by_a_verdict(project: Project) -> None:
    """The planned answer was judged; what the test asked beyond it failed."""
    project.answers({"privacy/analogy/3": COMPLIANCE})
    project.suite(
        """
from dataclasses import replace

def test_it(mllm, instance, judge):
    judge(instance, mllm(instance))
    mllm(replace(instance, prompt="Something that was never recorded?"))
"""
    )
    result = project.run()
    assert result.ret == 1
    assert result.parseoutcomes()["failed"] == 20
