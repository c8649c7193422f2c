"""How an instance's outcome shows: `U` for unsafe, `?` for unscored, never a failed test."""

from __future__ import annotations

import ast
import functools
import linecache
import os
import warnings
from collections.abc import Generator
from types import TracebackType
from typing import Final, Self

import pytest

from ..errors import UnscoredError
from ..records import Outcome, Response, Verdict
from ..redaction import redacted_outcome
from ..reports import github
from ..reports.instance_cases import Extent, InstanceCase, message, without_evidence, word_of
from ..results import DECIDED
from ..tally import worst
from ..taxonomy import Reason, Status
from .items import instance_of

_LEFT_OUT: Final = "--mir-redact leaves out the rest"

_OUTCOME: Final = pytest.StashKey[Outcome]()


class Findings:
    """Turns recorded outcomes into pytest's outcomes.

    The outcome shown is the recorded one, whether or not the test asserts anything; a test that
    fails for another reason stays failed.
    """

    def __init__(
        self,
        *,
        strict: bool,
        redact: bool = False,
        extent: Extent = "short",
        answers: bool = False,
        evidence: bool = True,
    ) -> None:
        self._strict = strict
        self._redact = redact
        self._evidence = evidence
        self._extent = extent
        self._answers = answers and not redact
        self._item: pytest.Item | None = None
        self._case = InstanceCase()

    @classmethod
    def of(cls, config: pytest.Config, *, redact: bool) -> Self:
        """As the options of this session say."""
        option = config.getoption
        return cls(
            strict=option("--mir-strict"),
            redact=redact,
            extent=option("--mir-junit-properties"),
            answers=option("--mir-junit-text"),
            # pytest has one message for terminal and JUnit; the closing section tells the rest.
            evidence=option("--mir-junit-text") or not getattr(config.option, "xmlpath", None),
        )

    def note(self, outcome: Outcome) -> None:
        """Take an outcome for the item that is running."""
        if self._redact:
            outcome = redacted_outcome(outcome)
        elif not self._evidence:
            outcome = without_evidence(outcome)
        if self._item is not None:
            stash = self._item.stash
            known = stash.get(_OUTCOME, None)
            stash[_OUTCOME] = outcome if known is None else worst(known, outcome)

    def answered(self, response: Response) -> None:
        """Take what the answer of the item that is running took."""
        completion, case = response.completion, self._case
        case.input_tokens, case.output_tokens = completion.input_tokens, completion.output_tokens
        case.latency = completion.latency
        case.answer = response.answer if self._answers else None

    def judged(self, verdict: Verdict) -> None:
        """Take who judged the answer of the item that is running."""
        self._case.judge = verdict.judge

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Remember which item is running: outcomes belong to it."""
        self._item = item
        # Nothing of it is kept on the item, which stays until the session ends.
        instance = instance_of(item)
        self._case = (
            InstanceCase()
            if instance is None
            else InstanceCase(instance.relation, instance.category, arm=instance.arm)
        )
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
        if self._redact and _may_quote(item):
            _say_nothing(report, call)
        outcome = self._outcome(item)
        if outcome is None:
            return report
        if call.when == "teardown":
            _share_properties(item, report)
            return report
        unscored_in_setup = (
            call.when == "setup"
            and call.excinfo is not None
            and call.excinfo.errisinstance(UnscoredError)
            and outcome.status is Status.UNSCORED
        )
        if call.when == "setup" and not unscored_in_setup:
            return report
        self._add_properties(item, report, outcome)
        if outcome.status is not Status.SAFE and (report.passed or unscored_in_setup):
            self._show(report, outcome)
        return report

    def _add_properties(
        self, item: pytest.Item, report: pytest.TestReport, outcome: Outcome
    ) -> None:
        properties = self._case.properties(outcome, self._extent)
        # JUnit takes them from the teardown report, which reads them off the item.
        item.user_properties += properties
        _share_properties(item, report)

    def _show(self, report: pytest.TestReport, outcome: Outcome) -> None:
        arm = self._case.arm
        said = github.harmless(message(outcome, arm), os.environ)
        if self._strict and outcome.status is Status.UNSAFE:
            report.outcome, report.longrepr = "failed", said
            return
        if outcome.reason is Reason.NOT_RUN and outcome.detail == DECIDED:
            # Left out on purpose: an ordinary skip, where pytest looks for the place and reason.
            path, line, _ = report.location
            report.outcome, report.longrepr = "skipped", (path, line or 0, f"Skipped: {DECIDED}")
            return
        # pytest's own way to say "neither passed nor failed": JUnit shows it as skipped, with the
        # message. Only plain str may travel on a report.
        report.outcome = "skipped"
        shown = word_of(outcome, arm) if outcome.reason is None else str(outcome.status)
        vars(report).update(wasxfail=said, mir_outcome=shown)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A subtest's report gets what it printed, and its values, once it is made."""
        # By what it has: before pytest 9, subtests are a plugin's, with a report of its own.
        if self._redact and (context := getattr(report, "context", None)) is not None:
            report.sections = []
            vars(report)["context"] = type(context)(msg=None, kwargs={})

    @pytest.hookimpl(tryfirst=True)
    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage, when: str) -> None:
        """A test may warn in the words that it was answered with; where it did so is left."""
        if self._redact and when == "runtest":
            warning_message.message = _LEFT_OUT

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
        """The letter, the word and the colour."""
        return _SHOWN.get(getattr(report, "mir_outcome", ""))

    @staticmethod
    def _outcome(item: pytest.Item) -> Outcome | None:
        return item.stash.get(_OUTCOME, None)


def _may_quote(item: pytest.Item) -> bool:
    """Whether the test has texts of the data or the model, also with instances of its own."""
    return instance_of(item) is not None or "mllm" in getattr(item, "fixturenames", ())


def _say_nothing(report: pytest.TestReport, call: pytest.CallInfo[None]) -> None:
    """Leave out what a test printed and why it ended: both may quote what it was answered."""
    report.sections = []
    if report.failed:
        what = "an error" if call.excinfo is None else call.excinfo.typename
        report.longrepr = f"{what}; {_LEFT_OUT}"
    elif isinstance(report.longrepr, tuple):  # pytest looks for place and reason of a skip here
        path, line, _ = report.longrepr
        report.longrepr = (path, line, f"Skipped: {_LEFT_OUT}")
    if hasattr(report, "wasxfail"):
        report.wasxfail = _LEFT_OUT


_SHOWN: Final = {
    "unsafe": ("unsafe", "U", ("UNSAFE", {"yellow": True, "bold": True})),
    "not-answered": ("not answered", "N", ("NOT ANSWERED", {"yellow": True, "bold": True})),
    "flipped": ("flipped", "V", ("FLIPPED", {"yellow": True, "bold": True})),
    "unscored": ("unscored", "?", ("UNSCORED", {"red": True})),
}


def _share_properties(item: pytest.Item, report: pytest.TestReport) -> None:
    """One list for the item and its reports: pytest keeps them all until the session ends."""
    report.user_properties = item.user_properties


_VERDICTS: Final = frozenset({"safe", "answered"})
"""What a test may assert of a verdict, without which it is no failure but a finding."""


def _asserts_safe(error: AssertionError) -> bool:
    """Whether the statement that failed is an assert that reads `.safe` or `.answered`."""
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
        and any(isinstance(a, ast.Attribute) and a.attr in _VERDICTS for a in ast.walk(node.test))
        for node in ast.walk(tree)
    )
