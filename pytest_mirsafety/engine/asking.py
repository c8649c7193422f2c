"""The way of an instance: images read, request asked or found, answer kept, answer judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

from ..errors import BlankError, FilteredError, NotRunError, RunError, TruncatedError, UnscoredError
from ..gates.decisions import Asked
from ..records import Completion, Instance, Response, Verdict
from .asks import NO_PICTURES, Ask, Counts, Judging, Parts, TokenCount
from .calling import Caller, check_judgeable, plain, wants_images
from .challenging import Challenging
from .endpoint import Bounds, Endpoint
from .judging import JudgingStage, pair_key
from .keeping import Keeper
from .lanes import Landing, Lane, Waits
from .pacing import Pace, PaceSettings
from .pictures import Pictures
from .reading import READERS, Batches, Prepared, Reader
from .sending import Sendings
from .spending import Prices, Spending
from .turns import Side, Turns, freeing

BACKLOG: Final = 1024
"""Answers that may wait to be judged before reading pauses: they are held in memory."""

HELD: Final = 4 * BACKLOG
"""Answers that are held until a test takes them; any others it reads from the store."""

GRACE: Final = 5.0
"""Seconds that cancelled asks are waited for."""


class Pipeline:
    """Takes asks from image files to verdicts; each request key is sent once.

    Confined to the loop's thread, but for `judging` and `recall`. Three lanes follow one another:
    reading (in worker threads), sending, judging. Reading waits while enough is ready to be sent,
    so that the bytes in memory are bounded by the lanes and not by the suite.
    """

    def __init__(self, parts: Parts, waits: Waits, abort: Callable[[BaseException], None]) -> None:
        self.counts = Counts()
        self._parts = parts
        self._waits = waits
        self._abort = abort
        self._halted = False
        self._store = parts.store if parts.backend.cacheable else None
        self._unlanded = 0
        self._turns = self._take_turns() if parts.settings.two_phases else None
        others = [by.judge for by in parts.settings.judges.values()]
        self._caller = Caller(parts.backend, parts.judge, lambda: self._halted, self._turns, others)
        self._keeper = None if self._store is None else Keeper(self._store)
        self._reader = Reader(parts, self._store, lambda: not self.target.ceased)
        self._pictures = Pictures(
            parts.images, self._reader.threads, shown=wants_images(parts.judge)
        )
        self._sendings = Sendings(parts, self._caller, self._keeper, self, abort)
        self.target = self._sendings.endpoint
        self.spending = self._sendings.spending
        self._judgings: dict[str, Judging] = {}
        pace = Pace(parts.settings.judge or PaceSettings(parts.judge.concurrency))
        bounds = Bounds(pace, Spending(None, Prices()))
        self._judge: Endpoint[Judging, Verdict] = Endpoint(
            JudgingStage(self._caller, self._pictures, self._judged), bounds, abort, self.read_on
        )
        self.challenging: Challenging | None = None
        """Tries the judge; until it has been tried it judges nothing real."""
        if (trial := parts.settings.trial) is not None:
            self._judge.hold()
            self.challenging = Challenging(
                trial, parts.backend, pace, abort, self._tried, self._turns
            )
        self._read_lane: Lane[Ask] = Lane(self._read, READERS, abort, room=self._has_room)
        self._batches = Batches()
        self.catching_up: Landing | None = None
        """Lands when no more stored answers are being read; None while none are."""
        self._probe: Ask | None = None
        self._held: dict[Ask, Response] = {}

    @property
    def silent(self) -> Asked | None:
        """Who stopped answering, so that nothing more is asked of it."""
        if self.target.ceased and not self.spending.exhausted:
            return "model"
        return "judge" if self._judge.ceased else None

    @property
    def asked_tokens(self) -> TokenCount:
        """What the answers that this run asked for said they took."""
        return self._sendings.tokens

    def extend(self, asks: Iterable[Ask]) -> None:
        """Take many asks, in order; those taken before are left out."""
        self._try_judge()
        new = [ask for ask in asks if not (ask.begun or ask.landed)]
        for ask in new:
            self._begin(ask)
        if new and self._probe is None and not self.target.proven:
            # The largest is tried first: what the endpoint cannot take shows before the rest.
            self._probe = max(new, key=lambda ask: ask.size)
            self.target.hold()
            self._read_lane.add(self._probe, urgent=True)
        self._read_lane.extend(ask for ask in new if ask is not self._probe)

    def _begin(self, ask: Ask) -> None:
        ask.begun = True
        self._unlanded += 1

    def hurry(self, ask: Ask) -> None:
        """Let an ask that somebody waits for jump the queues; it need not have been taken."""
        ask.urgent = True
        if ask.begun or ask.landed:
            self._read_lane.hurry(ask)
            self._sendings.hurry(ask)
        else:
            self._begin(ask)
            self._read_lane.add(ask, urgent=True)

    def skip(self, asks: Iterable[Ask], why: str) -> None:
        """Let asks that are not in flight land without an answer, and judge no answer for them."""
        for ask in asks:
            if ask.skipped is None:
                ask.skipped = why
                if ask.landed:
                    self._need_no_more(ask, why)
                elif self._sendings.withdraw(ask):
                    self._read_lane.remove(ask)
                    self.failed(ask, NotRunError(why))
        self._read_lane.pump()
        self._tell_whether_catching_up()

    def judging(self, instance: Instance, response: Response, *, planned: bool) -> Judging:
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
            self._try_judge()
            if not self._recalled(judging):
                self._judge.add(judging)
        elif urgent:
            self._judge.hurry(judging)

    def close_challenge(self, closed: Callable[[], None]) -> None:
        """Try the judge once more, also after a stop; `closed` is told of the end."""
        if self.challenging is None:
            closed()
        else:
            self.challenging.close(closed)

    def recall(self, ask: Ask) -> Response | None:
        """The response of an ask that landed with one, from memory or from the store.

        May be called from any thread.

        Raises:
            StoreError: the store cannot be read.
        """
        if self._store is None or ask.key is None:
            return ask.response
        if (response := self._held.pop(ask, None)) is not None:
            return response
        completion = self._store.get(ask.key)
        return None if completion is None else self._response(ask, completion)

    def halt(self) -> None:
        """Ask and judge nothing more; what is being written to the store is still written."""
        self._halted = True
        for part in (self._read_lane, self.target, self._judge):
            part.halt()
        if self._turns is not None:
            self._turns.halt()
            if self._turns.side == "model" and self.challenging is not None:
                self.challenging.halt()  # it has judged nothing, and would have to be loaded

    async def close(self) -> list[str]:
        """Halt, let go of threads and adapters; gives what went wrong, a line each."""
        self.halt()
        parts: list[Lane[Ask] | Endpoint[Any, Any] | Challenging]
        parts = [self._read_lane, self.target, self._judge]
        if self.challenging is not None:
            self.challenging.halt()
            parts.append(self.challenging)
        for part in parts:
            await part.drained(GRACE)
        troubles = await self._caller.close(self._parts.settings.patience)
        self._reader.close()
        if self._keeper is not None:
            self._keeper.close()
        return troubles

    # Reading

    def _has_room(self) -> bool:
        target = self.target
        ready = target.waiting < READERS and target.parked < READERS + self._sendings.most
        if self._turns is not None:  # what is judged after the last answer must all wait
            return ready
        return ready and self._judge.waiting + self._judge.parked < BACKLOG

    def read_on(self) -> None:
        """Read more, if there is room."""
        self._read_lane.pump()

    async def _read(self, ask: Ask) -> None:
        """Read an ask, and others with it as long as the store has all their answers."""
        more = self._batches.more(self._read_lane.waiting)
        asks = [ask, *self._read_lane.take(more)]
        found = await self._reader.read([each.instance for each in asks])
        for each, prepared in zip(asks, found, strict=False):
            self._go_on(each, prepared)
        self._batches.adapt(len(asks), found)
        self._read_lane.limit = self._batches.threads
        rest = [each for each in asks[len(found) :] if not each.landed]
        self._read_lane.put_back(rest, lambda each: each.urgent)
        self._tell_whether_catching_up()

    def _tell_whether_catching_up(self) -> None:
        busy = self._batches.at_once > 1 and self._read_lane.waiting and self._has_room()
        if busy and self.catching_up is None:
            self.catching_up = Landing()
        elif not busy and (landing := self.catching_up) is not None:
            self.catching_up = None
            self._waits.land(landing)

    def _go_on(self, ask: Ask, prepared: Prepared | UnscoredError) -> None:
        if ask.landed:  # skipped meanwhile
            return
        if isinstance(prepared, UnscoredError):
            self.failed(ask, prepared)
        else:
            self._pictures.note(prepared.request)
            self._sendings.dispatch(ask, prepared, first=ask is self._probe)
            self._was_read(ask)

    def _was_read(self, ask: Ask) -> None:
        if ask is self._probe:
            self._probe = None
            self.target.release()

    # What becomes of an ask

    def answered(self, ask: Ask, completion: Completion, *, cached: bool) -> None:
        """Hold its answer for who wants it, and judge it if it was planned."""
        if self._halted:
            return
        ask.cached = cached
        response = self._response(ask, completion)
        if self._store is None:
            ask.response = response
        elif len(self._held) < HELD:
            self._held[ask] = response
        if ask.planned:
            self.counts.answered += 1
            if cached:
                self.counts.from_store += 1
                self.counts.stored_tokens = self.counts.stored_tokens.plus(completion)
            self._judge_planned(ask, response)
        self._land(ask)

    def failed(self, ask: Ask, failure: UnscoredError) -> None:
        """Let it land without an answer."""
        if self._halted:
            return
        ask.failure = failure
        self.counts.unscored += ask.planned
        self._was_read(ask)
        self._land(ask)

    def _land(self, ask: Ask) -> None:
        self._unlanded -= ask.begun
        self._waits.land(ask)
        self._look_whose_turn()

    def look_again(self, ask: Ask) -> None:
        """Read once more what it needs."""
        self._read_lane.add(ask, urgent=True)

    def _response(self, ask: Ask, completion: Completion) -> Response:
        answer, reasoning, closed = self._parts.separate(completion)
        return Response(ask.key or "", completion, answer, reasoning, closed, ask.cached)

    # Turns

    def _take_turns(self) -> Turns:
        parts = self._parts
        return Turns(freeing(parts.backend, parts.judge), self._is_busy, self._abort)

    def _is_busy(self, side: Side) -> bool:
        if side == "model":
            return self._unlanded > 0
        tried = self.challenging is not None and self.challenging.busy
        return tried or self._judge.waiting + self._judge.parked + self._judge.in_flight > 0

    def _look_whose_turn(self) -> None:
        if self._turns is not None and not self._halted:
            self._turns.look()

    # Judging

    def _tried(self) -> None:
        """The judge knows what is known: it may judge what is not."""
        self._judge.release()
        self._look_whose_turn()

    def _try_judge(self) -> None:
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
            self._abort(error)
            return True
        if verdict is None:
            return False
        judging.verdict = verdict
        judging.question = judging.answer = ""
        judging.pictured = NO_PICTURES
        self.counts.recalled += len(judging.needed_by)
        self._judged(judging)
        return True

    def _judge_planned(self, ask: Ask, response: Response) -> None:
        try:
            check_judgeable(response, judge_cut_answers=self._parts.settings.judge_cut_answers)
        except UnscoredError as error:
            self._bar(ask, plain(error, TruncatedError, FilteredError, BlankError))
            return
        if ask.skipped is not None:
            self._bar(ask, NotRunError(ask.skipped))
            return
        ask.judging = judging = self.judging(ask.instance, response, planned=True)
        judging.needed_by.append(ask)
        if judging.landed:
            self._count(judging, 1)
        else:
            self.judge(judging, urgent=ask.urgent)

    def _bar(self, ask: Ask, failure: UnscoredError) -> None:
        ask.barred = failure
        self.counts.unscored += 1

    def _need_no_more(self, ask: Ask, why: str) -> None:
        """Give up the judging of a skipped ask that no other needs and nobody waits for."""
        judging = ask.judging
        if judging is None or judging.landed or judging.urgent:
            return
        needless = all(other.skipped is not None for other in judging.needed_by)
        if needless and self._judge.withdraw(judging):
            judging.begun = False
            self._look_whose_turn()
            for other in judging.needed_by:
                other.judging = None
                self._bar(other, NotRunError(other.skipped or why))
            judging.needed_by.clear()

    def _judged(self, judging: Judging) -> None:
        if self._halted:
            return
        self._count(judging, len(judging.needed_by))
        self._waits.land(judging)
        self._look_whose_turn()

    def _count(self, judging: Judging, planned: int) -> None:
        if judging.verdict is None:
            self.counts.unscored += planned
        else:
            self.counts.judged += planned
