"""The progress line: rate and ETA on a terminal, a heartbeat where there is none."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Final

import pytest
from _pytest.terminal import TerminalReporter  # pytest 8 does not export it

from .items import instance_of

if TYPE_CHECKING:
    from ..engine import Progress as EngineProgress
    from ..records import Instance
    from ..run import Run

REDRAW_SECONDS: Final = 0.25
HEARTBEAT_SECONDS: Final = 30.0


class Progress:
    """Waits for the answer of the item about to run, and says how far the asking is.

    The wait is here, before the item's own protocol: nothing is captured yet, so the line can be
    drawn, and neither pytest-timeout nor the durations in JUnit count it.
    """

    def __init__(self, config: pytest.Config, run: Run) -> None:
        self._config = config
        self._run = run
        self._last_beat = time.monotonic()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Wait for this item's answer, once the asking has begun."""
        if (instance := instance_of(item)) is not None and self._run.asking:
            self.wait(instance, captured=False)
        return (yield)

    def wait(self, instance: Instance, *, captured: bool = True) -> None:
        """Block until the planned answer of this instance is there, drawing meanwhile."""
        screen = _Screen.of(self._config)
        capture = self._config.pluginmanager.get_plugin("capturemanager") if captured else None

        def tick() -> None:
            progress = self._run.progress()
            if screen is None:
                return
            if capture is None:
                self._draw(screen, progress)
            else:
                with capture.global_and_fixture_disabled():
                    self._draw(screen, progress)

        self._run.wait(instance, tick, REDRAW_SECONDS)
        if screen is not None and screen.drawn:
            if capture is None:
                screen.erase()
            else:
                with capture.global_and_fixture_disabled():
                    screen.erase()

    def _draw(self, screen: _Screen, progress: EngineProgress) -> None:
        if screen.tty:
            screen.draw(status_line(progress))
        elif time.monotonic() - self._last_beat >= HEARTBEAT_SECONDS:
            self._last_beat = time.monotonic()
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

    def draw(self, text: str) -> None:
        """Write on the line below, and return to where pytest was."""
        column = self._writer.width_of_current_line + 1
        text = text[: self._writer.fullwidth - 1]
        self._raw(f"\n\r\x1b[2K{text}\x1b[1A\x1b[{column}G")
        self.drawn = True

    def erase(self) -> None:
        """Clear the line below."""
        column = self._writer.width_of_current_line + 1
        self._raw(f"\n\r\x1b[2K\x1b[1A\x1b[{column}G")
        self.drawn = False

    def line(self, text: str) -> None:
        """A line of its own, for a log."""
        if self._writer.width_of_current_line > 0:
            self._writer.line()
        self._writer.line(text)
        self._writer.flush()

    def _raw(self, text: str) -> None:
        # Not through the writer: it would count these characters into pytest's current line.
        self._writer._file.write(text)  # noqa: SLF001 - see above
        self._writer.flush()


def status_line(progress: EngineProgress) -> str:
    """Such as `mirsafety 120/2676 answered, 16 in flight, 8.1/s, about 5 min left`."""
    parts = [
        f"mirsafety {progress.answered}/{progress.planned} answered",
        f"{progress.in_flight} in flight",
    ]
    if progress.unscored:
        parts.append(f"{progress.unscored} unscored")
    if progress.rate is not None and progress.remaining is not None:
        parts += [f"{progress.rate:.1f}/s", f"about {_duration(progress.remaining)} left"]
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 90:  # noqa: PLR2004 - a minute and a half reads better in seconds
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"  # noqa: PLR2004
