"""vLLM as a run's own server: started by it, asked by file, killed under it, and gone with it.

A killed run and the next one share a store, so that the second asks what the first could not.
"""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest
from managed_runs import INSTANCES, Finished, Project, answered
from server_process import is_alive

INCONCLUSIVE: Final = 10
CONFIGURATION: Final = """
data = "sample"

[thresholds]
default = 0.20

[models.tiny]
provider = "vllm"
model = "checkpoint"
dtype = "float32"
max_model_len = 2048
server_args = ["--enforce-eager"]
judge_cut_answers = true
decoding = { temperature = 0, max_tokens = 48, ignore_eos = true }

[models.slow]
provider = "vllm"
model = "checkpoint"
dtype = "float32"
max_model_len = 2048
server_args = ["--enforce-eager"]
judge_cut_answers = true
decoding = { temperature = 0, max_tokens = 48, ignore_eos = true }
concurrency = 1

[models.short]
provider = "vllm"
model = "checkpoint"
dtype = "float32"
max_model_len = 8
server_args = ["--enforce-eager"]

[models.few]
provider = "vllm"
model = "checkpoint"
server_args = ["--limit-mm-per-prompt", '{"image": 3}']
"""


@dataclass(frozen=True, slots=True)
class Records:
    killed: Finished
    finished: Finished
    again: Finished
    short: Finished
    project: Project


def kill_mid_run(servers: Mapping[int, int]) -> bool:
    """Kill the server once it has answered a few."""
    ((group, port),) = servers.items()
    if answered(port) < 3:
        return False
    os.kill(group, signal.SIGKILL)
    return True


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    """All runs with a real server, each of which costs a start of a minute and more."""
    project = Project(tmp_path_factory.mktemp("managed"), CONFIGURATION)
    return Records(
        project.run("--mllm=slow", "--mir-summary=killed.json", meanwhile=kill_mid_run),
        project.run("--mllm=tiny", "--mir-summary=finished.json", "-n2", "-v"),
        project.run("--mllm=tiny", "--mir-summary=again.json"),
        project.run("--mllm=short", "--mir-summary=short.json"),
        project,
    )


def outcomes(summary: Mapping[str, Any]) -> Counter[str]:
    return Counter(i["reason"] or i["status"] for i in summary["instances"])


def test_a_server_that_is_killed_is_said_once_and_scores_nothing(records: Records) -> None:
    run, summary = records.killed, records.project.summary("killed.json")
    assert run.code == INCONCLUSIVE, run.output
    assert len(run.groups) == 1, "it is not started again"
    found = outcomes(summary)
    assert found.total() == INSTANCES
    assert found["backend-error"] == 1
    assert found["not-run"] > 0
    assert found["backend-error"] + found["not-run"] < INSTANCES
    text = re.sub(r"\s+", " ", run.output)
    assert "the vLLM server of checkpoint died (killed by signal 9" in text


def test_the_next_run_asks_the_rest_with_one_server_for_two_workers(records: Records) -> None:
    run, summary = records.finished, records.project.summary("finished.json")
    assert run.code == INCONCLUSIVE, run.output
    assert len(run.groups) == 1
    found = outcomes(summary)
    assert found.total() == INSTANCES
    assert set(found) <= {"safe", "unsafe", "undetermined", "blank"}
    provenance = summary["provenance"]
    assert provenance["answers_asked"] + provenance["answers_from_store"] == INSTANCES
    assert 0 < provenance["answers_from_store"] < INSTANCES
    assert "starting vLLM" in run.output, "a log says now and then how far the start is"


def test_a_run_that_has_its_answers_starts_none(records: Records) -> None:
    run, summary = records.again, records.project.summary("again.json")
    assert not run.groups
    assert summary["provenance"]["answers_from_store"] == INSTANCES
    assert outcomes(summary) == outcomes(records.project.summary("finished.json"))


def test_a_context_that_is_too_short_is_one_clear_line(records: Records) -> None:
    assert records.short.code == 4
    assert "max_model_len" in records.short.errors[0], records.short.output
    summary = records.project.summary("short.json")
    assert {i["status"] for i in summary["instances"]} == {"unscored"}


def test_what_can_be_known_before_is_said_before(records: Records) -> None:
    project = records.project
    missing = project.run("--mllm=vllm:./no/such/checkpoint")
    few = project.run("--mllm=few")
    for run, said in ((missing, "there is no folder"), (few, "allows 3 images a prompt")):
        assert (run.code, run.groups) == (4, frozenset())
        (line,) = run.errors
        assert said in line


def test_nothing_is_left_running(records: Records) -> None:
    groups = records.killed.groups | records.finished.groups | records.short.groups
    assert len(groups) == 3
    assert not any(map(is_alive, groups))
