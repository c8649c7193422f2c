"""One endpoint as the run sees it: when it is asked, how often, and what its failures mean."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Final, Generic, Protocol, TypeVar

from ..errors import (
    ConfigurationError,
    GoneError,
    MisconfiguredError,
    NotRunError,
    RetryableError,
    UnscoredError,
)
from .calling import plain, plain_retryable
from .lanes import Landing, Lane
from .pacing import Pace, PaceSettings, Slowdown
from .spending import Budget, Spending

_TRIES: Final = 3
"""Attempts of one request that a silent endpoint gets before its first answer."""

_TRIALS: Final = 2
"""Requests that go unanswered before the first answer until the run ends."""

_TRIAL_WAIT: Final = 0.5
"""Seconds: whether an endpoint is there at all should be known soon."""

_LEAST_WAIT: Final = 0.1
"""Seconds that two looks at one wait may differ by."""

_CHARACTERS_A_TOKEN: Final = 4


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens that a request is taken to cost before its usage is known."""

    input: int = 0
    output: int = 0

    @classmethod
    def of_text(cls, characters: int, output: int) -> Estimate:
        """For so much text and an answer of `output` tokens."""
        return cls(characters // _CHARACTERS_A_TOKEN + 1, output)

    @property
    def total(self) -> int:
        """Input and output."""
        return self.input + self.output


@dataclass(slots=True, eq=False)
class Job(Landing):
    """Something to be asked, in one attempt or several; `urgent` when somebody waits for it."""

    cost: Estimate = field(default=Estimate(), init=False)
    """What one attempt is taken to cost."""

    urgent: bool = field(default=False, init=False)
    attempts: int = field(default=0, init=False)
    failures: int = field(default=0, init=False)
    """Attempts that failed, those left out that met an overload."""


J = TypeVar("J", bound=Job)
J_contra = TypeVar("J_contra", bound=Job, contravariant=True)
R = TypeVar("R")


class Stage(Protocol[J_contra, R]):
    """What is asked of an endpoint, and what becomes of it. Each job ends once."""

    name: str
    failure: type[UnscoredError]
    """What a failure of the endpoint is."""

    allowed: tuple[type[UnscoredError], ...]
    """Other failures that its adapter may tell of."""

    async def attempt(self, job: J_contra) -> R:
        """Ask once.

        Raises:
            RetryableError: no answer came, and another attempt may bring one.
            UnscoredError: there is none.
        """

    def used(self, result: R) -> tuple[int | None, int | None]:
        """Input and output tokens that it cost, where that is known."""

    async def succeed(self, job: J_contra, result: R) -> None:
        """End a job with its result."""

    def fail(self, job: J_contra, failure: UnscoredError) -> None:
        """End a job without one."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How fast an endpoint may be asked, and for how much; `budget` is what `spending` keeps to.

    A `pace` that is given as such is shared with whoever asks the same.
    """

    pace: PaceSettings | Pace
    spending: Spending
    budget: Budget | None = None


class Endpoint(Generic[J, R]):
    """Asks jobs of one endpoint: the urgent ones first, within its pace and the budget.

    Confined to the loop's thread. A job that waits for its next attempt is `parked` and holds no
    place of another. Until the first result one job is tried at a time: an endpoint that is
    misconfigured, or silent twice, ends the run by `abort`. Later failures concern their own job,
    until so many follow one another that nothing more is asked. `moved` is called when a place in
    line becomes free.
    """

    def __init__(
        self,
        stage: Stage[J, R],
        bounds: Bounds,
        abort: Callable[[BaseException], None],
        moved: Callable[[], None],
    ) -> None:
        self.asked = 0
        self.in_flight = 0
        self._stage = stage
        self._pace = bounds.pace if isinstance(bounds.pace, Pace) else Pace(bounds.pace)
        self._spending = bounds.spending
        self._budget = bounds.budget
        self._abort = abort
        self._moved = moved
        self._lane: Lane[J] = Lane(self._begin, self._pace.limit, abort, may_begin=self._may_begin)
        self._parked: dict[J, asyncio.TimerHandle] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._looks_again = 0.0
        self._held = False
        self._running = 0
        self.one_by_one = False
        """One attempt at a time, also after the first result."""
        self._trial: J | None = None
        self._trials = 0
        self._proven = False
        self._ceased: str | None = None

    @property
    def proven(self) -> bool:
        """It has given a result in this run."""
        return self._proven

    @property
    def ceased(self) -> bool:
        """Nothing more is asked of it."""
        return self._ceased is not None

    @property
    def why_ceased(self) -> str:
        """Why nothing more is asked of it; empty while more is."""
        return self._ceased or ""

    @property
    def limit(self) -> int:
        """How many jobs may be in flight now."""
        if self.ceased:
            return 0
        return self._pace.limit if self._proven and not self.one_by_one else 1

    @property
    def slowdown(self) -> Slowdown:
        """What holds the jobs up that are in line. Any thread may look."""
        if self.ceased:
            return Slowdown()
        found = self._pace.slowdown
        wait = self._looks_again - time.monotonic()
        # Longer than the endpoint asked for: the limits that were set are what holds it up.
        return found if wait <= found.wait + _LEAST_WAIT else replace(found, wait=wait, trouble="")

    @property
    def waiting(self) -> int:
        """Jobs in line, those left out that are parked."""
        return self._lane.waiting

    @property
    def parked(self) -> int:
        """Jobs that wait for their next attempt."""
        return len(self._parked)

    def add(self, job: J, *, first: bool = False) -> None:
        """Put a job in line, or let it fail if nothing more is asked."""
        if self._ceased is None:
            self._lane.add(job, urgent=job.urgent, first=first)
        else:
            self._stage.fail(job, NotRunError(self._ceased))

    def hurry(self, job: J) -> None:
        """Let a job jump the queue; a parked one does when its time comes."""
        job.urgent = True
        self._lane.hurry(job)

    def withdraw(self, job: J) -> bool:
        """Take back a job that is not in flight, without an end; tells whether it could be."""
        if (timer := self._parked.pop(job, None)) is not None:
            timer.cancel()
            self._untry(job)
            return True
        return self._lane.remove(job)

    def hold(self) -> None:
        """Begin nothing for now: the job that is to be tried first is still to come."""
        self._held = True

    def release(self) -> None:
        """Begin, after `hold`."""
        self._held = False
        self._lane.pump()

    def go_on(self) -> None:
        """As many at a time as the pace allows, from now on."""
        self.one_by_one = False
        self._lane.pump()

    def cease(self, why: str) -> None:
        """Ask nothing more. What is in flight goes on; all other jobs fail, also later ones."""
        if self._ceased is None:
            self._ceased = why
            for job in [*self._lane.clear(), *self._unpark_all()]:
                self._stage.fail(job, NotRunError(why))
            self._moved()

    def halt(self) -> None:
        """Begin nothing more, and cancel what is in flight."""
        self._lane.halt()
        self._unpark_all()
        if self._timer is not None:
            self._timer.cancel()

    async def drained(self, timeout: float) -> None:  # noqa: ASYNC109 - it gives up, not fails
        """Wait until nothing is in flight any more, or `timeout` seconds."""
        await self._lane.drained(timeout)

    # Beginning

    def _may_begin(self, job: J) -> bool:
        if self._held or not (self._proven or self._trial is None):
            return False
        if self.one_by_one and self._running:
            return False
        estimate = job.cost
        if (delay := self._pace.delay(estimate.total)) > 0:
            self._look_again_in(delay)
            return False
        if self._spending.admit(estimate.input, estimate.output):
            return True
        if self._spending.exhausted:
            self.cease(f"the budget of {self._budget} is spent")
        return False  # or not now: what is in flight may cost less than it was taken to

    def _look_again_in(self, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._looks_again = time.monotonic() + delay
        self._timer = asyncio.get_running_loop().call_later(delay, self._lane.pump)

    def _begin(self, job: J) -> Coroutine[object, object, None]:
        estimate = job.cost
        ticket = self._pace.started(estimate.total)
        self._running += 1
        if not self._proven:
            self._trial = job
        return self._attempt(job, ticket)

    async def _attempt(self, job: J, ticket: int) -> None:
        try:
            result = await self._ask(job)
        except RetryableError as error:
            self._unanswered(job, ticket, plain_retryable(error))
        except UnscoredError as error:
            stage = self._stage
            allowed: tuple[type[UnscoredError], ...] = (
                GoneError,
                MisconfiguredError,
                *stage.allowed,
            )
            failure = plain(error, stage.failure, *allowed)
            self._refused(job, ticket, failure)
        else:
            self._answered(job, ticket, result)
            await self._stage.succeed(job, result)

    async def _ask(self, job: J) -> R:
        self.asked += not job.attempts
        self.in_flight += 1
        job.attempts += 1
        self._moved()
        try:
            return await self._stage.attempt(job)
        finally:
            self.in_flight -= 1
            self._running -= 1
            if self.one_by_one:
                self._lane.pump()

    # Ending

    def _answered(self, job: J, ticket: int, result: R) -> None:
        estimate, used = job.cost, self._stage.used(result)
        self._spending.settle(estimate.input, estimate.output, *used)
        self._pace.succeeded(ticket, sum(tokens or 0 for tokens in used))
        self._lane.limit = self._pace.limit
        if not self._proven:
            self._proven, self._trial = True, None
            self._lane.pump()

    def _refused(self, job: J, ticket: int, failure: UnscoredError) -> None:
        """Without an answer, and another attempt would bring none either."""
        estimate = job.cost
        if isinstance(failure, (MisconfiguredError, *self._stage.allowed)):
            self._spending.release(estimate.input, estimate.output)  # turned away, or not sent
        else:
            self._spending.settle(estimate.input, estimate.output, None, None)
        if not isinstance(failure, self._stage.allowed):
            self._pace.succeeded(ticket)
        gone = isinstance(failure, GoneError)
        if isinstance(failure, MisconfiguredError):
            if not self._proven:
                self._end_the_run(f"cannot be asked: {failure.detail}")
                return
            failure = self._stage.failure(failure.detail)
        self._untry(job)
        self._stage.fail(job, failure)
        if gone:
            self.cease(f"{self._stage.name} stopped answering: {failure.detail}")

    def _unanswered(self, job: J, ticket: int, error: RetryableError) -> None:
        estimate = job.cost
        if error.turned_away:
            self._spending.release(estimate.input, estimate.output)
        else:  # it may have been worked on, and billed, though no answer came
            self._spending.settle(estimate.input, estimate.output, None, None)
        job.failures += not error.overloaded
        wait = self._pace.failed(ticket, error, job.failures)
        self._lane.limit = self._pace.limit
        if self._ceased is not None:
            self._stage.fail(job, NotRunError(self._ceased))
        elif not self._proven:
            self._tried_in_vain(job, wait, error)
        elif wait is not None:
            self._park(job, wait)
        else:
            self._stage.fail(job, self._stage.failure(error.detail))
            if self._pace.hopeless:
                self.cease(f"{self._stage.name} stopped answering: {error.detail}")

    def _tried_in_vain(self, job: J, wait: float | None, error: RetryableError) -> None:
        """Before the first answer: try the job again, or another one, or end the run."""
        if wait is None or (not error.overloaded and job.failures % _TRIES == 0):
            self._trials += 1
            self._trial = None
        if self._trials == _TRIALS:
            self._end_the_run(f"gives no answer: {error.detail}")
        elif wait is None or not error.overloaded:
            self._park(job, min(_TRIAL_WAIT, wait or _TRIAL_WAIT))
        else:
            self._park(job, wait)

    def _end_the_run(self, trouble: str) -> None:
        self.hold()
        self._abort(ConfigurationError(f"{self._stage.name} {trouble}"))

    # Waiting for the next attempt

    def _park(self, job: J, wait: float) -> None:
        self._parked[job] = asyncio.get_running_loop().call_later(wait, self._unpark, job)

    def _unpark(self, job: J) -> None:
        del self._parked[job]
        tried = self._trial is job
        if tried:
            self._trial = None
        self._lane.add(job, urgent=job.urgent or tried, first=True)

    def _unpark_all(self) -> list[J]:
        parked = list(self._parked)
        for timer in self._parked.values():
            timer.cancel()
        self._parked.clear()
        return parked

    def _untry(self, job: J) -> None:
        if self._trial is job:
            self._trial = None
            self._lane.pump()
