"""Gates as testcases of their own, the closing table, the summary file and the exit code."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

import pytest

from ..circumstances import Circumstances
from ..errors import ConfigurationError, RunError
from ..gates import Decision, exit_code
from ..redaction import redacted_result
from ..reports import github, summary, terminal
from ..reports.junit import GATES, GateCase
from ..results import RunResult

if TYPE_CHECKING:
    from pathlib import Path

    from ..circumstances import Commit
    from ..run import Run
    from .session import Session


_BYTE: Final = 256
_UNDECIDED: Final = exit_code((), require_all=False, tests_failed=False)


def _never_zero(code: int | None, otherwise: int) -> int:
    """The code, or another where a system, which keeps one byte of it, would make it a 0."""
    return int(code) if code is not None and 0 < code < _BYTE else otherwise


class GateReports:
    """Evaluates the gates after the last test and says so through pytest's own channels."""

    def __init__(
        self, config: pytest.Config, run: Run, owner: Session, commit: Commit | None = None
    ) -> None:
        self._config = config
        self._run = run
        self._owner = owner
        self._commit = commit
        self._session: pytest.Session | None = None
        self._whole = 0
        self._lost = False
        self._result: RunResult | None = None
        self._trouble: str | None = None
        self._kept: str | None = None
        self._page: str | None = None
        self._closing: tuple[str, ...] = ()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionstart(self) -> Generator[None, object, object]:
        """Whoever leaves before the session has begun gives no 0 either."""
        try:
            return (yield)
        except pytest.exit.Exception as error:
            error.returncode = _never_zero(error.returncode, _UNDECIDED)
            raise

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Send a report for each gate, also after -x and Ctrl-C: then the rest is not-run."""
        self._session = session
        option = session.config.option
        broken = session.testsfailed and not option.continue_on_collection_errors
        if broken or option.collectonly:
            return (yield)
        try:
            result = yield
        except pytest.UsageError:
            raise  # the run never began
        except BaseException as error:
            self._run.stop()
            # Whoever presses Ctrl-C does not wait for the judge: a PASS is void without it.
            interrupted = isinstance(error, KeyboardInterrupt)
            stopped = isinstance(error, session.Interrupted)
            self._conclude(session, tried=stopped or not interrupted)
            raise
        self._conclude(session)
        return result

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, error: object) -> None:
        """Remember that a worker died: maybe before anybody has told which tests there are."""
        self._lost = self._lost or bool(error)

    def _conclude(self, session: pytest.Session, *, tried: bool = True) -> None:
        if self._lost and not session.testscollected and self._run.plan.design.decides:
            # No worker lived to tell its tests: none of the plan was run.
            self._run.select(self._run.instances)
            session.testscollected = len(self._run.instances)
        if session.testscollected:
            self._include_gates()
            if tried:
                self._try_judge()
            result = self._run.evaluate()
            if self._config.getoption("--mir-redact"):
                result = redacted_result(result)
            self._result = result
            self._send(session, self._result)

    def _try_judge(self) -> None:
        try:
            self._run.challenge()
        except RunError as error:
            raise pytest.UsageError(str(error)) from None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self) -> None:
        """Before the first test, make the gates part of what the percentage is of."""
        self._include_gates()

    def _include_gates(self) -> None:
        # pytest-xdist sets the number anew with each worker that has collected.
        if self._session is not None and self._session.testscollected != self._whole:
            design = self._run.plan.design
            self._session.testscollected += (
                0 if design.shard else len(design.gates + design.regression)
            )
            self._whole = self._session.testscollected

    def _send(self, session: pytest.Session, result: RunResult) -> None:
        manager = session.config.pluginmanager
        # The session would count a gate as a failed test, and --lf and --sw would wait for ever
        # for an item that cannot be collected.
        names = ["lfplugin", "stepwiseplugin"]
        if self._owner.refused:
            names.append("terminalreporter")  # one line says it all; files hold the open gates
        deaf = [session, *filter(None, (manager.get_plugin(name) for name in names))]
        log_start = manager.subset_hook_caller("pytest_runtest_logstart", deaf)
        log_report = manager.subset_hook_caller("pytest_runtest_logreport", deaf)
        log_finish = manager.subset_hook_caller("pytest_runtest_logfinish", deaf)
        bare = session.config.getoption("--mir-junit-properties") == "none"
        for case in GateCase.all_of(result):
            reports = _reports(replace(case, properties=()) if bare else case)
            log_start(nodeid=reports[0].nodeid, location=reports[0].location)
            for report in reports:
                log_report(report=report)
            log_finish(nodeid=reports[0].nodeid, location=reports[0].location)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
        """INCONCLUSIVE is a category of its own."""
        if report.when == "call" and getattr(report, "mir_gate", "") == Decision.INCONCLUSIVE:
            return "inconclusive", "I", ("INCONCLUSIVE", {"red": True, "bold": True})
        return None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int
    ) -> Generator[None, object, object]:
        """Let the gates decide the exit code, unless something worse already has."""
        if self._result is not None:
            self._settle(session, self._result, exitstatus)
        elif not self._only_shows():
            # Somebody left before the first test, perhaps with a 0 that no gate has given.
            session.exitstatus = _never_zero(exitstatus, _UNDECIDED)
        settled = int(session.exitstatus)
        try:
            return (yield)
        except pytest.exit.Exception as error:
            error.returncode = _never_zero(error.returncode, settled)
            raise
        finally:
            if settled:  # whoever comes later cannot make it a pass
                session.exitstatus = _never_zero(session.exitstatus, settled)

    def _settle(self, session: pytest.Session, result: RunResult, exitstatus: int) -> None:
        for plugin in session.config.pluginmanager.get_plugins():
            if add := getattr(plugin, "add_global_property", None):
                for name, value in summary.properties(result, self._circumstances):
                    add(name, value)
        if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            session.exitstatus = result.exit_code(tests_failed=bool(exitstatus))
        else:
            gates = result.exit_code(tests_failed=False) or _UNDECIDED
            session.exitstatus = _never_zero(exitstatus, gates)
        failed = bool(session.testsfailed) or exitstatus == pytest.ExitCode.TESTS_FAILED
        try:
            self._result = result = self._with_attention(result)
            self._keep(result, int(session.exitstatus), tests_failed=failed)
        except RunError as error:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
            self._trouble = str(error)
        if not self._owner.refused:
            code = int(session.exitstatus)
            self._closing = tuple(github.conclude(result, code, os.environ))

    def _with_attention(self, result: RunResult) -> RunResult:
        """With what `--mir-attention` found, which is written to the run folder.

        Raises:
            RunError: it cannot be written, or read any more.
        """
        if self._run.plan.watch is None:
            return result
        from ..attention.reporting import report

        name = self._config.getoption("--mir-run")
        base = self._config.invocation_params.dir
        found = report(base / name, result, self._run.attention, shown=name)
        return replace(result, notes=(*result.notes, *found))

    def _keep(self, result: RunResult, code: int, *, tests_failed: bool) -> None:
        """Write the summary and the run folder, where they were asked for.

        Raises:
            ConfigurationError: one cannot be written.
        """
        base = self._config.invocation_params.dir
        if (name := self._config.getoption("--mir-summary")) is not None:
            try:
                with (base / name).open("w", encoding="utf-8") as file:
                    file.writelines(summary.to_json(result, code))
            except OSError as error:
                text = f"--mir-summary={base / name} cannot be written: {error.strerror}"
                raise ConfigurationError(text) from None
        if (name := self._config.getoption("--mir-run")) is not None:
            from .. import run_folder

            run_folder.write(
                base / name,
                result,
                tests_failed=tests_failed,
                exit_code=code,
                exchanges=self._run.exchange,
                circumstances=self._circumstances,
            )
            self._kept = name
            if self._config.getoption("--mir-report"):
                self._page = self._report(base / name)

    def _report(self, folder: Path) -> str:
        """Write report.html and report.md into the run folder; gives the page as it is named.

        They are made of what the folder holds, as mirsafety report would make them later.

        Raises:
            RunError: one cannot be written.
        """
        from .. import reporting

        reported = reporting.recorded(folder, dataset=self._run.plan.dataset)
        page = reporting.write_page(reported)
        reporting.write_markdown(reported, page=page)
        return f"{str(self._kept).rstrip('/')}/{page.name}"

    @cached_property
    def _circumstances(self) -> Circumstances:
        from ..inventory import environment

        plan = self._run.plan
        served = {str(plan.model.settings.provider), str(plan.judged_by.provider)}
        return Circumstances(
            ended=time.time(),
            model=plan.backend.identity,
            environments=(environment(self._commit, served),),
        )

    def _only_shows(self) -> bool:
        option = self._config.option
        shows = ("collectonly", "showfixtures", "show_fixtures_per_test")
        shown = any(getattr(option, name, False) for name in shows)
        return shown or not self._run.plan.design.decides

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table of gates, what was found, and the ruling."""
        if self._result is None or self._owner.refused:
            return
        writer = terminalreporter._tw  # noqa: SLF001 - pytest has no public way to its width
        terminalreporter.write_sep("=", "mirsafety", bold=True)
        folder = self._kept  # None where it does not hold this run
        if self._run.plan.design.shard is not None:
            folder = self._config.getoption("--mir-run")
        for line in terminal.render(
            self._result, width=writer.fullwidth, folder=folder, page=self._page
        ):
            terminalreporter.write_line(github.harmless(line.text, os.environ), **line.markup)
        if self._trouble is not None:
            trouble = github.harmless(f"ERROR: {self._trouble}", os.environ)
            terminalreporter.write_line(trouble, red=True)
        for text in self._closing:
            terminalreporter.write_line(text)


