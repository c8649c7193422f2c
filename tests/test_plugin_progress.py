"""The progress line: on a terminal below pytest's own, otherwise a line now and then."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress

import pytest
from chat_endpoint import ChatEndpoint, Reply
from projects import REFUSAL, Project

from pytest_mirsafety.engine import Progress
from pytest_mirsafety.hooks import progress

SLOW = Reply(REFUSAL, delay=0.4)


def on_a_terminal(project: Project, *arguments: str, term: str = "xterm") -> str:
    """Everything that a run writes to a terminal of its own."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pytest", *arguments]
    environment = {**os.environ, "TERM": term, "COLUMNS": "80"}
    with subprocess.Popen(
        command, cwd=project.path, stdout=theirs, stderr=theirs, env=environment, close_fds=True
    ) as process:
        os.close(theirs)
        chunks = []
        with suppress(OSError):  # the other end was closed: that is how a terminal ends
            while chunk := os.read(ours, 65536):
                chunks.append(chunk)
        os.close(ours)
    assert process.returncode == 0
    return b"".join(chunks).decode()


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_a_terminal_gets_a_line_that_is_taken_away_again(project: Project, workers: str) -> None:
    with ChatEndpoint(SLOW) as endpoint:
        text = on_a_terminal(project, workers, f"--mllm={endpoint.url}#m")
    assert "mirsafety 0/20 answered" in text
    drawn, erased = text.count("\x1b[2Kmirsafety"), text.count("\x1b[2K\x1b[1A")
    assert drawn
    assert erased
    assert text.rindex("\x1b[2K\x1b[1A") > text.rindex("\x1b[2Kmirsafety")
    assert text.index("s.ssss.ss") > text.rindex("\x1b[2Kmirsafety")  # the gates stay whole
    assert re.search(r"\[100%\](\x1b\[0m)?\r\n", text)


@pytest.mark.parametrize(("arguments", "term"), [(["-s"], "xterm"), (["-qq"], "xterm")])
def test_where_it_would_disturb_there_is_none(
    project: Project, arguments: list[str], term: str
) -> None:
    with ChatEndpoint(SLOW) as endpoint:
        text = on_a_terminal(project, *arguments, f"--mllm={endpoint.url}#m", term=term)
    assert "answered" not in text


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_a_log_gets_a_heartbeat(
    project: Project, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    monkeypatch.setattr(progress, "HEARTBEAT_SECONDS", 0.0)
    monkeypatch.setattr(progress, "REDRAW_SECONDS", 0.1)
    with ChatEndpoint(SLOW) as endpoint:
        result = project.run(workers, model=f"{endpoint.url}#m")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["mirsafety */20 answered, * in flight*"])
    assert not any("\x1b" in line for line in result.outlines)


def test_a_log_of_a_quick_run_gets_none(project: Project) -> None:
    result = project.run()
    result.stdout.no_fnmatch_line("*answered*")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(10.0, "about 80 s left"), (100.0, "about 13 min left"), (9000.0, "about 20.0 h left")],
)
def test_rate_and_time_left(seconds: float, expected: str) -> None:
    line = progress.status_line(Progress(90, 10, 0, 10, 0, 10, 4, seconds))
    assert line.endswith(expected)


def test_no_rate_before_the_first_answer() -> None:
    line = progress.status_line(Progress(90, 0, 0, 0, 0, 4, 4, 1.0))
    assert line == "mirsafety 0/90 answered, 4 in flight"
