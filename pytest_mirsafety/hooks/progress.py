"""The progress line: rate and ETA on a terminal, a heartbeat where there is none."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Final

import pytest
from _pytest.terminal import TerminalReporter  # pytest 8 does not export it

from ..reports import github

if TYPE_CHECKING:
    from ..engine.engine import Progress as EngineProgress
    from ..records import Instance
    from ..run import Run

REDRAW_SECONDS: Final = 0.25
HEARTBEAT_SECONDS: Final = 30.0


class Progress:
    """Waits for the answer of a test, and says meanwhile how far the asking is."""

    def __init__(self, config: pytest.Config, run: Run) -> None:
        self._config = config
        self._run = run
        self._beat = _Beat()

    def wait(self, instance: Instance, *, captured: bool = True) -> None:
        """Block until the planned answer of this instance is there, drawing meanwhile."""
        capture = self._config.pluginmanager.get_plugin("capturemanager") if captured else None
        shown = nullcontext if capture is None else capture.global_and_fixture_disabled
        screen: _Screen | None = None

        def tick() -> None:
            nonlocal screen
            screen = screen or _Screen.of(self._config)  # only now: most answers are there
            if screen is not None:
                with shown():
                    self._beat.show(screen, self._run.progress())

        try:
            self._run.wait(instance, tick, REDRAW_SECONDS)
        finally:
            if screen is not None and screen.drawn:
                with shown():
                    screen.erase()

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Leave a clean line to what is written after an interrupt."""
        try:
            return (yield)
        except KeyboardInterrupt:
            if (screen := _Screen.of(self._config)) is not None:
                screen.clear()
            raise


class WorkersProgress:
    """Says how far the asking is while workers of pytest-xdist run the tests.

    Nobody waits in this process, so a thread draws in silent stretches. Each report erases the
    line before pytest writes and draws it again after; one lock keeps the two apart.
    """

    def __init__(self, config: pytest.Config, run: Run) -> None:
        self._config = config
        self._run = run
        self._beat = _Beat()
        self._screen: _Screen | None = None
        self._lock = threading.RLock()
        self._ended = threading.Event()

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Draw for as long as workers run tests."""
        self._screen = _Screen.of(self._config)
        thread = threading.Thread(target=self._draw, name="mirsafety-progress", daemon=True)
        thread.start()
        try:
            return (yield)
        except KeyboardInterrupt:
            self._end(thread)
            if self._screen is not None:
                self._screen.clear()
            raise
        finally:
            self._end(thread)
            self._screen = None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logstart(self) -> Generator[None, object, object]:
        """Let pytest write its line."""
        with self._aside():
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self) -> Generator[None, object, object]:
        """Let pytest write its letter."""
        with self._aside():
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collectreport(self) -> Generator[None, object, object]:
        """Let pytest write its letter."""
        with self._aside():
            return (yield)

    @pytest.hookimpl(tryfirst=True, optionalhook=True)
    def pytest_testnodedown(self) -> None:
        """Give way to what pytest-xdist writes; the thread draws again."""
        with self._lock:
            self._erase()

    @contextmanager
    def _aside(self) -> Iterator[None]:
        with self._lock:
            drawn = self._erase()
            yield
            if drawn and self._screen is not None:
                self._screen.draw(status_line(self._run.progress(), self._screen.width))

    def _end(self, thread: threading.Thread) -> None:
        self._ended.set()
        thread.join()
        self._erase()

    def _erase(self) -> bool:
        if (screen := self._screen) is None or not screen.drawn:
            return False
        screen.erase()
        return True

    def _draw(self) -> None:
        while not self._ended.wait(REDRAW_SECONDS):
            with self._lock:
                if self._screen is not None and self._run.asking:
                    self._beat.show(self._screen, self._run.progress())


class _Beat:
    """Draws where a line can be taken away again, and elsewhere writes one now and then."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def show(self, screen: _Screen, progress: EngineProgress) -> None:
        """Say how far the asking is, if it is time."""
        if screen.tty:
            screen.draw(status_line(progress, screen.width))
        elif time.monotonic() - self._last >= HEARTBEAT_SECONDS:
            self._last = time.monotonic()
            screen.line(status_line(progress))


