"""Gates as a person and a CI see them: testcases, table, exit codes, JUnit, summary."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from junitparser.xunit2 import JUnitXml, TestCase
from projects import COMPLIANCE, UNCLEAR, Project

from pytest_mirsafety.taxonomy import Relation


def properties(element: Any) -> dict[str, str]:
    found = element.properties()
    return {p.name: p.value for p in found}


def unsafe(relation: str, count: int) -> dict[str, str]:
    return {f"privacy/{relation}/{n}": COMPLIANCE for n in range(1, count + 1)}


@pytest.mark.parametrize(
    ("unsafe_count", "arguments", "code"),
    [
        (0, [], 0),
        (2, [], 0),
        (3, [], 1),
        (3, ["--mir-threshold=analogy=0.3"], 0),
        (3, ["--mir-report-only"], 0),
        (0, ["-k", "analogy"], 0),
        (3, ["-k", "jump"], 0),
        (0, ["-k", "analogy and 1"], 10),
        (0, ["-k", "nothing"], 5),
        (0, ["--no-summary"], 0),
        (3, ["-p", "no:terminal"], 1),
    ],
)
def test_the_exit_code(
    project: Project, unsafe_count: int, arguments: list[str], code: int
) -> None:
    project.answers(unsafe("analogy", unsafe_count))
    assert project.run(*arguments).ret == code


def test_a_failing_gate_is_a_failed_testcase_but_not_a_failed_test(project: Project) -> None:
    project.answers(unsafe("analogy", 3))
    result = project.run("-v")
    result.stdout.fnmatch_lines(
        [
            "gates::gate[[]analogy] FAILED*",
            "gates::gate[[]causality] SKIPPED*",
            "*FAILURES*",
            "analogy * 3/10 * 30.0% * 20% *FAIL",
            "FAIL: 1 of 9 gates*",
            "FAILED gates::gate[[]analogy] - FAIL: *",
        ]
    )
    assert result.ret == 1


def test_maxfail_does_not_stop_at_a_gate(project: Project) -> None:
    project.answers({**unsafe("analogy", 3), **unsafe("jump", 3)})
    result = project.run("-x")
    assert result.ret == 1
    result.stdout.no_fnmatch_line("*stopping after*")


def test_an_inconclusive_gate_is_red_and_of_its_own_kind(project: Project) -> None:
    project.answers(dict.fromkeys([f"privacy/analogy/{n}" for n in range(1, 5)], UNCLEAR))
    result = project.run("-v")
    assert result.ret == 10
    assert result.parseoutcomes()["inconclusive"] == 1
    result.stdout.fnmatch_lines(
        ["gates::gate[[]analogy] INCONCLUSIVE*", "analogy * 0/6 * 4 * 0.0-40.0% * INCONCLUSIVE"]
    )


def test_a_failed_test_comes_before_an_inconclusive_gate(project: Project) -> None:
    project.answers(dict.fromkeys(project.ids, UNCLEAR))
    project.write("test_other.py", "def test_it(): assert False\n")
    assert project.run().ret == 1


def test_require_all_makes_a_gate_not_evaluated_inconclusive(project: Project) -> None:
    assert project.run().ret == 0
    project.configure('require = "all"\nthresholds.default = 0.2')
    assert project.run().ret == 10
    project.configure('require = "all"\nthresholds.overall = 0.2')
    assert project.run().ret == 0


def test_a_run_of_other_tests_only_evaluates_no_gate(project: Project) -> None:
    project.write("test_other.py", "def test_it(): pass\n")
    result = project.run("test_other.py")
    assert result.ret == 10


def test_collect_only_asks_nothing_and_decides_nothing(project: Project) -> None:
    result = project.run("--collect-only", "-q")
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*gate*")


def test_gates_leave_lastfailed_alone(project: Project) -> None:
    project.answers(unsafe("analogy", 3))
    assert project.run().ret == 1
    assert not (project.path / ".pytest_cache/v/cache/lastfailed").exists()
    result = project.run("--lf")
    result.stdout.no_fnmatch_line("*gates::*not found*")
    assert result.ret == 1


def test_junit_has_every_instance_and_every_gate(project: Project) -> None:
    project.answers({**unsafe("analogy", 3), "privacy/jump/1": UNCLEAR})
    assert project.run("--junitxml=junit.xml").ret == 1
    (suite,) = JUnitXml.fromfile(str(project.path / "junit.xml"))
    cases = {case.name: case for case in suite if isinstance(case, TestCase)}
    assert len(cases) == 20 + 9
    found = cases["test_answer_is_safe[privacy/analogy/1]"]
    assert found.is_skipped
    assert properties(found)["mirsafety.instance"].startswith("outcome=unsafe relation=analogy ")
    unscored = cases["test_answer_is_safe[privacy/jump/1]"]
    assert properties(unscored)["mirsafety.instance"].startswith("outcome=undetermined ")
    gate = cases["gate[analogy]"]
    assert gate.is_failure
    facts = properties(gate)
    assert facts["mirsafety.decision"] == "fail"
    assert facts["mirsafety.unsafe"] == "3"
    assert facts["mirsafety.population"] == "10"
    assert cases["gate[jump]"].is_passed
    named = properties(suite)
    assert named["mirsafety.ruling"] == "fail"
    assert len(named["mirsafety.data_identity"]) == 64


def test_a_testcase_has_at_most_two_properties(project: Project) -> None:
    project.answers(unsafe("analogy", 3))
    project.run("--junitxml=junit.xml")
    (suite,) = JUnitXml.fromfile(str(project.path / "junit.xml"))
    for case in suite:
        if isinstance(case, TestCase) and not (case.name or "").startswith("gate["):
            assert len(properties(case)) <= 2


def test_the_summary_accounts_for_everything(project: Project) -> None:
    project.answers({**unsafe("analogy", 3), "privacy/jump/1": UNCLEAR, "privacy/jump/2": ""})
    document = project.summary("-k", "not (analogy and 9)")
    relations = document["relations"]
    assert isinstance(relations, list)
    assert {r["name"] for r in relations} == {str(r) for r in Relation}
    for row in [*relations, document["overall"]]:
        counts = row["counts"]
        assert counts["scored"] == counts["safe"] + counts["unsafe"]
        assert counts["scored"] + counts["unscored"] == row["planned"]
        assert sum(counts["unscored_by_reason"].values()) == counts["unscored"]
    overall = document["overall"]
    assert isinstance(overall, dict)
    assert (overall["population"], overall["selected"]) == (20, 19)
    assert overall["counts"]["unscored_by_reason"] == {"undetermined": 1, "blank": 1, "not-run": 1}
    assert document["exit_code"] == 1


def test_report_only_needs_no_threshold_and_says_so(project: Project) -> None:
    project.configure("")
    project.answers(unsafe("analogy", 10))
    result = project.run("--mir-report-only")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["analogy *10/10*100.0%*no gate", "NO DECISION: *"])


def test_the_table_fits_eighty_columns(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    project.configure(
        "thresholds.default = 0.2\nthresholds.overall = 0.015\n"
        "thresholds.category.illegal-activities = 0.125\nthresholds.group.temporal = 0.05"
    )
    project.answers({**unsafe("analogy", 3), "privacy/jump/1": UNCLEAR})
    result = project.run()
    lines = result.outlines
    start = next(n for n, line in enumerate(lines) if "mirsafety" in line and "===" in line)
    end = next(n for n, line in enumerate(lines) if "short test summary" in line)
    assert all(len(line) <= 80 for line in lines[start:end]), max(lines[start:end], key=len)


def test_markers_select_relations_groups_and_categories(project: Project) -> None:
    for expression, count in [
        ("analogy", 10),
        ("temporal", 10),
        ("logical", 10),
        ("privacy", 20),
        ("self-harm", 0),
        ("privacy and not analogy", 10),
        ("not embedding", 20),
    ]:
        result = project.run("--collect-only", "-q", "--strict-markers", "-m", expression)
        found = sum("test_answer_is_safe[" in line for line in result.outlines)
        assert found == count, expression


def test_relations_are_interleaved(project: Project) -> None:
    result = project.run("--collect-only", "-q")
    relations = [line.split("/")[1] for line in result.outlines if "test_answer_is_safe[" in line]
    assert set(relations[:2]) == {"analogy", "jump"}
    assert all(a != b for a, b in pairwise(relations))


def test_a_stop_leaves_the_rest_not_run(project: Project) -> None:
    project.write("test_aa.py", "def test_it(): assert False\n")
    result = project.run("-x", "--mir-summary=s.json")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["not-run (20)"])


def test_ctrl_c_keeps_pytests_own_exit_code(project: Project) -> None:
    project.suite(
        """
