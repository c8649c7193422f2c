"""Sends each request once, for all the asks that come to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import BackendError, BadInputError, NotRunError, UnscoredError
from ..records import Completion, LoadedImage, Request
from .asks import Ask, Parts, TokenCount
from .calling import Caller, is_recorded
from .endpoint import Bounds, Endpoint, Estimate, Job
from .estimates import most_output
from .keeping import Keeper
from .pacing import PaceSettings
from .reading import Prepared
from .register import Receiver, Register
from .spending import Spending


@dataclass(slots=True, eq=False)
class Sending(Job):
    """One request key, sent once for all the asks that came to it."""

    request: Request
    images: tuple[LoadedImage, ...]
    asks: list[Ask]


class Sendings:
    """Every request key of a run: under way, or settled. Confined to the loop's thread."""

    name = "the model"
    failure: type[UnscoredError] = BackendError
    allowed: tuple[type[UnscoredError], ...] = (BadInputError,)

    def __init__(
        self,
        parts: Parts,
        caller: Caller,
        keeper: Keeper[Request, Completion] | None,
        receiver: Receiver,
        abort: Callable[[BaseException], None],
    ) -> None:
        if is_recorded(parts.backend):
            # Only a recording knows that an instance was not run where it was made.
            self.allowed = (BadInputError, NotRunError)
        self._caller = caller
        self._keeper = keeper
        self._image_tokens = parts.settings.image_tokens
        self._output_tokens = most_output(parts.backend.decoding)
        self._register: Register[Sending] = Register(receiver)
        settings = parts.settings
        pace = settings.target or PaceSettings(parts.backend.concurrency)
        self.most = pace.concurrency
        """How many can ever be in flight."""
        self.tokens = TokenCount()
        """What the answers of this run said they took."""
        self.spending = Spending(settings.budget, settings.prices)
        bounds = Bounds(pace, self.spending, settings.budget)
        self.endpoint: Endpoint[Sending, Completion] = Endpoint(
            self, bounds, abort, receiver.read_on
        )

    def dispatch(self, ask: Ask, prepared: Prepared, *, first: bool = False) -> None:
        """Send the request, or join the sending of an equal one, or take its answer."""
        if self._register.settle(ask, prepared):
            return
        if (sending := self._register.of(ask)) is not None:
            sending.asks.append(ask)
            if ask.urgent:
                self.endpoint.hurry(sending)
            return
        sending = Sending(prepared.request, prepared.images, [ask])
        sending.urgent = ask.urgent
        sending.cost = self._estimate(prepared.request)
        self._register.begin(sending)
        self.endpoint.add(sending, first=first)

    def hurry(self, ask: Ask) -> None:
        """Let the request of this ask jump the queue."""
        if (sending := self._register.of(ask)) is not None:
            self.endpoint.hurry(sending)

    def withdraw(self, ask: Ask) -> bool:
        """Take an ask back; tells whether it could be: its request is not in flight."""
        sending = self._register.of(ask)
        if sending is None or ask not in sending.asks:
            return True
        if len(sending.asks) == 1:
            if not self.endpoint.withdraw(sending):
                return False
            self._register.drop(sending)
        sending.asks.remove(ask)
        return True

    # What the endpoint calls

    async def attempt(self, job: Sending) -> Completion:
        """Ask the backend once."""
        return await self._caller.complete(job.request, job.images, job.asks[0].instance.id)

    def used(self, result: Completion) -> tuple[int | None, int | None]:
        """As the reply told."""
        return result.input_tokens, result.output_tokens

    async def succeed(self, job: Sending, result: Completion) -> None:
        """Store the answer, then let its asks have it: the one that was stored first."""
        job.images = ()
        self.tokens = self.tokens.plus(result)
        if self._keeper is not None:
            result = await self._keeper.keep(job.request, result)
        self._register.end(job, result, kept=self._keeper is not None)

    def fail(self, job: Sending, failure: UnscoredError) -> None:
        """Let its asks fail."""
        job.images = ()
        self._register.end(job, failure, kept=False)

    def _estimate(self, request: Request) -> Estimate:
        text = Estimate.of_text(len(request.prompt) + len(request.system or ""), 0)
        images = self._image_tokens * request.images_sent
        return Estimate(text.input + images, self._output_tokens)
