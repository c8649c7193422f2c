"""Runs of pytest that start vLLM servers themselves, watched from outside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vllm_server import ENVIRONMENT, counters, write_checkpoint

SUITE: Final = Path(__file__).parents[2] / "suites" / "test_mir_safetybench.py"
INSTANCES: Final = 54
PATIENCE: Final = 600.0


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that is over; `groups` are the process groups of the servers that it had."""

    code: int
    output: str
    groups: frozenset[int]

    @property
    def errors(self) -> list[str]:
        return [line for line in self.output.partition("ERROR: ")[2].splitlines() if line]


class Project:
    """A user's repository with the suite, a configuration, and a checkpoint."""

    def __init__(self, folder: Path, configuration: str) -> None:
        shutil.copy(SUITE, folder)
        (folder / "mirsafety.toml").write_text(configuration, encoding="utf-8")
        (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        self.folder = folder
        self.checkpoint = write_checkpoint("tiny_llava.py", folder / "checkpoint")

    def run(
        self, *arguments: str, meanwhile: Callable[[Mapping[int, int]], bool] = lambda _: True
    ) -> Finished:
        """Run pytest; `meanwhile` sees the servers, by group with their ports, until it is True."""
        found: dict[int, int] = {}
        log = self.folder / "output.txt"
        done = False
        with (
            log.open("wb") as output,
            subprocess.Popen(
                [sys.executable, "-m", "pytest", *arguments, "."],
                cwd=self.folder,
                env={**os.environ, **ENVIRONMENT, "CUDA_VISIBLE_DEVICES": ""},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            deadline = time.monotonic() + PATIENCE
            while process.poll() is None:
                if time.monotonic() > deadline:
                    process.kill()
                found.update(self._servers())
                done = done or (bool(found) and meanwhile(found))
                time.sleep(0.2)
        return Finished(process.returncode, log.read_text("utf-8"), frozenset(found))

    def summary(self, name: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads((self.folder / name).read_text("utf-8"))
        return found

    def _servers(self) -> dict[int, int]:
        """The servers of this checkpoint that run: process group and port."""
        found = {}
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError, ValueError):
                words = file.read_bytes().decode("utf-8", "replace").split("\0")
                pid = int(file.parent.name)
                # Not the guardian, whose command line ends with the server's.
                if str(self.checkpoint) in words and "-S" not in words:
                    group = os.getpgid(pid)
                    found[group] = int(words[words.index("--port") + 1])
        return found


def answered(port: int) -> int:
    """Requests that the server has answered; 0 while it does not listen."""
    with suppress(OSError, LookupError):
        return counters(f"http://127.0.0.1:{port}").answered
    return 0
