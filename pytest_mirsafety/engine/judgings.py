"""Judges each pair of question and answer once, for all that need its verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from ..errors import BlankError, FilteredError, NotRunError, RunError, TruncatedError, UnscoredError
from ..records import Instance, Response, Verdict
from .asks import NO_PICTURES, Ask, Counts, Judging, Parts
from .calling import Caller, check_judgeable, plain
from .challenging import Challenging
from .endpoint import Bounds, Endpoint
from .judging import JudgingStage, pair_key
from .pacing import Pace, PaceSettings
from .pictures import Pictures
from .spending import Prices, Spending
from .turns import Turns


class Host(Protocol):
    """Whose judgings they are."""

    counts: Counts

    def abort(self, error: BaseException) -> None:
        """End the run."""

    def read_on(self) -> None:
        """A place in line became free."""

    def land(self, judging: Judging) -> None:
        """A judging has its end: wake those who wait for it."""

    def look_whose_turn(self) -> None:
        """The judge may have done all it had."""


class Judgings:
    """Every pair of a run, and the judge's trial by what is known, which comes first.

    Confined to the loop's thread, but for `of`.
    """

    def __init__(
        self, parts: Parts, caller: Caller, pictures: Pictures, host: Host, turns: Turns | None
    ) -> None:
        self._parts = parts
        self._pictures = pictures
        self._host = host
        self._halted = False
        self._judgings: dict[str, Judging] = {}
        pace = Pace(parts.settings.judge or PaceSettings(parts.judge.concurrency))
        bounds = Bounds(pace, Spending(None, Prices()))
        self._endpoint: Endpoint[Judging, Verdict] = Endpoint(
            JudgingStage(caller, pictures, self._judged), bounds, host.abort, host.read_on
        )
        self.challenging: Challenging | None = None
        """Tries the judge; until it has been tried it judges nothing real."""
        if (trial := parts.settings.trial) is not None:
            self._endpoint.hold()
            self.challenging = Challenging(
                trial, parts.backend, pace, host.abort, self._tried, turns
            )

    @property
    def ceased(self) -> bool:
        """Nothing more is asked of the judge."""
        return self._endpoint.ceased

    @property
    def waiting(self) -> int:
        """Pairs in line, those with a failed attempt too."""
        return self._endpoint.waiting + self._endpoint.parked

    @property
    def busy(self) -> bool:
        """The judge has something to do."""
        tried = self.challenging is not None and self.challenging.busy
        return tried or self.waiting + self._endpoint.in_flight > 0

    def halt(self) -> None:
        """Judge nothing more; the trial goes on."""
        self._halted = True
        self._endpoint.halt()

    async def drained(self, timeout: float) -> None:  # noqa: ASYNC109 - it gives up, not fails
        """Give up the trial, and wait until nothing is in flight, or `timeout` seconds for each."""
        if self.challenging is not None:
            self.challenging.halt()
        await self._endpoint.drained(timeout)
        if self.challenging is not None:
            await self.challenging.drained(timeout)

    def of(self, instance: Instance, response: Response, *, planned: bool) -> Judging:
        """The one judging of question, answer, and images if the judge looks at them.

        `judge` begins it. May be called from any thread. `planned` says that the response is that
        of the planned request.

        Raises:
            BadInputError: images that the judge is to see are not to be had.
        """
        question, answer = instance.question, response.answer
        by = self._parts.settings.judges.get(instance.arm)
        pictured = NO_PICTURES
        if by is None:  # an arm's own judge looks at no images
            pictured = self._pictures.of(instance, response.request_key, planned=planned)
        key = pair_key(question, answer, pictured.digests)
        if by is not None:
            key = f"{instance.arm} {key}"
        if (found := self._judgings.get(key)) is not None:
            return found
        judging = Judging(question, answer, pictured, by)
        if pictured.refs:
            tokens = self._parts.settings.image_tokens * len(pictured.refs)
            judging.cost = replace(judging.cost, input=judging.cost.input + tokens)
        return self._judgings.setdefault(key, judging)

    def judge(self, judging: Judging, *, urgent: bool = True) -> None:
        """Take a pair of question and answer, unless it was taken before."""
        judging.urgent |= urgent
        if not judging.begun:
            judging.begun = True
            self.try_judge()
            if not self._recalled(judging):
                self._endpoint.add(judging)
        elif urgent:
            self._endpoint.hurry(judging)

    def close_challenge(self, closed: Callable[[], None]) -> None:
        """Try the judge once more, also after a stop; `closed` is told of the end."""
        if self.challenging is None:
            closed()
        else:
            self.challenging.close(closed)

    def _tried(self) -> None:
        """The judge knows what is known: it may judge what is not."""
        self._endpoint.release()
        self._host.look_whose_turn()

    def try_judge(self) -> None:
        """Let the judge be tried by what is known, unless that has begun."""
        if self.challenging is not None and not self._halted:
            self.challenging.open()

    def _recalled(self, judging: Judging) -> bool:
        """Whether its verdict is kept, so that nobody need be asked."""
        recall = self._parts.settings.recall if judging.by is None else judging.by.recall
        if recall is None or self._halted:
            return False
        try:
            verdict = recall(judging.question, judging.answer, judging.pictured.digests)
        except RunError as error:
            self._host.abort(error)
            return True
        if verdict is None:
            return False
        judging.verdict = verdict
        judging.question = judging.answer = ""
        judging.pictured = NO_PICTURES
        self._host.counts.recalled += len(judging.needed_by)
        self._judged(judging)
        return True

    def judge_planned(self, ask: Ask, response: Response) -> None:
        """Judge the answer of a planned ask, unless no judge may see it or nobody needs it."""
        try:
            check_judgeable(response, judge_cut_answers=self._parts.settings.judge_cut_answers)
        except UnscoredError as error:
            self._bar(ask, plain(error, TruncatedError, FilteredError, BlankError))
            return
        if ask.skipped is not None:
            self._bar(ask, NotRunError(ask.skipped))
            return
        ask.judging = judging = self.of(ask.instance, response, planned=True)
        judging.needed_by.append(ask)
        if judging.landed:
            self._count(judging, 1)
        else:
            self.judge(judging, urgent=ask.urgent)

    def _bar(self, ask: Ask, failure: UnscoredError) -> None:
        ask.barred = failure
        self._host.counts.unscored += 1

    def need_no_more(self, ask: Ask, why: str) -> None:
        """Give up the judging of a skipped ask that no other needs and nobody waits for."""
        judging = ask.judging
        if judging is None or judging.landed or judging.urgent:
            return
        needless = all(other.skipped is not None for other in judging.needed_by)
        if needless and self._endpoint.withdraw(judging):
            judging.begun = False
            self._host.look_whose_turn()
            for other in judging.needed_by:
                other.judging = None
                self._bar(other, NotRunError(other.skipped or why))
            judging.needed_by.clear()

    def _judged(self, judging: Judging) -> None:
        if self._halted:
            return
        self._count(judging, len(judging.needed_by))
        self._host.land(judging)
        self._host.look_whose_turn()

    def _count(self, judging: Judging, planned: int) -> None:
        if judging.verdict is None:
            self._host.counts.unscored += planned
        else:
            self._host.counts.judged += planned
