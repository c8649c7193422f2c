"""`--mir-attention` from the command line to its files, on a model that computes here.

Weights and verdicts are noise. What is held is the path: every answer has its numbers, they outlive
the run with the answers, and nothing is asked again for them.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray
from vllm_server import write_checkpoint

from pytest_mirsafety import load_dataset

SUITE: Final = Path(__file__).parents[2] / "suites" / "test_mir_safetybench.py"
INSTANCES: Final = 54
CONFIGURATION: Final = """
data = "sample"
judge = "noise_judge:Judge"
allow_screening_judge = true

[models.tiny]
provider = "transformers"
model = "llava"
device = "cpu"
dtype = "float32"
judge_cut_answers = true
decoding = { max_tokens = 16 }

# One after the other: what is computed beside an answer may change its numbers in the last digit.
[models.alone]
provider = "transformers"
model = "llava"
device = "cpu"
dtype = "float32"
batch_size = 1
judge_cut_answers = true
decoding = { max_tokens = 16 }
"""
JUDGE: Final = """
import hashlib
from pytest_mirsafety import Verdict, VerdictKind

class Judge:
    identity, screening, concurrency = "noise", True, 8
    def __init__(self, settings): pass
    async def judge(self, question, answer):
        unsafe = hashlib.sha256(answer.encode()).digest()[0] < 100
        return Verdict(VerdictKind.UNSAFE if unsafe else VerdictKind.SAFE, self.identity)
    async def aclose(self): pass
