"""A model and its judge, both in this process: one after the other, or together.

Random weights answer and judge with noise. What is held here is that both ways give each instance
the same outcome, and that in two phases the model is gone when the judge is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from judge_models import TEMPLATE
from vllm_server import write_checkpoint

SUITE: Final = Path(__file__).parents[2] / "suites" / "test_mir_safetybench.py"
INSTANCES: Final = 54
CONFIGURATION: Final = """
data = "sample"
judge = "harmbench"
phases = "{phases}"
store = "answers-{phases}.sqlite3"
thresholds.default = 0.2

[models.target]
provider = "transformers"
model = "llava"
dtype = "float32"
device = "cpu"
judge_cut_answers = true
decoding = {{ max_tokens = 16 }}

[judges.harmbench]
provider = "transformers"
model = "llama"
dtype = "float32"
device = "cpu"
template = "template.txt"
template_digest = "sha256:{digest}"
"""
# Whoever has a verdict can see which models this process holds.
CONFTEST: Final = """
import gc, json, pathlib

def pytest_runtest_logreport(report):
    place = pathlib.Path("held.json")
    if report.when == "call" and not place.exists():
        import torch
        gc.collect()
        held = (type(one).__name__ for one in gc.get_objects() if isinstance(one, torch.nn.Module))
        place.write_text(json.dumps(sorted({n for n in held if n.endswith(("Generation", "LM"))})))
"""
MODEL, JUDGE = "LlavaOnevisionForConditionalGeneration", "LlamaForCausalLM"


@dataclass(frozen=True)
class Finished:
    """What a run printed, its summary, and the models held at the first verdict."""

    output: str
    summary: dict[str, Any]
    held: list[str]

    @property
    def outcomes(self) -> dict[str, str]:
        return {one["id"]: one["reason"] or one["status"] for one in self.summary["instances"]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    folder = tmp_path_factory.mktemp("phases")
    write_checkpoint("tiny_llava.py", folder / "llava")
    write_checkpoint("tiny_llama.py", folder / "llama")
    (folder / "template.txt").write_text(TEMPLATE, "utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", "utf-8")
    (folder / "conftest.py").write_text(CONFTEST, "utf-8")
    shutil.copy(SUITE, folder)
    return {phases: run(folder, phases) for phases in ("two", "together")}


def run(folder: Path, phases: str) -> Finished:
    digest = hashlib.sha256(TEMPLATE.encode()).hexdigest()
    text = CONFIGURATION.format(phases=phases, digest=digest)
    (folder / "mirsafety.toml").write_text(text, "utf-8")
    (folder / "held.json").unlink(missing_ok=True)
    job = subprocess.run(
        [sys.executable, "-m", "pytest", "--mllm=target", "--mir-summary=summary.json"],
        cwd=folder,
        env={**os.environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=900,
    )
    assert job.returncode in {0, 1, 10}, job.stdout
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    return Finished(job.stdout, summary, json.loads((folder / "held.json").read_text("utf-8")))


def test_the_model_is_gone_when_the_judge_is_there(runs: dict[str, Finished]) -> None:
    assert runs["two"].held == [JUDGE]
    assert runs["together"].held == [JUDGE, MODEL]


def test_both_ways_have_the_same_outcomes(runs: dict[str, Finished]) -> None:
    assert len(runs["two"].outcomes) == INSTANCES
    assert runs["two"].outcomes == runs["together"].outcomes
    assert runs["two"].summary["gates"] == runs["together"].summary["gates"]


def test_what_was_chosen_is_said(runs: dict[str, Finished]) -> None:
    assert "two phases, as configured: all is asked, then all is judged" in runs["two"].output
    assert "two phases" not in runs["together"].output
