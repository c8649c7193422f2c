"""The way of an instance: images read, request asked or found, answer kept, answer judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from ..errors import NotRunError, UnscoredError
from ..gates.decisions import Asked
from ..records import Completion, Response
from .asks import Ask, Counts, Judging, Parts, TokenCount
from .calling import Caller, wants_images
from .defending import Defending
from .judgings import Judgings
from .keeping import Keeper
from .lanes import Landing, Lane, Waits
from .pictures import Pictures
from .reading import READERS, Batches, Prepared, Reader
from .sending import Sendings
from .turns import Side, Turns, freeing

BACKLOG: Final = 1024
"""Answers that may wait to be judged before reading pauses: they are held in memory."""

HELD: Final = 4 * BACKLOG
"""Answers that are held until a test takes them; any others it reads from the store."""

GRACE: Final = 5.0
"""Seconds that cancelled asks are waited for."""


class Pipeline:
    """Takes asks from image files to verdicts; each request key is sent once.

    Confined to the loop's thread, but for `recall`. Three lanes follow one another:
    reading (in worker threads), sending, judging. Reading waits while enough is ready to be sent,
    so that the bytes in memory are bounded by the lanes and not by the suite.
    """

    def __init__(self, parts: Parts, waits: Waits, abort: Callable[[BaseException], None]) -> None:
        self.counts = Counts()
        self._parts = parts
        self._waits = waits
        self.abort = abort
        self._halted = False
        self._store = parts.store if parts.backend.cacheable else None
        self._unlanded = 0
        self._turns = self._take_turns() if parts.settings.two_phases else None
        self._caller = Caller(
            parts.backend, parts.judge, lambda: self._halted, self._turns, parts.settings.of_arms
        )
        self._keeper = None if self._store is None else Keeper(self._store)
        self._reader = Reader(parts, self._store, lambda: not self.target.ceased)
        self._pictures = Pictures(
            parts.images, self._reader.threads, shown=wants_images(parts.judge)
        )
        self._sendings = Sendings(parts, self._caller, self._keeper, self, abort)
        self.target = self._sendings.endpoint
        self.spending = self._sendings.spending
        self._defending = Defending(parts, self._caller, self._keeper, self._pictures, self, abort)
        self.judgings = Judgings(parts, self._caller, self._pictures, self, self._turns)
        self._read_lane: Lane[Ask] = Lane(self._read, READERS, abort, room=self._has_room)
        self._batches = Batches()
        self.catching_up: Landing | None = None
        """Lands when no more stored answers are being read; None while none are."""
        self._probe: Ask | None = None
        # Until the judge was tried: one that cannot judge is to be known before many were asked.
        self.target.one_by_one = self._turns is None
        self._held: dict[Ask, Response] = {}

    @property
    def silent(self) -> Asked | None:
        """Who stopped answering, so that nothing more is asked of it."""
        if self.target.ceased and not self.spending.exhausted:
            return "model"
        return "judge" if self.judgings.ceased else None

    @property
    def asked_tokens(self) -> TokenCount:
        """What the answers that this run asked for said they took."""
        return self._sendings.tokens

    def extend(self, asks: Iterable[Ask]) -> None:
        """Take many asks, in order; those taken before are left out."""
        self.judgings.try_judge()
        new = [ask for ask in asks if not (ask.begun or ask.landed)]
        for ask in new:
            self._begin(ask)
        if new and self._probe is None and not self.target.proven:
            # The largest is tried first: what the endpoint cannot take shows before the rest.
            bare = (ask for ask in new if not self._defending.defends(ask))
            self._probe = max(bare, key=lambda ask: ask.size, default=None)
        if self._probe in new:
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
            self._defending.hurry(ask)
        else:
            self._begin(ask)
            self._read_lane.add(ask, urgent=True)

    def skip(self, asks: Iterable[Ask], why: str) -> None:
        """Let asks that are not in flight land without an answer, and judge no answer for them."""
        for ask in asks:
            if ask.skipped is None:
                ask.skipped = why
                if ask.landed:
                    self.judgings.need_no_more(ask, why)
                elif self._sendings.withdraw(ask) and self._defending.withdraw(ask):
                    self._read_lane.remove(ask)
                    self.failed(ask, NotRunError(why))
        self._read_lane.pump()
        self._tell_whether_catching_up()

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
        for part in (self._read_lane, self._defending, self.target, self.judgings):
            part.halt()
        if self._turns is not None:
            self._turns.halt()
            if self._turns.side == "model" and (trial := self.judgings.challenging) is not None:
                trial.halt()  # it has judged nothing, and would have to be loaded

    async def close(self) -> list[str]:
        """Halt, let go of threads and adapters; gives what went wrong, a line each."""
        self.halt()
        for part in (self._read_lane, self._defending, self.target, self.judgings):
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
        ready = ready and self._defending.waiting < BACKLOG
        if self._turns is not None:  # what is judged after the last answer must all wait
            return ready
        return ready and self.judgings.waiting < BACKLOG

    def read_on(self) -> None:
        """Read more, if there is room."""
        if self.target.ceased:
            self._defending.cease(self.target.why_ceased)
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
            if prepared.request.defence:
                self._defending.dispatch(ask, prepared)
            else:
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
        if ask.bare:
            self._land(ask)
            self._defending.answered(ask, completion)
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
            self.judgings.judge_planned(ask, response)
        self._land(ask)
        if self.target.one_by_one and not cached and _needs_no_judge(ask):
            self.target.go_on()

    def failed(self, ask: Ask, failure: UnscoredError) -> None:
        """Let it land without an answer."""
        if self._halted:
            return
        ask.failure = failure
        self.counts.unscored += ask.planned
        self._was_read(ask)
        self._land(ask)
        if ask.bare:
            self._defending.failed(ask, failure)

    def _land(self, ask: Ask) -> None:
        self._unlanded -= ask.begun
        self._waits.land(ask)
        self.look_whose_turn()

    def land(self, judging: Judging) -> None:
        """A judging has its end: wake those who wait for it."""
        self._waits.land(judging)
        if judging.attempts and self.target.one_by_one:
            self.target.go_on()

    def look_again(self, ask: Ask) -> None:
        """Read once more what it needs."""
        self._read_lane.add(ask, urgent=True)

    def take(self, bare: Ask) -> None:
        """Ask the model what it is asked without a defence; it goes before those not begun."""
        self._begin(bare)
        self._read_lane.add(bare, urgent=bare.urgent, first=True)

    def give_up(self, bare: Ask) -> bool:
        """Let go of it, if it is not in flight; nobody is told."""
        if not self._sendings.withdraw(bare):
            return False
        self._read_lane.remove(bare)
        self._land(bare)
        return True

    def _response(self, ask: Ask, completion: Completion) -> Response:
        answer, reasoning, closed = self._parts.separate(completion)
        return Response(ask.key or "", completion, answer, reasoning, closed, ask.cached)

    # Turns

    def _take_turns(self) -> Turns:
        parts = self._parts
        return Turns(freeing(parts.backend, parts.judge), self._is_busy, self.abort)

    def _is_busy(self, side: Side) -> bool:
        if side == "model":
            return self._unlanded > 0
        return self.judgings.busy

    def look_whose_turn(self) -> None:
        """Let the other side compute, if that is due."""
        if self._turns is not None and not self._halted:
            self._turns.look()


def _needs_no_judge(ask: Ask) -> bool:
    """There is nothing to be judged of it, or nothing more."""
    return ask.judging is None or ask.judging.landed