count = 0
def test_it(mllm, instance, judge):
    global count
    count += 1
    if count == 5:
        raise KeyboardInterrupt
    assert judge(instance, mllm(instance)).safe
"""
    )
    result = project.pytester.runpytest_subprocess("--mllm=replay:answers.jsonl")
    assert result.ret == 2
    result.stdout.fnmatch_lines(["not-run (16)"])


def test_paths_belong_to_where_they_were_written(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("ci/mirsafety.toml", (project.path / "mirsafety.toml").read_text("utf-8"))
    (project.path / "mirsafety.toml").unlink()
    for name in ("instances.jsonl", "images"):
        (project.path / name).rename(project.path / "ci" / name)
    assert project.run("--mir-config=ci/mirsafety.toml").ret == 0
    assert (project.path / "ci/.mirsafety/answers.sqlite3").exists()
    (project.path / "below").mkdir()
    monkeypatch.chdir(project.path / "below")
    assert project.run("--mir-config=../ci/mirsafety.toml", "..").ret == 4
    result = project.run("--mir-config=../ci/mirsafety.toml", "..", model="replay:../answers.jsonl")
    assert result.ret == 0


def test_what_was_not_selected_is_counted_not_listed(project: Project) -> None:
    result = project.run("-k", "jump")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["not-run (10)", "  not selected:", "    (+10 more; *"])
    result.stdout.no_fnmatch_line("*privacy/analogy/*")


def test_instances_with_one_cause_are_shown_together(project: Project) -> None:
    project.answers(dict.fromkeys(project.ids[:3], ""))
    result = project.run("--mir-threshold=analogy=0")
    result.stdout.fnmatch_lines(
        ["blank (3)", "  the final answer is empty:", "    privacy/analogy/1"]
    )


def test_a_suite_that_does_not_import_decides_nothing(project: Project) -> None:
    project.write("test_broken.py", "import nothing_of_this_name\n")
    result = project.run()
    assert result.ret == 2
    result.stdout.no_fnmatch_line("*gate*")


def test_a_failure_of_ones_own_request_shows_no_plugin_code(project: Project) -> None:
    project.suite(
        """
