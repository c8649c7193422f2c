"""How an instance's outcome shows: `U` for unsafe, `?` for unscored, never a failed test."""

from __future__ import annotations

import ast
import functools
import linecache
from collections.abc import Generator
from types import TracebackType
from typing import Final

import pytest

from ..errors import UnscoredError
from ..printable import one_line
from ..records import Outcome
from ..redaction import redacted_outcome
from ..results import DECIDED
from ..tally import worst
from ..taxonomy import Reason, Status
from .items import instance_of

_OUTCOME: Final = pytest.StashKey[Outcome]()


class Findings:
    """Turns recorded outcomes into pytest's outcomes.

    The outcome shown is the recorded one, whether or not the test asserts anything; a test that
    fails for another reason stays failed.
    """

    def __init__(self, *, strict: bool, redact: bool = False) -> None:
        self._strict = strict
        self._redact = redact
        self._item: pytest.Item | None = None

    def note(self, outcome: Outcome) -> None:
        """Take an outcome for the item that is running."""
        if self._redact:
            outcome = redacted_outcome(outcome)
        if self._item is not None:
            stash = self._item.stash
            known = stash.get(_OUTCOME, None)
            stash[_OUTCOME] = outcome if known is None else worst(known, outcome)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Remember which item is running: outcomes belong to it."""
        self._item = item
        try:
            return (yield)
        finally:
            self._item = None

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        """Swallow what only says that the instance is unsafe or unscored.

        Swallowed here, before pytest renders a traceback: at a realistic ASR thousands of
        tracebacks would cost more than all the rest.
        """
        try:
            return (yield)
        except UnscoredError:
            outcome = self._outcome(pyfuncitem)
            if outcome is None or outcome.status is not Status.UNSCORED:
                raise  # a verdict is there: this is about something else that the test asked
            return True
        except AssertionError as error:
            outcome = self._outcome(pyfuncitem)
            if outcome is None or outcome.status is Status.SAFE or not _asserts_safe(error):
                raise
            return True

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Give the report the outcome that was recorded."""
        report = yield
        if self._redact and instance_of(item) is not None:
            _say_nothing(report, call)
        outcome = self._outcome(item)
        if outcome is None or call.when == "teardown":
            return report
        unscored_in_setup = (
            call.when == "setup"
            and call.excinfo is not None
            and call.excinfo.errisinstance(UnscoredError)
            and outcome.status is Status.UNSCORED
        )
        if call.when == "setup" and not unscored_in_setup:
            return report
        _add_properties(item, report, outcome)
        if outcome.status is not Status.SAFE and (report.passed or unscored_in_setup):
            self._show(report, outcome)
        return report

    def _show(self, report: pytest.TestReport, outcome: Outcome) -> None:
        word = "UNSAFE" if outcome.status is Status.UNSAFE else f"UNSCORED: {outcome.reason}"
        message = one_line(f"{word}: {outcome.detail}" if outcome.detail else word)
        if self._strict and outcome.status is Status.UNSAFE:
            report.outcome, report.longrepr = "failed", message
            return
        if outcome.reason is Reason.NOT_RUN and outcome.detail == DECIDED:
            # Left out on purpose: an ordinary skip, where pytest looks for the place and reason.
            path, line, _ = report.location
            report.outcome, report.longrepr = "skipped", (path, line or 0, f"Skipped: {DECIDED}")
            return
        # pytest's own way to say "neither passed nor failed": JUnit shows it as skipped, with the
        # message. Only plain str may travel on a report.
        report.outcome = "skipped"
        vars(report).update(wasxfail=message, mir_outcome=str(outcome.status))

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
        """The letter, the word and the colour."""
        return _SHOWN.get(getattr(report, "mir_outcome", ""))

    @staticmethod
    def _outcome(item: pytest.Item) -> Outcome | None:
        return item.stash.get(_OUTCOME, None)


def _say_nothing(report: pytest.TestReport, call: pytest.CallInfo[None]) -> None:
    """Leave out what a test printed and why it failed: both may quote what it was answered."""
    report.sections = []
    if report.failed:
        what = "an error" if call.excinfo is None else call.excinfo.typename
        report.longrepr = f"{what}; --mir-redact leaves out the rest"


_SHOWN: Final = {
    "unsafe": ("unsafe", "U", ("UNSAFE", {"yellow": True, "bold": True})),
    "unscored": ("unscored", "?", ("UNSCORED", {"red": True})),
}


def _add_properties(item: pytest.Item, report: pytest.TestReport, outcome: Outcome) -> None:
    """At most two properties: each costs half a kilobyte in the JUnit writer's tree.

    Why an instance is safe is in the summary and the run folder.
    """
    name = outcome.reason if outcome.reason is not None else outcome.status
    properties = [_outcome_property(str(name))]
    if outcome.detail and outcome.status is not Status.SAFE:
        properties.append(("mirsafety.detail", one_line(outcome.detail)))
    # JUnit takes them from the teardown report, which reads them off the item.
    item.user_properties += properties
    report.user_properties += properties


@functools.cache
def _outcome_property(name: str) -> tuple[str, str]:
    """The one pair for all instances of this outcome."""
    return ("mirsafety.outcome", name)


def _asserts_safe(error: AssertionError) -> bool:
    """Whether the statement that failed is an assert that reads `.safe`."""
    entry: TracebackType | None = error.__traceback__
    while entry is not None and entry.tb_next is not None:
        entry = entry.tb_next
    return entry is not None and _reads_safe(entry.tb_frame.f_code.co_filename, entry.tb_lineno)


@functools.cache
def _reads_safe(filename: str, line: int) -> bool:
    try:
        tree = ast.parse("".join(linecache.getlines(filename)))
    except SyntaxError:
        return False
    return any(
        isinstance(node, ast.Assert)
        and node.lineno <= line <= (node.end_lineno or node.lineno)
        and any(isinstance(a, ast.Attribute) and a.attr == "safe" for a in ast.walk(node.test))
        for node in ast.walk(tree)
    )
