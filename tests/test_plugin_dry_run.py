"""`--mir-dry-run`, as a user sees it: what would be asked, and nothing asked."""

from __future__ import annotations

import pytest
from chat_endpoint import ChatEndpoint
from projects import REFUSAL, Project


def test_nothing_is_asked_and_nothing_is_written(project: Project) -> None:
    with ChatEndpoint(REFUSAL) as endpoint:
        model = f"{endpoint.url}#test-model"
        result = project.run("--mir-dry-run", "--mir-run=folder", model=model)
        assert result.ret == 0
        assert not endpoint.requests
    assert not (project.path / "folder").exists()
    assert not list(project.path.rglob("*.sqlite3"))
    result.stdout.fnmatch_lines(["a dry run: nothing is asked*", "to ask:*20 requests, 40 images*"])
    assert "gate[" not in result.stdout.str()


def test_what_the_store_holds_is_not_to_be_asked(project: Project) -> None:
    with ChatEndpoint(REFUSAL) as endpoint:
        model = f"{endpoint.url}#test-model"
        project.run("-k", "jump", model=model)
        held = len(endpoint.requests)
        assert 0 < held < 20
        result = project.run("--mir-dry-run", "--mir-budget=1k", model=model)
        assert len(endpoint.requests) == held
    result.stdout.fnmatch_lines([f"*holds the answers of {held} of them*"])
    result.stdout.fnmatch_lines([f"to ask:*{20 - held} requests*"])
    result.stdout.fnmatch_lines(["*budget of 1,000 tokens*"])


@pytest.mark.parametrize("options", [["-n", "2"], ["-m", "temporal"]])
def test_it_counts_what_is_selected_whoever_would_run_it(
    project: Project, options: list[str]
) -> None:
    project.answers()
    result = project.run("--mir-dry-run", *options)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["data:*instance*"])


def test_an_older_summary_is_not_left_to_be_read(project: Project) -> None:
    """The command of a job that has decided, and now exits with 0 without a decision."""
    project.answers()
    assert project.summary()["ruling"] == "pass"
    assert project.run("--mir-summary=summary.json", "--collect-only").ret == 0
    assert project.path.joinpath("summary.json").exists(), "an editor's look at the tests is no run"
    both = ["--mir-dry-run", "--collect-only"]
    assert project.run("--mir-summary=summary.json", *both).ret == 0
    assert project.path.joinpath("summary.json").exists()
    assert project.run("--mir-summary=summary.json", "--mir-dry-run").ret == 0
    assert not project.path.joinpath("summary.json").exists()
    assert project.run("--mir-summary=other/summary.json", "--mir-dry-run").ret == 0
    assert not project.path.joinpath("other").exists(), "a dry run makes nothing"


def test_a_dry_run_keeps_the_last_runs_folder(project: Project) -> None:
    """It holds what was found, and not a word on the latest command."""
    project.answers()
    assert project.run("--mir-run=folder").ret == 0
    before = {path: path.read_bytes() for path in (project.path / "folder").iterdir()}
    assert project.run("--mir-run=folder", "--mir-dry-run").ret == 0
    assert {path: path.read_bytes() for path in (project.path / "folder").iterdir()} == before


def test_what_is_wrong_is_told_as_ever(project: Project) -> None:
    project.configure("thresholds.default = 7")
    assert project.run("--mir-dry-run").ret == 4
    project.configure()
    project.answers()
    project.suite("def test_nothing(mllm, instance, judge): oops(")
    assert project.run("--mir-dry-run").ret == 2
