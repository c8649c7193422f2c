"""The controller's side of a distributed run: workers use its one engine, store and ledger."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from .channel import ChannelError, Invitation, Line, Reception
from .errors import DataError, RunError
from .image_passing import Places
from .messages import (
    Plain,
    instance_from,
    plain_error,
    plain_instance,
    plain_outcome,
    plain_response,
    plain_verdict,
    response_from,
)
from .records import MULTI, Instance, Outcome
from .run import Run

_LOOK_SECONDS: Final = 0.5
"""Seconds between two looks whether the worker that waits is still there."""
_MOST_OPERATIONS: Final = 1000
"""Far more than workers: a worker waits for one thing, but may have given up on others."""


class Server:
    """Lets workers use a `Run`, each connection in a thread of its own.

    `give_up` is called, in the thread of the worker concerned, with an error that ends the run.
    """

    def __init__(self, run: Run, give_up: Callable[[RunError], None]) -> None:
        self._run = run
        self._give_up = give_up
        self._places = Places(run.plan.dataset.instances, run.plan.arms.twin_instances)
        self._planned = {instance.id: instance for instance in run.instances}
        self._selections: dict[str, list[Instance]] = {}
        self._halted: str | None = None
        self._fatal: RunError | None = None
        self._caused = threading.local()
        run.on_outcome(self._note)
        self._threads = ThreadPoolExecutor(_MOST_OPERATIONS, "mirsafety-operation")
        self._reception = Reception(self._serve)

    @property
    def invitation(self) -> Invitation:
        """What a worker needs to connect."""
        return self._reception.invitation

    def selection(self, worker: str) -> list[Instance] | None:
        """The planned instances that this worker's tests cover, in their order, if it told."""
        return self._selections.get(worker)

    def halt(self, reason: str, error: RunError | None = None) -> None:
        """Let every worker end after its test, with this error if it is one; any thread."""
        self._fatal = self._fatal or error
        self._halted = self._halted or reason

    def close(self) -> None:
        """End all connections and threads. The run must have been stopped: nothing may wait."""
        self._reception.close()
        self._threads.shutdown()

    def _serve(self, line: Line) -> None:
        worker = _Worker(line)
        try:
            while True:
                message = line.receive()
                if "id" not in message:
                    self._reply(worker, message)  # the order counts, and it waits for nothing
                else:
                    self._threads.submit(self._reply, worker, message)
        except ChannelError:
            worker.gone = True

    def _reply(self, worker: _Worker, message: Plain) -> None:
        caused: list[Plain] = []
        self._caused.outcomes = caused
        reply = self._done(worker, message)
        if "id" in message:
            worker.send({**reply, "outcomes": caused, "halted": self._halted, "id": message["id"]})

    def _done(self, worker: _Worker, message: Plain) -> Plain:
        if self._fatal is not None:
            return {"error": plain_error(self._fatal)}
        try:
            return {"value": self._operations[str(message.get("op"))](worker, message)}
        except RunError as error:
            self._give_up(error)
            return {"error": plain_error(error)}
        except Exception as error:  # noqa: BLE001 - it must reach the test that waits
            return {"error": plain_error(error)}

    def _note(self, outcome: Outcome) -> None:
        if (outcomes := getattr(self._caused, "outcomes", None)) is not None:
            outcomes.append(plain_outcome(outcome))

    def _join(self, worker: _Worker, message: Plain) -> Plain:
        worker.name = str(message["worker"])
        plan = self._run.plan
        place, twins = plan.place, plan.arms.twins
        others = [i for i in self._planned.values() if i.arm != MULTI and not i.draw]
        return {
            "source": place.source,
            "base": str(place.base.absolute()),
            "cache": str(place.cache.absolute()),
            "identity": plan.dataset.identity,
            "planned": list(self._planned),
            "twins": None if twins is None else twins.dataset.source,
            "twins_base": str(plan.configuration.base.absolute()),
            "twins_identity": None if twins is None else twins.identity,
            "arms": [plain_instance(i, self._places.pack) for i in others],
            "ends_count": self._run.plan.design.stops_when_decided,
        }

    def _refuse(self, worker: _Worker, message: Plain) -> None:
        raise DataError(f"worker {worker.name}: {message['text']}")

    def _select(self, worker: _Worker, message: Plain) -> None:
        self._selections[worker.name] = [self._planned[key] for key in message["selected"]]

    def _asking(self, *_: object) -> bool:
        return self._run.asking

    def _wait(self, worker: _Worker, message: Plain) -> None:
        self._run.wait(self._instance(message), worker.look, _LOOK_SECONDS)

    def _answer(self, _: _Worker, message: Plain) -> Plain:
        return plain_response(self._run.answer(self._instance(message)))

    def _verdict(self, _: _Worker, message: Plain) -> Plain:
        response = response_from(message["response"])
        return plain_verdict(self._run.verdict(self._instance(message), response))

    def _finish(self, _: _Worker, message: Plain) -> None:
        self._run.finish(self._instance(message))

    @property
    def _operations(self) -> Mapping[str, Callable[[_Worker, Plain], object]]:
        return {
            "join": self._join,
            "refuse": self._refuse,
            "select": self._select,
            "asking": self._asking,
            "wait": self._wait,
            "answer": self._answer,
            "verdict": self._verdict,
            "finish": self._finish,
        }

    def _instance(self, message: Plain) -> Instance:
        """The planned one, or one beyond the plan that came with the message."""
        if "planned" in message:
            return self._planned[message["planned"]]
        return instance_from(message["instance"], self._places.unpack)


class _Worker:
    """One connected worker."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.name = ""
        self.gone = False

    def look(self) -> None:
        """Raise if nobody waits any more."""
        if self.gone:
            raise ChannelError("the worker is gone", closed=True)

    def send(self, reply: Plain) -> None:
        """Send a reply, or that it is too long; to a worker that is gone, nothing."""
        try:
            self._line.send(reply)
        except ChannelError as error:
            with suppress(ChannelError):
                self._line.send({**reply, "value": None, "error": plain_error(error)})
