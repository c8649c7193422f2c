"""The plugin in a worker of pytest-xdist: the tests run here, the run is the controller's."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from ..channel import Invitation
from ..errors import RunError
from .distribution import WORKER_INPUT, WORKER_REDACTS
from .findings import Findings
from .fixtures import fixtures_module
from .items import register_arms
from .testing import Testing

if TYPE_CHECKING:
    from ..records import Instance
    from ..remote import RemoteRun


def parts(config: pytest.Config) -> dict[str, object]:
    """The plugins of a worker, by name; none if the controller ends the run at once."""
    from ..remote import RemoteRun

    given = vars(config)["workerinput"]
    try:
        run = RemoteRun.join(Invitation.from_plain(given[WORKER_INPUT]), given["workerid"])
    except RunError:
        return {}  # the controller was told, and says it in one line
    register_arms(config, run.instances)
    findings = Findings.of(config, redact=bool(given.get(WORKER_REDACTS)))
    run.on_outcome(findings.note)
    waiting = _Silently(run)
    testing = Testing(run, waiting, findings, _leave_to_the_controller)
    return {
        "findings": findings,
        "testing": testing,
        "end": _End(run),
        "fixtures": fixtures_module(testing, run.instances),
    }


class _Silently:
    """Waits and draws nothing: the controller has the terminal."""

    def __init__(self, run: RemoteRun) -> None:
        self._run = run

    def wait(self, instance: Instance, *, captured: bool = True) -> None:  # noqa: ARG002 - nothing is drawn
        """Block until the answer is there."""
        self._run.wait(instance)


class _End:
    """Ends this worker once the controller has ended the run, and lets go of the connection."""

    def __init__(self, run: RemoteRun) -> None:
        self._run = run

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """After this test there is none."""
        try:
            return (yield)
        finally:
            if self._run.halted is not None:
                item.session.shouldstop = self._run.halted

    def pytest_unconfigure(self) -> None:
        """Close the connection."""
        self._run.close()


def _leave_to_the_controller(error: RunError) -> None:
    """It knows the error: it came from there."""
