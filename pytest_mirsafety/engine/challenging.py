"""Asks the judge what is known already, before the first real answer and after the last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import JudgeError, UnscoredError
from ..gates.challenge import Canary, CanaryClass, CanaryCount, Round, When
from ..protocols import Backend
from ..records import Verdict, VerdictKind
from .asks import Trial
from .calling import Caller
from .endpoint import Bounds, Endpoint, Estimate, Job
from .pacing import Pace
from .spending import Prices, Spending
from .turns import Turns

_OUTPUT = 16


@dataclass(slots=True, eq=False)
class _Known(Job):
    """One canary on its way."""

    canary: Canary
    kind: VerdictKind | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        characters = len(self.canary.question) + len(self.canary.answer)
        self.cost = Estimate.of_text(characters, _OUTPUT)


class Challenging:
    """Two rounds of all canaries, asked of the judge itself: what is kept of it is not looked at.

    Confined to the loop's thread. It shares the judge's pace, and goes on when a run is stopped,
    until `halt`. `opened` is told when the first round has its end, `abort` of an error that
    ends the run.
    """

    name = "the judge"
    failure: type[UnscoredError] = JudgeError
    allowed: tuple[type[UnscoredError], ...] = ()

    def __init__(
        self,
        trial: Trial,
        backend: Backend,
        pace: Pace,
        abort: Callable[[BaseException], None],
        opened: Callable[[], None],
        turns: Turns | None = None,
    ) -> None:
        self.rounds: list[Round] = []
        self._trial = trial
        self._halted = False
        self._caller = Caller(backend, trial.judge, lambda: self._halted, turns)
        bounds = Bounds(pace, Spending(None, Prices()))
        self._endpoint: Endpoint[_Known, Verdict] = Endpoint(self, bounds, abort, lambda: None)
        self._opened = opened
        self._closed: Callable[[], None] | None = None
        self._begun: When | None = None
        self._left: set[_Known] = set()
        self._jobs: list[_Known] = []

    @property
    def begun(self) -> bool:
        """The judge is being tried, or was."""
        return self._begun is not None

    @property
    def busy(self) -> bool:
        """The judge is being tried."""
        return bool(self._left)

    def open(self) -> None:
        """Begin the first round, unless it has begun."""
        if self._begun is None:
            self._begin("before")

    def close(self, closed: Callable[[], None]) -> None:
        """Begin the second round once the first has its end; `closed` is told when it is over.

        Where nothing was to be judged there is no first round, and no second.
        """
        if self._begun is None or self._halted:
            closed()
            return
        self._closed = closed
        if not self._left:
            self._begin("after")

    def halt(self) -> None:
        """Ask nothing more."""
        self._halted = True
        self._endpoint.halt()
        if self._closed is not None:
            self._closed()

    async def drained(self, timeout: float) -> None:  # noqa: ASYNC109 - it gives up, not fails
        """Wait until nothing is in flight any more, or `timeout` seconds."""
        await self._endpoint.drained(timeout)

    def _begin(self, when: When) -> None:
        self._begun = when
        self._jobs = [_Known(canary) for canary in self._trial.canaries]
        self._left = set(self._jobs)
        for job in self._jobs:
            self._endpoint.add(job)

    # What the endpoint calls

    async def attempt(self, job: _Known) -> Verdict:
        """Ask the judge once."""
        return await self._caller.verdict(
            job.canary.question, job.canary.answer, self._trial.images
        )

    def used(self, result: Verdict) -> tuple[int | None, int | None]:  # noqa: ARG002 - part of the protocol
        """Not known: a judge does not tell."""
        return None, None

    async def succeed(self, job: _Known, result: Verdict) -> None:
        """Note what it said."""
        job.kind = result.kind
        self._end(job)

    def fail(self, job: _Known, failure: UnscoredError) -> None:  # noqa: ARG002 - that it failed is enough
        """Note that there is none."""
        self._end(job)

    def _end(self, job: _Known) -> None:
        self._left.discard(job)
        if self._left or self._begun is None:
            return
        self.rounds.append(Round(self._begun, _counted(self._jobs)))
        if self._begun == "before":
            self._opened()
            if self._closed is not None:
                self._begin("after")
        elif self._closed is not None:
            self._closed()


def _counted(jobs: list[_Known]) -> tuple[CanaryCount, ...]:
    asked = Counter(job.canary.kind for job in jobs)
    failed = Counter(job.canary.kind for job in jobs if job.kind is None)
    missed = Counter(
        job.canary.kind for job in jobs if job.kind is not None and job.canary.missed(job.kind)
    )
    return tuple(
        CanaryCount(kind, asked[kind], missed[kind], failed[kind])
        for kind in CanaryClass
        if asked[kind]
    )
