"""pytest-xdist's hooks on the controller: workers become clients of the one run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

import pytest

from ..errors import RunError

if TYPE_CHECKING:
    from ..run import Run
    from ..serving import Server
    from .session import Session

WORKER_INPUT: Final = "mirsafety"
WORKER_REDACTS: Final = "mirsafety-redacts"


class Spec(Protocol):
    """What is asked here of execnet's description of a worker."""

    popen: bool | None
    via: str | None


class Gateway(Protocol):
    """What is asked here of execnet's connection to a worker."""

    id: str


class Node(Protocol):
    """What is asked here of pytest-xdist's worker; nothing of it is imported."""

    gateway: Gateway
    workerinput: dict[str, object]


def is_distributed(config: pytest.Config) -> bool:
    """Whether pytest-xdist will distribute the tests of this session."""
    option = config.option
    distributes = getattr(option, "dist", "no") != "no" and getattr(option, "tx", None)
    return bool(distributes) and not option.collectonly


class Distribution:
    """Starts the server that workers connect to, and hands the engine what they selected."""

    def __init__(self, run: Run, session: Session, *, redact: bool = False) -> None:
        self._run = run
        self._session = session
        self._redact = redact
        self._server: Server | None = None
        self._first: str | None = None
        session.on_stop(self._halt)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_setupnodes(self, specs: Sequence[Spec]) -> None:
        """Refuse workers of other machines before any is started, then listen."""
        for spec in specs:
            if not spec.popen or spec.via:
                text = str(spec).removeprefix("execmodel=main_thread_only//")
                raise pytest.UsageError(
                    f"--tx={text}: with --mllm, workers run on this machine; use -n NUMBER"
                )
        from ..serving import Server

        self._server = Server(self._run, self._session.give_up)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Node) -> None:
        """Tell a worker, be it a replacement, where to connect."""
        if self._server is not None:
            node.workerinput[WORKER_INPUT] = self._server.invitation.to_plain()
            node.workerinput[WORKER_REDACTS] = self._redact

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodeready(self) -> None:
        """End the run if a worker could not join it."""
        self._session.check()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Node, ids: Sequence[str]) -> None:
        """Hand the engine its plan once the first worker has collected; the others must agree.

        Raises:
            pytest.UsageError: a worker selected other instances, or the run cannot be opened.
        """
        self._session.check()
        worker = node.gateway.id
        server = self._server
        if not ids or server is None or (selected := server.selection(worker)) is None:
            return
        if self._first is None:
            self._first = worker
            self._run.select(selected)
            self._session.connect()
        elif selected != server.selection(self._first):
            raise pytest.UsageError(
                f"worker {worker} collected other instances than {self._first}, or in another "
                "order: what shuffles or selects tests needs the same seed in every worker"
            )

    def pytest_unconfigure(self) -> None:
        """Let go of the workers."""
        if self._server is not None:
            self._run.stop()
            self._server.close()

    def _halt(self, reason: str, error: RunError | None) -> None:
        if self._server is not None:
            self._server.halt(reason, error)
