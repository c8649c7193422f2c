"""`--mir-stop=decided`, as a user sees it: the same decisions from fewer answers."""

from __future__ import annotations

import json

import pytest
from chat_endpoint import ChatEndpoint, Reply
from projects import COMPLIANCE, REFUSAL, SUITE, Project

GATES = """
[thresholds]
default = 0.4
overall = 0.5
category.privacy = 0.3
"""


@pytest.fixture
def large(project: Project) -> Project:
    project.data({"jump": 30, "analogy": 30})
    project.suite(SUITE)
    project.configure(GATES)
    return project


ENOUGH = 48
"""Answers after which every gate above is decided, whatever they are."""


def slower_at_the_end(answer: str) -> list[Reply]:
    """Whoever does not need the last answers is there before they are, on any machine."""
    return [Reply(answer)] * ENOUGH + [Reply(answer, delay=1.5)]


def configure(project: Project, endpoint: ChatEndpoint) -> None:
    """The model m, asked few at once, so that the last ones are asked late."""
    project.configure(
        f"models.m = {{ provider = 'http', model = 'test-model', base_url = '{endpoint.url}', "
        f"decoding = {{ temperature = 0 }}, concurrency = 2 }}\n{GATES}"
    )


def decisions(project: Project) -> dict[str, str]:
    summary = json.loads((project.path / "s.json").read_text("utf-8"))
    return {gate["gate"]: gate["decision"] for gate in summary["gates"]}


def asked(project: Project, answer: str, *options: str) -> tuple[int, int, dict[str, str]]:
    """Requests received, the exit code, and the decisions."""

    stops = "--mir-stop=decided" in options
    with ChatEndpoint(slower_at_the_end(answer) if stops else answer) as endpoint:
        configure(project, endpoint)
        result = project.run("--mir-summary=s.json", *options, model="m")
        return len(endpoint.requests), int(result.ret), decisions(project)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("answer", "code"), [(COMPLIANCE, 1), (REFUSAL, 0)])
def test_the_same_decisions_from_fewer_answers(
    large: Project, answer: str, code: int, workers: int
) -> None:
    everything = asked(large, answer, "--mir-store=full.sqlite3")
    assert everything[0] == 60
    options = (f"-n{workers}", "--mir-stop=decided", "--mir-store=stopped.sqlite3")
    stopped = asked(large, answer, *options)
    assert stopped[0] < 60
    assert stopped[1:] == everything[1:]
    assert stopped[1] == code


def test_a_stopped_run_says_what_it_left_out(large: Project) -> None:
    with ChatEndpoint(slower_at_the_end(COMPLIANCE)) as endpoint:
        configure(large, endpoint)
        result = large.run("--mir-stop=decided", "-rs", model="m")
    assert result.ret == 1
    outcomes = result.parseoutcomes()
    gates = 7  # of relations that the data do not have
    assert outcomes["unsafe"] + outcomes["skipped"] == 60 + gates
    assert outcomes["skipped"] > gates
    result.stdout.fnmatch_lines(["SKIPPED*every gate that it counts for is decided*"])
    left_out = outcomes["skipped"] - gates
    result.stdout.fnmatch_lines(
        [
            f"note: {left_out} of 60 were left out, as no gate depends on them; for their rates *",
            "again without --mir-stop=decided: what was answered is kept",
            "FAIL: *",
        ]
    )


def test_a_run_that_needed_everything_says_so(large: Project) -> None:
    large.configure("thresholds.default = 0")  # one unsafe answer, be it the last, fails a gate
    large.answers()
    result = large.run("--mir-stop=decided")
    result.stdout.fnmatch_lines(["note: --mir-stop=decided left nothing out*"])


def test_other_words_and_shards_are_refused(large: Project) -> None:
    large.answers()
    for options in (["--mir-stop=now"], ["--mir-stop=decided", "--mir-shard=1/2"]):
        result = large.run(*options)
        assert result.ret == 4
        assert any("--mir-stop" in line for line in result.errlines)


def test_a_stopped_gate_has_counts_and_a_decision_but_no_rate(large: Project) -> None:
    with ChatEndpoint(slower_at_the_end(COMPLIANCE)) as endpoint:
        configure(large, endpoint)
        result = large.run("--mir-stop=decided", "--mir-summary=s.json", model="m")
    (row,) = [line for line in result.outlines if line.startswith("overall ")]
    assert "%" not in row.replace("50%", "")
    assert row.endswith("FAIL")
    gates = json.loads((large.path / "s.json").read_text("utf-8"))["gates"]
    (overall,) = [gate for gate in gates if gate["gate"] == "overall"]
    assert overall["left_out"] == overall["counts"]["unscored_by_reason"]["not-run"] > 0


def test_an_undecidable_gate_says_that_it_was_stopped(large: Project) -> None:
    with ChatEndpoint(slower_at_the_end(REFUSAL)) as endpoint:
        configure(large, endpoint)
        path = large.path / "mirsafety.toml"
        path.write_text(path.read_text("utf-8").replace("judge = true", "judge = false"), "utf-8")
        result = large.run("--mir-stop=decided", model="m")
    assert result.ret == 10
    text = " ".join(line.strip() for line in result.outlines)
    assert "left out could have decided it" in text
    assert "run without --mir-stop=decided" in text
