"""A worker's side of a run that its controller owns: no engine, no store, no model, no judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from . import data
from .channel import Caller, ChannelError, Invitation
from .errors import BadInputError, DataError, MirsafetyError, NotRunError, RunError
from .image_passing import Places
from .messages import (
    Plain,
    error_from,
    instance_from,
    outcome_from,
    plain_instance,
    plain_response,
    response_from,
    verdict_from,
)
from .metamorphic import SearchResult
from .metamorphic.plain import result_from
from .records import Dataset, Instance, Outcome, Response, Verdict
from .trials import find


class RemoteRun:
    """The run as the tests of one worker see it: what `Run` has for them, by asking the controller.

    What has ended the run, the controller's death too, is for `answer` and `verdict` to raise:
    the other calls are made where pytest takes an error for one of its own.
    """

    def __init__(
        self, caller: Caller, dataset: Dataset, twins: Sequence[Instance], joined: Plain
    ) -> None:
        self._caller = caller
        self._places = Places(dataset.instances, twins)
        known = {instance.id: instance for instance in dataset.instances}
        arms = (instance_from(plain, self._places.unpack) for plain in joined["arms"])
        known |= {instance.id: instance for instance in arms}
        self.instances = tuple(find(instance_id, known) for instance_id in joined["planned"])
        self._ends_count: bool = joined["ends_count"]
        self._waited_for: str | None = None
        self.halted: str | None = None
        self._planned = {instance.id: instance for instance in self.instances}
        self._asking = False
        self._listener: Callable[[Outcome], None] | None = None

    @classmethod
    def join(cls, invitation: Invitation, worker: str) -> Self:
        """Connect, and load the data that the controller has loaded.

        Raises:
            RunError: the data cannot be loaded here or is other data; the controller has been told.
            ChannelError: the controller cannot be reached.
        """
        caller = Caller(invitation)
        joined = caller.call({"op": "join", "worker": worker})
        if "error" in joined:  # another worker has ended the run already
            caller.close()
            raise error_from(joined["error"])
        plan = joined["value"]
        try:
            dataset = data.load(plan["source"], base=Path(plan["base"]), cache=Path(plan["cache"]))
            if dataset.identity != plan["identity"]:
                raise DataError(f"{plan['source']}: the data changed since the run began")
            twins = _twins(plan)
        except RunError as error:
            caller.call({"op": "refuse", "text": str(error)})
            caller.close()
            raise
        return cls(caller, dataset, twins, plan)

    @property
    def asking(self) -> bool:
        """The plan has begun to be asked, by this worker or another."""
        if not self._asking:
            with suppress(MirsafetyError):
                self._asking = bool(self._call("asking"))
        return self._asking

    def on_outcome(self, listener: Callable[[Outcome], None]) -> None:
        """Call `listener` with each outcome that a call of this worker brings into the gates."""
        self._listener = listener

    def select(self, instances: Sequence[Instance]) -> None:
        """Tell which instances the tests cover, in their order."""
        with suppress(MirsafetyError):
            self._call("select", selected=[i.id for i in instances if self._is_planned(i)])

    def wait(self, instance: Instance) -> None:
        """Until this planned instance is answered and judged."""
        if instance.id != self._waited_for and self._is_planned(instance):
            with suppress(MirsafetyError):
                self._call("wait", planned=instance.id)
                self._asking = True
                self._waited_for = instance.id  # its test waits again, which would cost a trip

    def answer(self, instance: Instance) -> Response:
        """The model's response.

        Raises:
            UnscoredError: there is no answer.
            RunError: the run cannot go on.
        """
        return response_from(self._call("answer", **self._named(instance)))

    def verdict(self, instance: Instance, response: Response) -> Verdict:
        """The judge's verdict.

        Raises:
            UnscoredError: there is no verdict.
            RunError: the run cannot go on.
        """
        given = plain_response(response)
        return verdict_from(self._call("verdict", response=given, **self._named(instance)))

    def search(self, instance: Instance) -> SearchResult:
        """What edits make of its verdict.

        Raises:
            UnscoredError: the run ended first.
            RunError: the run cannot go on.
        """
        return result_from(self._call("search", **self._named(instance)))

    def finish(self, instance: Instance) -> None:
        """Note that a test of this instance has ended, whatever came of it."""
        if self._ends_count and self._is_planned(instance):
            self._caller.post({"op": "finish", "planned": instance.id})

    def close(self) -> None:
        """End the connection."""
        self._caller.close()

    def _call(self, operation: str, **fields: object) -> Any:  # noqa: ANN401 - JSON
        try:
            reply = self._caller.call({"op": operation, **fields})
        except ChannelError as error:
            if not error.closed:
                raise BadInputError(str(error)) from None
            self.halted = self.halted or str(error)
            raise NotRunError(f"the run ended: {error}") from None
        self.halted = self.halted or reply["halted"]
        if self._listener is not None:
            for outcome in reply["outcomes"]:
                self._listener(outcome_from(outcome))
        if "error" in reply:
            raise error_from(reply["error"])
        return reply.get("value")

    def _named(self, instance: Instance) -> dict[str, object]:
        if self._is_planned(instance):
            return {"planned": instance.id}
        return {"instance": plain_instance(instance, self._places.pack)}

    def _is_planned(self, instance: Instance) -> bool:
        known = self._planned.get(instance.id)
        return known is not None and instance.is_from(known)


def _twins(plan: Plain) -> Sequence[Instance]:
    """The benign twins that the controller has loaded, if it has.

    Raises:
        RunError: they cannot be loaded here, or are other ones.
    """
    if plan["twins"] is None:
        return ()
    from .data import twins

    found = twins.load(plan["twins"], base=Path(plan["twins_base"]), cache=Path(plan["cache"]))
    if found.identity != plan["twins_identity"]:
        raise DataError(f"twins {plan['twins']}: the data changed since the run began")
    return found.dataset.instances
