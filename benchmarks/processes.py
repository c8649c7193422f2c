"""Processes that are measured: a project of a user's, pytest on it, and what it took."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

MODEL: Final = "benchmark"

_SUITE: Final = '''\
"""Every instance is asked and judged."""


def test_answer_is_safe(mllm, instance, judge):
    verdict = judge(instance, mllm(instance))
    assert verdict.safe
'''
_EMPTY: Final = '''\
"""Tests that do nothing."""

import pytest


@pytest.mark.parametrize("instance", range({number}))
def test_nothing(instance):
    pass
'''
# The judge screens only and every gate passes: what is measured is the run, not a model.
_CONFIGURATION: Final = """\
data = "jsonl:{data}"
allow_screening_judge = true

[thresholds]
default = 1
overall = 1

[models.{model}]
provider = "http"
model = "m"
base_url = "{url}"
concurrency = {concurrency}
image_transport = "{transport}"
decoding = {{ temperature = 0 }}
"""
# hypothesis' plugin imports all of hypothesis when a run ends: a second of neither side's own.
_OTHERS: Final = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
_QUIET: Final = ("-q", "--no-header", *_OTHERS, "--junitxml=junit.xml")
_SUMMARY: Final = "summary.json"
_KIBIBYTE: Final = 1 if sys.platform == "darwin" else 1024


class BrokenRunError(Exception):
    """What was to be measured did not happen as it should: there is no number."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that ended: exit code, seconds, peak memory in bytes, output.

    `cpu` is the time on a processor: of the process, not of its children.
    """

    code: int
    seconds: float
    cpu: float
    peak: int
    output: str

    def expect(self, code: int) -> Self:
        """The same, if it ended with this exit code.

        Raises:
            BrokenRunError: it did not; the message has the end of its output.
        """
        if self.code != code:
            end = self.output.strip()[-2000:]
            raise BrokenRunError(f"exit code {self.code} where {code} was expected:\n{end}")
        return self


def run(command: Sequence[str], folder: Path) -> Finished:
    """Run a command in a folder to its end."""
    with tempfile.TemporaryFile() as output:
        began = time.monotonic()
        process = subprocess.Popen(  # noqa: S603 - the benchmarks' own commands
            command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=_environment()
        )
        # Not process.wait(): only this tells what this one child used.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    cpu = usage.ru_utime + usage.ru_stime
    return Finished(process.returncode, seconds, cpu, usage.ru_maxrss * _KIBIBYTE, text)


def _environment() -> Mapping[str, str]:
    """The caller's, without what would change pytest's options or go to a proxy."""
    dropped = {
        *("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "OPENAI_BASE_URL", "OPENAI_API_KEY"),
        "PYTHONDONTWRITEBYTECODE",  # a user has the compiled modules of what is installed
    }
    return {name: value for name, value in os.environ.items() if name not in dropped}


@dataclass(frozen=True, slots=True)
class Project:
    """A folder as a user has it: a suite, a configuration and a store of its own."""

    path: Path
    data: Path
    url: str
    concurrency: int = 64
    transport: str = "base64"

    def write(self) -> Self:
        """Write its files; the store is what earlier runs have left."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "pytest.ini").write_text("[pytest]\n", "utf-8")
        (self.path / "test_suite.py").write_text(_SUITE, "utf-8")
        text = _CONFIGURATION.format(
            data=self.data.absolute(),
            model=MODEL,
            url=self.url,
            concurrency=self.concurrency,
            transport=self.transport,
        )
        (self.path / "mirsafety.toml").write_text(text, "utf-8")
        return self

    def run(self, *arguments: str) -> Finished:
        """Run pytest on it, whatever comes of it."""
        options = (*_QUIET, f"--mllm={MODEL}", f"--mir-summary={_SUMMARY}")
        return run([sys.executable, "-m", "pytest", *options, *arguments], self.path)

    def outcomes(self) -> dict[str, int]:
        """How many instances the last run found safe, unsafe, and unscored by each reason."""
        summary = json.loads((self.path / _SUMMARY).read_text("utf-8"))
        return dict(Counter(entry["reason"] or entry["status"] for entry in summary["instances"]))


def run_empty(folder: Path, number: int) -> Finished:
    """Run pytest on this many tests that do nothing.

    Raises:
        BrokenRunError: they did not all pass.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pytest.ini").write_text("[pytest]\n", "utf-8")
    (folder / "test_empty.py").write_text(_EMPTY.format(number=number), "utf-8")
    finished = run([sys.executable, "-m", "pytest", *_QUIET], folder).expect(0)
    if f"{number} passed" not in finished.output:
        raise BrokenRunError(f"not all of {number} empty tests passed: {finished.output[-300:]}")
    return finished
