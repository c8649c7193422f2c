"""What happens where the tests run: marks, selection, answers and verdicts, one test's end."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Protocol

import pytest

from ..errors import NotRunError, RunError
from ..records import Instance, Outcome, Response, Verdict
from ..taxonomy import Reason, Status
from .items import instance_of, marks


class TestedRun(Protocol):
    """What tests need of a run, be it in this process or in the controller's."""

    @property
    def asking(self) -> bool:
        """The plan has begun to be asked."""

    def select(self, instances: Sequence[Instance]) -> None:
        """Fix which instances the tests cover, in their order."""

    def answer(self, instance: Instance) -> Response:
        """The model's response."""

    def verdict(self, instance: Instance, response: Response) -> Verdict:
        """The judge's verdict."""

    def finish(self, instance: Instance) -> None:
        """Note that a test of this instance has ended."""


class Waiting(Protocol):
    """How a test waits for its answer."""

    def wait(self, instance: Instance, *, captured: bool = True) -> None:
        """Block until the answer is there; `captured` tells that pytest captures output now."""


class Noted(Protocol):
    """Who shows what came of the test that is running."""

    def note(self, outcome: Outcome) -> None:
        """Take an outcome."""

    def answered(self, response: Response) -> None:
        """Take the response to its instance."""

    def judged(self, verdict: Verdict) -> None:
        """Take the verdict on it."""


class Testing:
    """Hooks around each test, and what the fixtures call.

    `noted` is told what comes of each test, and what an error that ends the run means for the one
    that met it; `give_up` is told the error.
    """

    __test__ = False

    def __init__(
        self,
        run: TestedRun,
        waiting: Waiting,
        noted: Noted,
        give_up: Callable[[RunError], None],
    ) -> None:
        self._run = run
        self._waiting = waiting
        self._noted = noted
        self._give_up = give_up
        self._instance: Instance | None = None

    @property
    def instance(self) -> Instance:
        """The instance that the running test was parametrized with."""
        if self._instance is None:
            raise LookupError("no test that takes an instance is running")
        return self._instance

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Mark each item with its instance's relation, group and category, and with its arm."""
        for item in items:
            if (found := instance_of(item)) is not None:
                item.own_markers += marks(found.relation, found.category, found.arm)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Tell the run which instances are selected, in the order they will be tested."""
        found = (instance_of(item) for item in session.items)
        self._run.select([instance for instance in found if instance is not None])

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Wait for this item's answer, once the asking has begun, and tell when its test ended.

        Waited for here, before the item's own protocol, neither pytest-timeout nor the durations
        in JUnit count it, and nothing is captured yet.
        """
        if (instance := instance_of(item)) is None:
            return (yield)
        self._instance = instance
        try:
            if self._run.asking:
                self._waiting.wait(instance, captured=False)
            return (yield)
        finally:
            self._instance = None
            self._run.finish(instance)

    def answer(self, instance: Instance) -> Response:
        """The model's response; an error that ends the run stops the session."""
        try:
            self._waiting.wait(instance)
            response = self._run.answer(instance)
        except RunError as error:
            raise self._ended(error) from error
        if instance is self._instance:
            self._noted.answered(response)
        return response

    def verdict(self, instance: Instance, response: Response) -> Verdict:
        """The judge's verdict; an error that ends the run stops the session."""
        try:
            verdict = self._run.verdict(instance, response)
        except RunError as error:
            raise self._ended(error) from error
        if instance is self._instance:
            self._noted.judged(verdict)
        return verdict

    def _ended(self, error: RunError) -> NotRunError:
        self._give_up(error)
        # The test is none that failed: the one line at the end says what is wrong.
        line = str(error).partition("\n")[0]  # what a server said last is for the end
        self._noted.note(Outcome(Status.UNSCORED, Reason.NOT_RUN, line))
        return NotRunError(line)
