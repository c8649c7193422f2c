"""`--mir-dry-run`: tests are collected, and what they would ask is told instead of asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ..errors import RunError

if TYPE_CHECKING:
    from ..engine.estimates import Preview
    from ..run import Run


class DryRun:
    """Takes the place of the test loop."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._preview: Preview | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Run no test; errors of the collection are pytest's to tell.

        Raises:
            pytest.UsageError: the store cannot be read.
        """
        broken = session.testsfailed and not session.config.option.continue_on_collection_errors
        if broken or session.config.option.collectonly:
            return None
        from ..preview import preview

        try:
            self._preview = preview(self._run.plan, self._run.selected)
        except RunError as error:
            raise pytest.UsageError(str(error)) from None
        return True

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """What would be asked, and what it may cost."""
        if self._preview is None:
            return
        from ..reports.preview import render

        writer = terminalreporter._tw  # noqa: SLF001 - pytest has no public way to its width
        terminalreporter.write_sep("=", "mirsafety", bold=True)
        for line in render(self._preview, width=writer.fullwidth):
            terminalreporter.write_line(line.text, **line.markup)
