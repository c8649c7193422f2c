"""The life of a run inside the pytest session that owns it: connect, stop, close."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import pytest

from ..errors import RunError
from ..records import MULTI
from ..reports import github, terminal

if TYPE_CHECKING:
    from ..run import Run


class Session:
    """Hooks that take a run from its header to its end."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._session: pytest.Session | None = None
        self._stopping: list[Callable[[str, RunError | None], None]] = []
        self.fatal: RunError | None = None

    def on_stop(self, listener: Callable[[str, RunError | None], None]) -> None:
        """Call `listener` with the reason, and the error if it is one, before the run stops."""
        self._stopping.append(listener)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Keep the session, to see when it decides to stop."""
        self._session = session

    def pytest_report_header(self, config: pytest.Config) -> list[str]:
        """Say what is about to be asked."""
        from ..cautions import cautions, peculiarities

        plan = self._run.plan
        planned = terminal.Planned(
            model=plan.model.name,
            data=plan.dataset.source,
            asked=sum(i.arm == MULTI for i in plan.instances) // plan.design.trials.count,
            population=len(plan.dataset.instances),
            shard=plan.design.shard,
            trials=plan.design.trials,
            arms=tuple(a.name for a in plan.arms.planned if a.name in plan.arms.asked),
            kept=config.getoption("--mir-run") is not None,
            cautions=(*peculiarities(plan), *cautions(plan)),
        )
        lines = terminal.header(planned, plan.zones)
        return [github.harmless(line, os.environ) for line in lines]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Connect before the first test; end with exit code 4 what could not go on."""
        if session.testscollected and not session.config.option.collectonly:
            self.connect()
        try:
            return (yield)
        except KeyboardInterrupt:  # of which pytest's and pytest-xdist's Interrupted are kinds
            self.check()
            raise

    def connect(self) -> None:
        """Open what the run needs.

        Raises:
            pytest.UsageError: it cannot be opened; one line says why.
        """
        try:
            self._run.connect()
        except RunError as error:
            raise pytest.UsageError(github.harmless(str(error), os.environ)) from None

    @property
    def refused(self) -> bool:
        """Something has ended the run before it found anything."""
        return self.fatal is not None and not self._run.judged

    def check(self) -> None:
        """Raise a `pytest.UsageError` if something has ended the run."""
        if self.fatal is not None:
            if self._session is not None:
                # pytest would write its reason to stop as well, and has no public way to unset it.
                vars(self._session)["_shouldstop"] = False
            raise pytest.UsageError(github.harmless(str(self.fatal), os.environ)) from None

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self) -> None:
        """Stop asking as soon as pytest has decided to stop (-x, --maxfail)."""
        if self._session is not None and (self._session.shouldfail or self._session.shouldstop):
            self._stop(str(self._session.shouldfail or self._session.shouldstop))

    def pytest_keyboard_interrupt(self) -> None:
        """Stop asking on Ctrl-C."""
        self._stop("interrupted")

    def pytest_unconfigure(self, config: pytest.Config) -> None:
        """Close the engine and the store; what does not close changes no decision."""
        self._stop("the session ended")
        if config.pluginmanager.hasplugin("terminalreporter"):
            # What ended the run is said on stderr, and in a log must not land within a line.
            config.get_terminal_writer().flush()
        try:
            self._run.close()
        except RunError as error:
            warnings.warn(pytest.PytestWarning(f"mirsafety: {error}"), stacklevel=1)

    def give_up(self, error: RunError) -> None:
        """End the session for an error that concerns all of it; any thread may call this."""
        self.fatal = self.fatal or error
        self._stop(str(error), error)
        if self._session is not None:
            self._session.shouldstop = str(error)

    def _stop(self, reason: str, error: RunError | None = None) -> None:
        for listener in self._stopping:
            listener(reason, error)
        self._run.stop()
