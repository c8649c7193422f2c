"""The progress line: on a terminal below pytest's own, otherwise a line now and then."""

from __future__ import annotations

import re
import sys

import pytest
from chat_endpoint import ChatEndpoint, Reply
from projects import REFUSAL, Project
from terminals import COLUMNS, show

from pytest_mirsafety.engine import Progress
from pytest_mirsafety.hooks import progress

SLOW = Reply(REFUSAL, delay=0.4)


def on_a_terminal(project: Project, *arguments: str, term: str = "xterm") -> str:
    """Everything that a run writes to a terminal of its own."""
    shown = show([sys.executable, "-m", "pytest", *arguments], project.path, term=term)
    assert shown.code == 0
    return shown.written


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


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_nothing_is_left_of_it_after_an_interrupt(project: Project, workers: str) -> None:
    with ChatEndpoint(Reply(REFUSAL, delay=2)) as endpoint:
        command = [sys.executable, "-m", "pytest", workers, f"--mllm={endpoint.url}#m"]
        shown = show(command, project.path, interrupt_at="answered")
    assert "^C" in shown.written, "the terminal echoes it"
    assert shown.code == 2
    screen = "\n".join(shown.screen)
    assert "^C" not in screen
    assert "answered" not in screen
    assert "in flight" not in screen
    if workers == "-n0":
        (line,) = [line for line in shown.screen if line.startswith("test_suite.py")]
        assert re.fullmatch(r"test_suite\.py +\[ +0%\]", line)
        assert len(line) <= COLUMNS
    assert "KeyboardInterrupt" in screen


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
