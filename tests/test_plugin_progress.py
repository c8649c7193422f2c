"""The progress line: on a terminal below pytest's own, otherwise a line now and then."""

from __future__ import annotations

import re
import sys

import pytest
from chat_endpoint import ChatEndpoint, Reply
from projects import REFUSAL, Project
from terminals import COLUMNS, show

from pytest_mirsafety.engine import pacing
from pytest_mirsafety.engine.engine import Progress
from pytest_mirsafety.engine.pacing import Slowdown
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


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_it_says_why_nothing_moves(
    project: Project, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    monkeypatch.setattr(progress, "HEARTBEAT_SECONDS", 0.0)
    monkeypatch.setattr(progress, "REDRAW_SECONDS", 0.1)
    # Answers that were under way come after the refusals, and end no pause.
    pushed_back = [Reply.error(429, retry_after=2)] * 3
    replies = [Reply(REFUSAL), *pushed_back, Reply(REFUSAL, delay=0.3)]
    with ChatEndpoint(replies) as endpoint:
        result = project.run(workers, model=f"{endpoint.url}#m")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["mirsafety */20 answered, waiting * s (HTTP 429), * in flight (slowed to *)*"]
    )
    result.stdout.no_fnmatch_line("*limit per minute*")


def test_a_limit_of_ones_own_is_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "HEARTBEAT_SECONDS", 0.0)
    monkeypatch.setattr(progress, "REDRAW_SECONDS", 0.1)
    monkeypatch.setattr(pacing, "_MINUTE", 3.0)
    with ChatEndpoint(REFUSAL) as endpoint:
        project.configure(
            "thresholds.default = 0.2\nmodels.m = { provider = 'http', model = 'm', "
            f"base_url = '{endpoint.url}', requests_per_minute = 12, "
            "decoding = { temperature = 0 } }"
        )
        result = project.run(model="m")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["mirsafety 12/20 answered, waiting * s (limit per minute), *"])


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


def line_of(slowdown: Slowdown, in_flight: int = 4, width: int | None = None) -> str:
    found = Progress(90, 10, 0, 10, 2, 10, in_flight, 10.0, slowdown=slowdown)
    return progress.status_line(found, width)


@pytest.mark.parametrize(
    ("slowdown", "in_flight", "expected"),
    [
        (Slowdown(11.2, 8, "HTTP 429"), 0, "waiting 12 s (HTTP 429), 0 in flight (slowed to 8),"),
        (Slowdown(90.0, None, ""), 3, "waiting 2 min (limit per minute), 3 in flight,"),
        (Slowdown(0.0, 8, "HTTP 429"), 8, "8 in flight (slowed to 8),"),
        (Slowdown(0.4, None, "HTTP 500"), 0, "trying again (HTTP 500), 0 in flight,"),
        (Slowdown(0.4, None, "HTTP 500"), 4, "4 in flight,"),
        (Slowdown(0.4, None, ""), 0, "0 in flight,"),
    ],
)
def test_what_holds_it_up(slowdown: Slowdown, in_flight: int, expected: str) -> None:
    line = line_of(slowdown, in_flight)
    assert line.startswith(f"mirsafety 10/90 answered, {expected} 2 unscored, 1.0/s,")


def test_what_is_done_before_the_first_answer_is_said_first() -> None:
    found = Progress(90, 0, 0, 0, 0, 1, 1, 0.0, doing="starting vLLM: loading weights 50%, 41 s")
    expected = "mirsafety 0/90 answered, starting vLLM: loading weights 50%, 41 s"
    assert progress.status_line(found) == expected
    assert progress.status_line(found, 30) == "mirsafety 0/90 answered"


@pytest.mark.parametrize("width", [30, 50, 60, 79, 200])
def test_what_does_not_fit_is_left_out_whole(width: int) -> None:
    slowdown = Slowdown(11.2, 8, "HTTP 429")
    whole = line_of(slowdown).split(", ")
    parts = line_of(slowdown, width=width).split(", ")
    assert set(parts) <= set(whole)
    assert len(", ".join(parts)) <= width
    if width >= 50:
        assert parts[1] == "waiting 12 s (HTTP 429)"
    if width >= 79:
        assert parts[-1] == "about 78 s left"