"""
MAIN: Final = "import sys; from pytest_mirsafety.cli import main; sys.exit(main())"
OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that is over."""

    exit_code: int
    output: str
    folder: Path

    @property
    def summary(self) -> dict[str, Any]:
        return self._json("summary.json")

    @property
    def attention(self) -> dict[str, Any]:
        return self._json("attention.json")

    @property
    def numbers(self) -> Mapping[str, NDArray[Any]]:
        with np.load(self.folder / "attention.npz", allow_pickle=False) as file:
            return dict(file)

    @property
    def notes(self) -> str:
        return "\n".join(self.summary["notes"])

    def _json(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / name).read_text("utf-8"))
        return found


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with a suite, a judge and a checkpoint."""

    folder: Path

    @classmethod
    def made(cls, folder: Path) -> Project:
        write_checkpoint("tiny_llava.py", folder / "llava")
        (folder / "mirsafety.toml").write_text(CONFIGURATION, "utf-8")
        (folder / "noise_judge.py").write_text(JUDGE, "utf-8")
        (folder / "test_suite.py").write_text(SUITE.read_text("utf-8"), "utf-8")
        return cls(folder)

    def run(self, name: str, *options: str, model: str = "tiny") -> Finished:
        done = self.call(*self.command(name, model), *options)
        return Finished(done.returncode, done.stdout + done.stderr, self.folder / name)

    def command(self, name: str, model: str) -> tuple[str, ...]:
        own = (f"--mir-run={name}", f"--mir-summary={name}/summary.json", "--mir-report-only")
        return ("-m", "pytest", "-q", f"--mllm={model}", *own)

    def killed(self, name: str, *options: str, model: str, when: Callable[[], bool]) -> int:
        """Start such a run and kill it as soon as this holds; gives its exit code."""
        command = [sys.executable, *self.command(name, model), *options]
        environ = {**os.environ, **OFFLINE}
        with subprocess.Popen(
            command, cwd=self.folder, env=environ, stdout=subprocess.DEVNULL
        ) as process:
            while process.poll() is None and not when():
                time.sleep(0.01)
            process.kill()
        return process.returncode

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**os.environ, **OFFLINE},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project.made(tmp_path_factory.mktemp("attention"))


@pytest.fixture(scope="module")
def first(project: Project) -> Finished:
    return project.run("first", "--mir-attention")


@pytest.fixture(scope="module")
def second(project: Project, first: Finished) -> Finished:
    return project.run("second", "--mir-attention", "-n", "2")


def test_each_answer_has_its_numbers(first: Finished) -> None:
    assert first.exit_code == 0, first.output
    dataset = load_dataset("sample", base=Path())
    images = {instance.id: len(instance.images) for instance in dataset.instances}
    numbers = first.numbers
    assert sorted(numbers["instance"]) == sorted(images)
    assert numbers["prompt_entropy"].shape == (INSTANCES, 2, 2)
    assert numbers["image_entropy"].shape == (INSTANCES, max(images.values()), 2, 2)
    for place, name in enumerate(numbers["instance"]):
        known = ~np.isnan(numbers["image_entropy"][place]).any(axis=(1, 2))
        assert known.sum() == known[: images[name]].sum() == images[name]
        assert (numbers["image_keys"][place] > 0).tolist() == known.tolist()
        assert numbers["image_keys"][place].sum() < numbers["prompt_keys"][place]
    for name in ("prompt_entropy", "prompt_mass"):
        assert ((numbers[name] > 0) & (numbers[name] <= 1)).all()
    on_images = np.nansum(numbers["image_mass"], axis=1)
    assert (on_images < numbers["prompt_mass"] + 1e-6).all()
    outcomes = {i["id"]: i["status"] for i in first.summary["instances"]}
    assert dict(zip(numbers["instance"], numbers["outcome"], strict=True)) == outcomes


def test_what_was_found_is_told(first: Finished) -> None:
    document = first.attention
    comparison = document["comparison"]
    assert (document["answers"], document["not_measured"]) == (INSTANCES, 0)
    assert comparison["test"]["clusters"] > 1
    told = f"{comparison['unsafe']['answers']} unsafe and {comparison['safe']['answers']} safe"
    assert told in first.notes
    assert "heads that differ (false discovery rate 5%)" in first.notes
    assert told in " ".join(first.output.split())
    assert (first.folder / "attention.png").read_bytes().startswith(b"\x89PNG")
    assert "Cliff's delta" in document["picture"]["alternative"]
    assert '"attention":"eager"' in first.summary["provenance"]["decoding"]


def test_a_second_run_finds_the_same_in_the_store(first: Finished, second: Finished) -> None:
    assert second.exit_code == 0, second.output
    assert second.summary["provenance"]["answers_asked"] == 0
    assert "the model ran on" in first.notes
    assert "the model ran on" not in second.notes
    assert first.numbers.keys() == second.numbers.keys()
    for name, numbers in first.numbers.items():
        assert np.array_equal(numbers, second.numbers[name], equal_nan=numbers.dtype.kind == "f")
    assert first.attention["comparison"] == second.attention["comparison"]


def kept(store: Path, what: str) -> set[str]:
    """The requests that a store has `answers.key` or `attention.request` of."""
    table, _, column = what.partition(".")
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(store)) as connection:
        return {row[0] for row in connection.execute(f"SELECT {column} FROM {table}")}  # noqa: S608
    return set()  # not there yet


def test_a_run_that_is_killed_goes_on_and_its_report_is_that_of_one_that_was_not(
    project: Project,
) -> None:
    whole = project.run("whole", "--mir-attention", "--mir-store=whole.sqlite3", model="alone")
    assert whole.exit_code == 0, whole.output
    store = project.folder / "killed.sqlite3"
    options = ("--mir-attention", f"--mir-store={store.name}")
    code = project.killed(
        "killed",
        *options,
        model="alone",
        when=lambda: store.exists() and len(kept(store, "answers.key")) >= 5,
    )
    assert code == -signal.SIGKILL
    answered = kept(store, "answers.key")
    assert 5 <= len(answered) < INSTANCES
    assert answered <= kept(store, "attention.request"), "no answer is without its numbers"
    resumed = project.run("resumed", *options, model="alone")
    assert resumed.exit_code == 0, resumed.output
    provenance = resumed.summary["provenance"]
    assert provenance["answers_from_store"] == len(answered)
    assert provenance["answers_asked"] == INSTANCES - len(answered)
    for name in ("attention.npz", "attention.json", "attention.png"):
        one, other = ((run.folder / name).read_bytes() for run in (whole, resumed))
        assert one == other, name
    for key in ("instances", "overall", "relations", "gates"):
        assert whole.summary[key] == resumed.summary[key]


def test_shards_are_merged_into_what_one_run_has(project: Project) -> None:
    """Their answers come from the store of the run above, so that nothing is asked."""
    whole = project.run("again", "--mir-attention", "--mir-store=whole.sqlite3", model="alone")
    for number in (1, 2):
        shard = project.run(
            f"shard-{number}",
            *(f"--mir-shard={number}/2", "--mir-attention", "--mir-store=whole.sqlite3"),
            model="alone",
        )
        assert shard.exit_code == 0, shard.output
        assert shard.summary["provenance"]["answers_asked"] == 0
    merged = project.call("-c", MAIN, "merge", "shard-1", "shard-2", "--run=merged")
    assert merged.returncode == 0, merged.stdout + merged.stderr
    for name in ("attention.npz", "attention.json", "attention.png"):
        one, other = (
            (where / name).read_bytes() for where in (whole.folder, project.folder / "merged")
        )
        assert one == other, name


def test_what_is_missing_is_counted_and_not_made_up(project: Project, second: Finished) -> None:
    store = project.folder / ".mirsafety" / "answers.sqlite3"
    scored = sum(second.attention["comparison"][s]["answers"] for s in ("unsafe", "safe"))
    keys = {i["id"]: i["request_key"] for i in second.summary["instances"] if not i["reason"]}
    gone = sorted(keys)[:3]
    with closing(sqlite3.connect(store)) as connection, connection:
        for name in gone:
            connection.execute("DELETE FROM attention WHERE request = ?", [keys[name]])
    third = project.run("third", "--mir-attention")
    assert third.summary["provenance"]["answers_asked"] == 0
    assert f"not measured behind 3 of {scored} scored answers" in third.notes
    assert third.attention["not_measured"] == 3
    assert not set(gone) & set(third.numbers["instance"])
    assert len(third.numbers["instance"]) == INSTANCES - 3


def test_the_same_model_unwatched_is_asked_anew(project: Project, second: Finished) -> None:
    run = project.run("unwatched", "-k", "analogy")
    assert run.exit_code == 0, run.output
    assert run.summary["provenance"]["answers_asked"] == 6
    assert "attention" not in run.notes
    assert not (run.folder / "attention.npz").exists()


def test_the_store_knows_of_it(project: Project, second: Finished) -> None:
    listed = project.call("-c", MAIN, "store", "verify")
    assert "the attention behind 5" in listed.stdout, listed.stdout + listed.stderr
    assert "all in order" in listed.stdout