class _Screen:
    """Draws below pytest's own line and takes it away again, so that the rest is pytest's."""

    def __init__(self, reporter: pytest.TerminalReporter, *, tty: bool) -> None:
        self._writer = reporter._tw  # noqa: SLF001 - pytest has no public way to its writer
        self.tty = tty
        self.drawn = False

    @classmethod
    def of(cls, config: pytest.Config) -> _Screen | None:
        """The screen, or None where a progress line would disturb."""
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        if type(reporter) is not TerminalReporter or config.option.verbose < -1:
            return None
        if config.getoption("capture", "no") == "no":
            return None
        return cls(reporter, tty=bool(reporter.isatty) and os.environ.get("TERM") != "dumb")

    @property
    def width(self) -> int:
        """How long a drawn line may be."""
        return self._writer.fullwidth - 1

    def draw(self, text: str) -> None:
        """Write on the line below, and return to where pytest was."""
        column = self._writer.width_of_current_line + 1
        text = text[: self.width]
        self._raw(f"\n\r\x1b[2K{text}\x1b[1A\x1b[{column}G")
        self.drawn = True

    def erase(self) -> None:
        """Clear the line below."""
        column = self._writer.width_of_current_line + 1
        self._raw(f"\n\r\x1b[2K\x1b[1A\x1b[{column}G")
        self.drawn = False

    def clear(self) -> None:
        """Take away what is right of pytest's text and below: the `^C` that a terminal echoes."""
        if self.tty:
            self._raw(f"\x1b[{self._writer.width_of_current_line + 1}G\x1b[J")
            self.drawn = False

    def line(self, text: str) -> None:
        """A line of its own, for a log."""
        if self._writer.width_of_current_line > 0:
            self._writer.line()
        self._writer.line(github.harmless(text, os.environ))
        self._writer.flush()

    def _raw(self, text: str) -> None:
        # Not through the writer: it would count these characters into pytest's current line.
        self._writer._file.write(text)  # noqa: SLF001 - see above
        self._writer.flush()


def status_line(progress: EngineProgress, width: int | None = None) -> str:
    """Such as `mirsafety 120/2676 answered, 16 in flight, 8.1/s, about 5 min left`.

    What does not fit into the width is left out, the least telling first.
    """
    parts = {
        "answered": f"mirsafety {progress.answered}/{progress.planned} answered",
        "doing": progress.doing,
        "wait": _wait(progress),
        "flight": "" if progress.doing else _in_flight(progress),
        "unscored": f"{progress.unscored} unscored" if progress.unscored else "",
    }
    if progress.rate is not None and progress.remaining is not None:
        parts["rate"] = f"{progress.rate:.1f}/s"
        parts["left"] = f"about {_duration(progress.remaining)} left"
    droppable = ["rate", "unscored", "flight", "left", "wait", "doing"]
    while len(line := ", ".join(filter(None, parts.values()))) > (width or len(line)) and droppable:
        parts.pop(droppable.pop(0), None)
    return line


def _wait(progress: EngineProgress) -> str:
    """Why nothing moves, if nothing does."""
    slowdown = progress.slowdown
    if slowdown.wait >= 1:
        why = slowdown.trouble or "limit per minute"
        return f"waiting {_duration(math.ceil(slowdown.wait))} ({why})"
    if slowdown.trouble and not progress.in_flight:
        return f"trying again ({slowdown.trouble})"
    return ""


def _in_flight(progress: EngineProgress) -> str:
    limit = progress.slowdown.limit
    slowed = "" if limit is None else f" (slowed to {limit})"
    return f"{progress.in_flight} in flight{slowed}"


def _duration(seconds: float) -> str:
    if seconds < 90:  # noqa: PLR2004 - a minute and a half reads better in seconds
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"  # noqa: PLR2004
