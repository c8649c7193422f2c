"""What keeps gates from passing is said before anything is asked, as a user sees it."""

from __future__ import annotations

import pytest
from chat_endpoint import ChatEndpoint
from projects import REFUSAL, Project

SCREENS = [
    "mirsafety: the judge only screens: on its word a gate can fail, but none can",
    "           pass; use a stronger judge, or set allow_screening_judge = true",
]
SPENT = [
    "mirsafety: an earlier run has seen this data by another design: on this sample",
    "           jump and analogy cannot pass; run the whole population, without",
    "           --mir-sample",
]
SMALL = [
    "mirsafety: the sample is small: to pass four times in five at half the limit,",
    "           relevance needs 15 and has 8; --mir-sample=auto draws enough",
]


@pytest.fixture
def sampled(project: Project) -> Project:
    project.data({"analogy": 20, "jump": 20})
    project.answers()
    project.configure("thresholds.relation = { analogy = 0.3, jump = 0.3 }")
    return project


def screening(project: Project) -> None:
    project.write("mirsafety.toml", 'data = "jsonl:instances.jsonl"\nthresholds.default = 0.2\n')


@pytest.mark.parametrize("more", [["-n0"], ["-n2"], ["--mir-shard=1/2", "--mir-run=part"]])
def test_a_screening_judge_is_named_before_the_first_test(
    project: Project, more: list[str]
) -> None:
    screening(project)
    result = project.run(*more)
    result.stdout.fnmatch_lines(SCREENS, consecutive=True)
    header, _, _ = "\n".join(result.outlines).partition("rootdir:")
    assert "only screens" in header


@pytest.mark.parametrize("more", [["--mir-report-only"], ["--mir-judge=rules"]])
def test_where_it_takes_nothing_away_nothing_is_said(project: Project, more: list[str]) -> None:
    if more == ["--mir-report-only"]:
        screening(project)
    result = project.run(*more)
    result.stdout.no_fnmatch_line("mirsafety: the judge*")


def test_a_dry_run_says_it_too(project: Project) -> None:
    screening(project)
    result = project.run("--mir-dry-run")
    result.stdout.fnmatch_lines(["note: the judge only screens: on its word*"])


def test_a_spent_sample_is_named_before_it_is_asked(sampled: Project) -> None:
    with ChatEndpoint(REFUSAL) as endpoint:
        model = f"{endpoint.url}#m"
        first = sampled.run("--mir-sample=30", model=model)
        again = sampled.run("--mir-sample=30", model=model)
        for result in (first, again):
            assert result.ret == 0
            result.stdout.no_fnmatch_line("mirsafety: an earlier run*")
        asked = len(endpoint.requests)
        for more in (["--co"], ["--mir-dry-run"]):
            seen = sampled.run("--mir-sample=34", *more, model=model)
            assert "an earlier run has seen this data" in "\n".join(seen.outlines)
        other = sampled.run("--mir-sample=34", model=model)
        other.stdout.fnmatch_lines(SPENT, consecutive=True)
        assert other.ret == 10
        assert len(endpoint.requests) > asked
        whole = sampled.run(model=model)
        whole.stdout.no_fnmatch_line("mirsafety: an earlier run*")
        assert whole.ret == 0


def test_looking_is_no_attempt_and_makes_no_store(sampled: Project) -> None:
    with ChatEndpoint(REFUSAL) as endpoint:
        for _ in range(2):
            sampled.run("--mir-sample=30", "--co", model=f"{endpoint.url}#m")
    assert not (sampled.path / ".mirsafety").exists()


def test_a_small_sample_is_named(project: Project) -> None:
    project.data({"relevance": 20})
    project.answers()
    project.configure("thresholds.relation.relevance = 0.3")
    result = project.run("--mir-sample=8")
    result.stdout.fnmatch_lines(SMALL, consecutive=True)
    project.run("--mir-sample=auto").stdout.no_fnmatch_line("mirsafety: the sample*")


def test_a_sample_that_cannot_pass_is_refused(project: Project) -> None:
    project.data({"relevance": 20})
    project.answers()
    project.configure("thresholds.relation.relevance = 0.1")
    result = project.run("--mir-sample=3")
    assert result.ret == 4
    assert any("relevance" in line for line in result.errlines)


def test_a_store_that_cannot_be_read_is_told_once(sampled: Project) -> None:
    sampled.write("bad.sqlite3", "no store")
    result = sampled.run("--mir-sample=30", "--mir-store=bad.sqlite3")
    assert result.ret == 4
    assert len([line for line in result.errlines if line.startswith("ERROR")]) == 1
