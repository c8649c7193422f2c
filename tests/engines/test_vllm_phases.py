"""A model on a vLLM server of the run's own and a judge in this process, one after the other.

Random weights answer and judge with noise. What is held here is that the server is gone, with all
its processes, before the judge's weights are read, and that it changes no item.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from judge_models import TEMPLATE
from junitparser.xunit2 import JUnitXml
from managed_runs import INSTANCES, Finished, Project, answered
from server_process import is_alive
from vllm_server import write_checkpoint

CONFIGURATION: Final = """
data = "sample"
judge = "harmbench"
thresholds.default = 0.2

[models.target]
provider = "vllm"
model = "checkpoint"
dtype = "float32"
max_model_len = 2048
server_args = ["--enforce-eager"]
judge_cut_answers = true
decoding = {{ temperature = 0, max_tokens = 16 }}

[judges.harmbench]
provider = "transformers"
model = "llama"
dtype = "float32"
device = "cpu"
template = "template.txt"
template_digest = "sha256:{digest}"
"""
# The judge's weights are read when whoever watches has seen what runs then.
CONFTEST: Final = """
import pathlib, time
from transformers import AutoModelForCausalLM

read = AutoModelForCausalLM.from_pretrained

def once_it_was_seen(*arguments, **options):
    pathlib.Path("judge-loads").touch()
    until = time.monotonic() + 120
    while not pathlib.Path("seen").exists() and time.monotonic() < until:
        time.sleep(0.05)
    return read(*arguments, **options)

AutoModelForCausalLM.from_pretrained = once_it_was_seen
"""


@dataclass(frozen=True, slots=True)
class Records:
    """The run in two phases, with the server as it was when the judge was loaded; and together.

    The second run has the answers of the first, and judges them anew.
    """

    two: Finished
    together: Finished
    folder: Path
    alive: tuple[int, ...]
    asked: int

    def summary(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / f"{name}.json").read_text("utf-8"))
        return found

    def rows(self, name: str) -> dict[str, tuple[str, ...]]:
        """What the JUnit file says of each test: how it ended, and its properties."""
        found = {}
        for suite in JUnitXml.fromfile(str(self.folder / f"{name}.xml")):
            for case in suite:
                ends = [f"{type(e).__name__} {e.message} {e.text}" for e in case.result]
                facts = [f"{p.name}={p.value}" for p in case.properties()]  # type: ignore[attr-defined]
                found[case.name or ""] = (*ends, *facts)
        return found


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    digest = hashlib.sha256(TEMPLATE.encode()).hexdigest()
    folder = tmp_path_factory.mktemp("phases")
    project = Project(folder, CONFIGURATION.format(digest=digest))
    write_checkpoint("tiny_llama.py", folder / "llama")
    (folder / "template.txt").write_text(TEMPLATE, "utf-8")
    (folder / "conftest.py").write_text(CONFTEST, "utf-8")
    alive: list[int] = []
    asked = [0]

    def watch(servers: Mapping[int, int]) -> bool:
        if (folder / "judge-loads").exists():
            alive.extend(group for group in servers if is_alive(group))
            (folder / "seen").touch()
            return True
        asked[0] = max(asked[0], *map(answered, servers.values()))
        return False

    two = run(project, "two", meanwhile=watch)
    shutil.copy(folder / "two.sqlite3", folder / "together.sqlite3")
    with closing(sqlite3.connect(folder / "together.sqlite3")) as connection, connection:
        connection.execute("DELETE FROM verdicts")
    return Records(two, run(project, "together"), folder, tuple(alive), asked[0])


def run(project: Project, phases: str, **watching: Any) -> Finished:
    """Each way has its own store and its own files."""
    configuration = project.folder / "mirsafety.toml"
    was = configuration.read_text("utf-8")
    configuration.write_text(f'phases = "{phases}"\n{was}', "utf-8")
    try:
        return project.run(
            *("--mllm=target", f"--mir-store={phases}.sqlite3"),
            *(f"--mir-summary={phases}.json", f"--junitxml={phases}.xml"),
            **watching,
        )
    finally:
        configuration.write_text(was, "utf-8")


def test_the_server_is_gone_before_the_judge_loads(records: Records) -> None:
    assert (records.folder / "judge-loads").exists(), records.two.output
    assert len(records.two.groups) == 1, records.two.output
    assert records.alive == ()
    assert "two phases, as configured: all is asked, then all is judged" in records.two.output


def test_each_instance_is_asked_once(records: Records) -> None:
    provenance = records.summary("two")["provenance"]
    assert (provenance["answers_asked"], provenance["answers_from_store"]) == (INSTANCES, 0)
    assert 0 < records.asked <= INSTANCES


def test_each_item_is_judged_as_in_one_phase(records: Records) -> None:
    assert records.two.code == records.together.code, records.two.output + records.together.output
    assert not records.together.groups
    two, together = records.summary("two"), records.summary("together")
    assert together["provenance"]["answers_from_store"] == INSTANCES
    assert "two phases" not in records.together.output
    assert len(two["instances"]) == INSTANCES
    assert {i["reason"] for i in two["instances"]} <= {None, "undetermined", "blank"}
    for key in ("instances", "gates", "relations", "overall", "ruling"):
        assert two[key] == together[key]


def test_each_item_has_its_row(records: Records) -> None:
    rows = records.rows("two")
    assert rows == records.rows("together")
    items = [name for name in rows if not name.startswith("gate[")]
    assert len(items) == INSTANCES
    assert all(rows[name] for name in items)


def test_nothing_is_left_running(records: Records) -> None:
    assert not any(map(is_alive, records.two.groups))
