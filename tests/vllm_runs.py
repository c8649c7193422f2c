"""Runs with a server of their own: the stand-in for vLLM, what it recorded, and what is left."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
from projects import Project

STAND_IN: Final = Path(__file__).parent / "fake_vllm"
PATIENCE: Final = 120.0
"""Seconds after which something is taken for hung."""


class VllmProject:
    """A project whose model is a checkpoint folder `tiny`, served by the stand-in."""

    def __init__(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        self.project = project
        self.path = project.path
        self.record = self.path / "record.jsonl"
        self._monkeypatch = monkeypatch
        monkeypatch.syspath_prepend(str(STAND_IN))
        monkeypatch.setenv("PYTHONPATH", str(STAND_IN))
        monkeypatch.setenv("FAKE_VLLM_RECORD", str(self.record))
        (self.path / "tiny").mkdir()
        (self.path / "tiny" / "config.json").write_text("{}", encoding="utf-8")

    def behave(self, mode: str) -> None:
        """How the server behaves from now on."""
        self._monkeypatch.setenv("FAKE_VLLM", mode)

    def configure(self, model: str = "", rest: str = "") -> None:
        self.project.configure(
            f"thresholds.default = 0.2\n{rest}\n[models.m]\nprovider = 'vllm'\nmodel = 'tiny'\n"
            f"decoding = {{ temperature = 0 }}\n{model}\n"
        )

    def run(self, *arguments: str, model: str = "vllm:tiny") -> pytest.RunResult:
        return self.project.run(*arguments, model=model)

    def entries(self, event: str) -> list[dict[str, Any]]:
        """What servers recorded, such as their starts and the requests that came."""
        if not self.record.exists():
            return []
        lines = map(json.loads, self.record.read_text("utf-8").splitlines())
        return [line for line in lines if line["event"] == event]

    @property
    def starts(self) -> list[dict[str, Any]]:
        return self.entries("start")

    def started(self) -> Mapping[str, Any]:
        """The start of a server, when there was one."""
        eventually(lambda: bool(self.starts))
        return self.starts[0]

    def nothing_is_left(self) -> bool:
        """All processes of all servers end."""
        pids = [start[who] for start in self.starts for who in ("pid", "child")]
        eventually(lambda: not any(map(is_running, pids)))
        return True


def is_running(pid: int) -> bool:
    """There is such a process, and it is no zombie."""
    with suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        return stat.rpartition(")")[2].split()[0] not in "ZX"
    if Path("/proc/self").exists():
        return False
    with suppress(OSError):
        os.kill(pid, 0)
        return True
    return False


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until this holds.

    Raises:
        AssertionError: it does not, for a time in which it should on any machine.
    """
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def prompts_asked(entries: list[dict[str, Any]]) -> int:
    """Requests, each of which is of another instance."""
    asked = [tuple(entry["images"]) for entry in entries]
    assert len(set(asked)) == len(asked)
    return len(asked)
