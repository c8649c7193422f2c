"""The life of a run inside a pytest session: collect, connect, ask, judge, close."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from ..errors import RunError
from ..records import Instance, Response, Verdict
from ..reports import terminal
from .items import instance_of, mark

if TYPE_CHECKING:
    from ..run import Run
    from .progress import Progress


class Session:
    """Hooks that take a run from collection to its end; what the fixtures call."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self._run = run
        self._progress = progress
        self._session: pytest.Session | None = None
        self._fatal: RunError | None = None

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Keep the session, to see when it decides to stop."""
        self._session = session

    def pytest_report_header(self) -> list[str]:
        """Say what is about to be asked."""
        plan, asked = self._run.plan, len(self._run.instances)
        planned = terminal.Planned(
            plan.model.name, plan.dataset.source, asked, len(plan.dataset.instances)
        )
        return terminal.header(planned, self._run.zones)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Mark each item with its instance's relation, group and category."""
        for item in items:
            if (found := instance_of(item)) is not None:
                item.own_markers += mark(found.relation), mark(found.group), mark(found.category)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Tell the run which instances are selected, in the order they will be tested."""
        found = (instance_of(item) for item in session.items)
        self._run.select([instance for instance in found if instance is not None])

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Connect before the first test; end with exit code 4 what could not go on."""
        if session.testscollected and not session.config.option.collectonly:
            try:
                self._run.connect()
            except RunError as error:
                raise pytest.UsageError(str(error)) from None
        try:
            return (yield)
        except session.Interrupted:
            if self._fatal is not None:
                raise pytest.UsageError(str(self._fatal)) from None
            raise

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self) -> None:
        """Stop asking as soon as pytest has decided to stop (-x, --maxfail)."""
        if self._session is not None and (self._session.shouldfail or self._session.shouldstop):
            self._run.stop()

    def pytest_keyboard_interrupt(self) -> None:
        """Stop asking on Ctrl-C."""
        self._run.stop()

    def pytest_unconfigure(self) -> None:
        """Close the engine and the store; what does not close changes no decision."""
        try:
            self._run.close()
        except RunError as error:
            warnings.warn(pytest.PytestWarning(f"mirsafety: {error}"), stacklevel=1)

    def answer(self, instance: Instance) -> Response:
        """The model's response; an error that ends the run stops the session."""
        self._progress.wait(instance)
        try:
            return self._run.answer(instance)
        except RunError as error:
            self._give_up(error)
            raise

    def verdict(self, instance: Instance, response: Response) -> Verdict:
        """The judge's verdict; an error that ends the run stops the session."""
        try:
            return self._run.verdict(instance, response)
        except RunError as error:
            self._give_up(error)
            raise

    def _give_up(self, error: RunError) -> None:
        self._fatal = error
        self._run.stop()
        if self._session is not None:
            self._session.shouldstop = str(error)
