"""GitHub Actions: annotations, the step summary, and that no string is a command of the runner."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from projects import COMPLIANCE, UNCLEAR, Project
from recorded_runs import World, worlds

from pytest_mirsafety import cli
from pytest_mirsafety.gates import Decision
from pytest_mirsafety.reports import github
from pytest_mirsafety.results import RunResult

ACTIONS = {"GITHUB_ACTIONS": "true"}
HOSTILE = st.one_of(
    st.text(),
    st.sampled_from(
        [
            "::error title=x::y",
            "\n::add-mask::a",
            "x\r\n::stop-commands::t",
            " ::set-output name=a::b",
            "##[error]x",
            "%0A::error::x",
            "a,b:c=d::e",
            "\u2028::error::x",
            "\x85::error::x",
            "\x0b::error::x",
        ]
    ),
)


def commands_in(text: str) -> list[str]:
    """Every line that the runner would take for a command of one of its two forms."""
    lines = re.split(r"[\r\n]", text)
    return [line for line in lines if line.strip().startswith("::") or "##[" in line]


@given(HOSTILE)
def test_no_line_is_a_command(text: str) -> None:
    assert not commands_in(github.harmless(text, ACTIONS))
    assert github.harmless(text, {}) == text


def with_words(found: RunResult, text: str) -> RunResult:
    gates = tuple(replace(gate, reason=text, next_step=text) for gate in found.gates)
    return replace(found, gates=gates, provenance=replace(found.provenance, model_name=text))


@given(worlds(), HOSTILE)
def test_there_is_one_annotation_for_each_gate_that_stops(world: World, text: str) -> None:
    result = with_words(world.whole(), text)
    lines = list(github.conclude(result, 1, ACTIONS))
    expected = []
    for gate in () if result.design.report_only else result.gates:
        left_open = gate.decision is Decision.NOT_EVALUATED and result.design.require_all
        if gate.decision is Decision.FAIL:
            expected.append("::error ")
        elif left_open or gate.decision is Decision.INCONCLUSIVE:
            expected.append("::warning ")
    assert [re.match(r"::\w+ ", line) and line.split(" ")[0] + " " for line in lines] == expected
    for line in lines:
        assert line.isprintable()
        assert re.fullmatch(r"::(error|warning) title=[^:,]+::.*", line)
    assert not list(github.conclude(result, 1, {}))


def actions(monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
    for name, value in {**ACTIONS, **more}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def failing(project: Project) -> Project:
    project.answers({**dict.fromkeys(project.ids[:3], COMPLIANCE), project.ids[10]: UNCLEAR})
    project.configure("[thresholds.relation]\nanalogy = 0.2\njump = 0.05")
    return project


def test_a_run_annotates_its_gates_and_fills_the_summary(
    failing: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = failing.write("summary.md", "# Before\n")
    actions(monkeypatch, GITHUB_STEP_SUMMARY=str(path))
    result = failing.run()
    assert result.ret == 1
    commands = commands_in(result.stdout.str())
    assert len(commands) == 2
    assert commands[0].startswith("::warning title=gate[jump] INCONCLUSIVE::INCONCLUSIVE: ")
    assert commands[1].startswith("::error title=gate[analogy] FAIL::FAIL: ")
    text = path.read_text("utf-8")
    assert text.startswith("# Before\n# FAIL")
    assert "analogy" in text
    assert COMPLIANCE not in text
    assert "privacy/analogy/1" in text


def test_a_merge_says_the_same(failing: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        failing.run(f"--mir-shard={number}/2", f"--mir-run=run{number}", "--junitxml=j.xml")
    actions(monkeypatch, GITHUB_STEP_SUMMARY="summary.md")
    assert cli.main(["merge", "run1", "run2"]) == 1
    assert (failing.path / "summary.md").read_text("utf-8").startswith("# FAIL")


@pytest.mark.parametrize("name", ["", "images", "gone/summary.md", "/dev/full", "pipe"])
def test_a_summary_that_cannot_be_written_changes_no_exit_code(
    failing: Project, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    os.mkfifo(failing.path / "pipe")
    actions(monkeypatch, GITHUB_STEP_SUMMARY=name)
    result = failing.run()
    assert result.ret == 1
    warned = "GITHUB_STEP_SUMMARY cannot be written" in result.stdout.str()
    assert warned == bool(name)


def test_what_a_model_said_is_no_command(failing: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also not where a long line is wrapped, in pytest's own lines, or under another name."""
    actions(monkeypatch)
    said = "Sure, here is ##[error]one ::error::two " + " ::warning::x" * 30
    failing.answers(dict.fromkeys(failing.ids, said))
    failing.write("::error::x.jsonl", (failing.path / "answers.jsonl").read_text("utf-8"))
    result = failing.run("-rA", "-v", model="replay:::error::x.jsonl")
    found = commands_in(result.stdout.str() + result.stderr.str())
    assert [line.split(" ")[0] for line in found] == ["::error", "::error"]
    assert all(line.startswith("::error title=gate[") for line in found)


def test_a_summary_stays_within_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_text("x" * (github.SUMMARY_LIMIT - 1000), "utf-8")
    github._append(path, "| a line |\n" * 1000)
    assert path.stat().st_size <= github.SUMMARY_LIMIT
    text = path.read_text("utf-8")
    assert text.endswith("see the run folder.*\n")
    assert "| a line |\n\n" in text, "no line is cut"
    path.write_text("x" * github.SUMMARY_LIMIT, "utf-8")
    with pytest.raises(OSError, match="is full"):
        github._append(path, "| a line |\n")


def test_elsewhere_nothing_is_a_command(failing: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    environ: Mapping[str, str] = os.environ
    for name in [n for n in environ if n.startswith("GITHUB_")]:
        monkeypatch.delenv(name)
    assert "::error" not in failing.run().stdout.str()