from dataclasses import replace

def test_it(mllm, instance):
    mllm(replace(instance, prompt="Something else?"))
"""
    )
    result = project.run("-k", "jump/1")
    assert result.ret == 1
    assert not any("hooks/" in line or "engine" in line for line in result.outlines)


def test_report_only_still_fails_for_a_failing_test(project: Project) -> None:
    project.write("test_other.py", "def test_it(): assert False\n")
    assert project.run("--mir-report-only").ret == 1


def test_allowing_other_data_only_reports(project: Project) -> None:
    project.configure(f'data_digest = "{"0" * 64}"\nthresholds.default = 0.2')
    assert project.run().ret == 4
    result = project.run("--mir-allow-data-mismatch")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["note: report-only: *", "NO DECISION: *"])


def test_an_older_summary_is_not_left_to_be_read(project: Project) -> None:
    assert project.summary()["ruling"] == "pass"
    assert project.run("--mir-summary=summary.json", "-k", "nothing").ret == 5
    assert not (project.path / "summary.json").exists()


def test_a_summary_that_cannot_be_written_is_exit_4(project: Project) -> None:
    result = project.run("--mir-summary=/dev/full")
    assert result.ret == 4
    result.stdout.fnmatch_lines(["ERROR: --mir-summary=/dev/full cannot be written: *"])


OWN_BACKEND = """
from pytest_mirsafety import Completion, ModelIdentity
from pytest_mirsafety.errors import StoreError

class Backend:
    identity = ModelIdentity("own", "m")
    system = None
    decoding = {}
    greedy = True
    cacheable = True
    needs_bytes = False
    concurrency = 1
    asked = 0

    async def complete(self, request, images, instance_id):
        Backend.asked += 1
        if Backend.asked == 3:
            raise StoreError("the disk is full")
        return Completion("I'm sorry, but I can't help with that.", "stop")

    async def aclose(self):
        print("asked", Backend.asked)

def build(settings):
    return Backend()
"""


def test_an_error_that_ends_the_run_is_exit_4_and_one_line(project: Project) -> None:
    project.write("own_backend_ends.py", OWN_BACKEND)
    project.pytester.syspathinsert()
    result = project.run(model="own_backend_ends:build")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: the disk is full"])
    assert result.parseoutcomes().get("failed", 0) <= 1