def _reports(case: GateCase) -> list[pytest.TestReport]:
    message, text = (github.harmless(one, os.environ) for one in (case.message, case.text))
    texts: dict[str, GateFailure | tuple[str, int, str]] = {
        "failed": GateFailure(message, text),
        "skipped": (GATES, 0, message),
    }
    reports = []
    for when in ("setup", "call", "teardown"):
        report = pytest.TestReport(
            nodeid=f"{GATES}::{case.name}",
            location=(GATES, None, case.name),
            keywords={},
            outcome=case.outcome if when == "call" else "passed",
            # pytest asks of a failure's text no more than what GateFailure has.
            longrepr=texts.get(case.outcome) if when == "call" else None,  # type: ignore[arg-type]
            when=when,
            user_properties=case.properties,
            mir_gate=str(case.decision),
        )
        reports.append(report)
    return reports


class _Crash:
    """Where pytest's short summary looks for a message."""

    def __init__(self, message: str) -> None:
        self.message = message

    def __str__(self) -> str:
        return self.message


class GateFailure:
    """What the FAILURES section says about a gate; also the message of its JUnit testcase."""

    def __init__(self, message: str, text: str) -> None:
        self.reprcrash = _Crash(message)
        self._text = text

    def __str__(self) -> str:
        return self._text

    def toterminal(self, tw: pytest.TerminalReporter) -> None:
        """Write to a terminal, as pytest's own failure texts do."""
        tw.line(str(self), red=True)
