"""The way of an instance: images read, request asked or found, answer kept, answer judged."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from .calling import Caller, check_judgeable, plain
from .errors import (
    BackendError,
    BadInputError,
    BlankError,
    FilteredError,
    JudgeError,
    StoreError,
    TruncatedError,
    UnscoredError,
)
from .lanes import Landing, Lane, Waits
from .protocols import Backend, ImageLoader, Judge, Store
from .records import (
    Completion,
    Instance,
    LoadedImage,
    Request,
    Response,
    Verdict,
    digest,
)

Separate = Callable[[Completion], tuple[str, str | None, bool]]
"""Gives a completion's final answer, its reasoning, and whether the reasoning is closed."""

READERS: Final = min(8, (os.cpu_count() or 1) + 4)
"""Instances whose images are read at once, and instances that may lie ready to be asked."""

BACKLOG: Final = 1024
"""Answers that may wait to be judged before reading pauses: they are held in memory."""

GRACE: Final = 5.0
"""Seconds that cancelled asks are waited for."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What the engine leaves open.

    `judge_cut_answers` lets a final answer be judged that ran into the length limit. `draw`
    numbers repeated asks of the same requests. `patience` is how many seconds backend and judge
    may each take to close.
    """

    judge_cut_answers: bool = False
    draw: int = 0
    patience: float = 30.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What the engine works with; all of it is given."""

    backend: Backend
    judge: Judge
    images: ImageLoader
    store: Store | None
    separate: Separate
    settings: EngineSettings


@dataclass(slots=True, eq=False)
class Judging(Landing):
    """One pair of question and answer, judged once. It lands with a verdict or a failure."""

    question: str
    answer: str
    verdict: Verdict | None = None
    failure: UnscoredError | None = None
    planned: int = 0
    begun: bool = False


@dataclass(slots=True, eq=False)
class Ask(Landing):
    """One instance on its way to an answer. It lands with an answer or a failure.

    A `response` that the store keeps is not held here. `barred` says why an answer that is
    there cannot be judged.
    """

    instance: Instance
    planned: bool = False
    urgent: bool = False
    key: str | None = None
    cached: bool = False
    response: Response | None = None
    failure: UnscoredError | None = None
    barred: UnscoredError | None = None
    judging: Judging | None = None
    looked_again: bool = False


@dataclass(slots=True, eq=False)
class Sending:
    """One request key, sent once for all the asks that came to it."""

    request: Request
    images: tuple[LoadedImage, ...]
    asks: list[Ask]


@dataclass(slots=True)
class Counts:
    """How far the planned instances are, and how many requests were sent in all."""

    answered: int = 0
    from_store: int = 0
    judged: int = 0
    unscored: int = 0
    asked: int = 0
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class _Prepared:
    request: Request
    images: tuple[LoadedImage, ...] = field(repr=False)
    completion: Completion | None = None


class Pipeline:
    """Takes asks from image files to verdicts; each request key is sent once.

    Confined to the loop's thread, but for `judging`. Three lanes follow one another: reading
    (in worker threads), sending, judging. Reading waits while enough is ready to be sent, so
    that the bytes in memory are bounded by the lanes and not by the suite.
    """

    def __init__(self, parts: Parts, waits: Waits, abort: Callable[[BaseException], None]) -> None:
        self.counts = Counts()
        self._parts = parts
        self._waits = waits
        self._halted = False
        self._caller = Caller(parts.backend, parts.judge, lambda: self._halted)
        self._identity = parts.backend.identity
        self._system = parts.backend.system
        self._decoding = dict(parts.backend.decoding)
        self._store = parts.store if parts.backend.cacheable else None
        self._sendings: dict[str, Sending] = {}
        # None stands for a completion that the store keeps, so that memory need not.
        self._settled: dict[str, Completion | UnscoredError | None] = {}
        self._judgings: dict[str, Judging] = {}
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="mirsafety-images")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="mirsafety-store")
        self._send_lane = Lane(self._send, parts.backend.concurrency, abort)
        self._judge_lane = Lane(self._judge, parts.judge.concurrency, abort)
        self._read_lane: Lane[Ask] = Lane(self._prepare, READERS, abort, room=self._has_room)

    def extend(self, asks: Iterable[Ask]) -> None:
        """Take many asks, in order."""
        self._read_lane.extend(asks)

    def hurry(self, ask: Ask) -> None:
        """Let an ask that somebody waits for jump the queues."""
        ask.urgent = True
        self._read_lane.hurry(ask)
        if ask.key is not None and ask.key in self._sendings:
            self._send_lane.hurry(self._sendings[ask.key])

    def add(self, ask: Ask) -> None:
        """Take an ask that somebody waits for."""
        ask.urgent = True
        self._read_lane.add(ask, urgent=True)

    def judging(self, question: str, answer: str) -> Judging:
        """The one judging of this pair; `judge` begins it. May be called from any thread."""
        key = digest([question, answer])
        return self._judgings.setdefault(key, Judging(question, answer))

    def judge(self, judging: Judging, *, urgent: bool = True) -> None:
        """Take a pair of question and answer, unless it was taken before."""
        if not judging.begun:
            judging.begun = True
            self._judge_lane.add(judging, urgent=urgent)
        elif urgent:
            self._judge_lane.hurry(judging)

    def recall(self, ask: Ask) -> Response | None:
        """The response of an ask that landed with one, from memory or from the store.

        May be called from any thread.

        Raises:
            StoreError: the store cannot be read.
        """
        if ask.response is not None or self._store is None or ask.key is None:
            return ask.response
        completion = self._store.get(ask.key)
        return None if completion is None else self._response(ask, ask.key, completion)

    def halt(self) -> None:
        """Ask and judge nothing more; what is being written to the store is still written."""
        self._halted = True
        for lane in (self._read_lane, self._send_lane, self._judge_lane):
            lane.halt()

    async def close(self) -> list[str]:
        """Halt, let go of threads and adapters; gives what went wrong, a line each."""
        self.halt()
        for lane in (self._read_lane, self._send_lane, self._judge_lane):
            await lane.drained(GRACE)
        troubles = await self._caller.close(self._parts.settings.patience)
        self._readers.shutdown(cancel_futures=True)
        self._writer.shutdown()
        return troubles

    # Reading

    def _has_room(self) -> bool:
        return self._send_lane.waiting < READERS and self._judge_lane.waiting < BACKLOG

    async def _prepare(self, ask: Ask) -> None:
        loop = asyncio.get_running_loop()
        try:
            prepared = await loop.run_in_executor(self._readers, self._load, ask.instance)
        except UnscoredError as error:
            self._fail(ask, plain(error, BadInputError))
        else:
            ask.key = prepared.request.key
            self._dispatch(ask, ask.key, prepared)

    def _load(self, instance: Instance) -> _Prepared:
        """In a worker thread: the request, and its answer from the store or its images."""
        loader = self._parts.images
        images = [loader.inspect(ref) for ref in instance.images]
        request = Request(
            model=self._identity,
            prompt=instance.prompt,
            images=tuple(image.sha256 for image in images),
            system=self._system,
            decoding=self._decoding,
            draw=self._parts.settings.draw,
        )
        if self._store is not None and (completion := self._store.get(request.key)) is not None:
            return _Prepared(request, (), completion)
        if self._parts.backend.needs_bytes:
            pairs = zip(instance.images, images, strict=True)
            images = [loader.fill(ref, image) for ref, image in pairs]
        return _Prepared(request, tuple(images))

    def _dispatch(self, ask: Ask, key: str, prepared: _Prepared) -> None:
        """Send the request, or join the sending of an equal one, or take its answer."""
        if key in self._settled:
            self._settle(ask, key, self._settled[key] or prepared.completion)
        elif (sending := self._sendings.get(key)) is not None:
            sending.asks.append(ask)
            if ask.urgent:
                self._send_lane.hurry(sending)
        elif prepared.completion is not None:
            self._answer(ask, key, prepared.completion, cached=True)
        else:
            sending = Sending(prepared.request, prepared.images, [ask])
            self._sendings[key] = sending
            self._send_lane.add(sending, urgent=ask.urgent)

    def _settle(self, ask: Ask, key: str, result: Completion | UnscoredError | None) -> None:
        if isinstance(result, UnscoredError):
            self._fail(ask, result)
        elif result is not None:
            self._answer(ask, key, result, cached=False)
        elif not ask.looked_again:  # it was stored after this ask had looked
            ask.looked_again = True
            self._read_lane.add(ask, urgent=True)
        else:
            raise StoreError(f"the answer of {ask.instance.id} (request {key}) left the store")

    # Asking

    async def _send(self, sending: Sending) -> None:
        self._read_lane.pump()  # a place among those ready is free
        self.counts.asked += 1
        self.counts.in_flight += 1
        result: Completion | UnscoredError
        try:
            result = await self._caller.complete(
                sending.request, sending.images, sending.asks[0].instance.id
            )
        except UnscoredError as error:
            result = plain(error, BackendError, BadInputError)
        finally:
            self.counts.in_flight -= 1
            sending.images = ()
        key = sending.request.key
        kept = self._store is not None and isinstance(result, Completion)
        if isinstance(result, Completion):
            result = await self._keep(sending.request, result)
        self._settled[key] = None if kept else result
        del self._sendings[key]
        for ask in sending.asks:
            self._settle(ask, key, result)

    async def _keep(self, request: Request, completion: Completion) -> Completion:
        """Store the answer and give the one that the store holds: the first counts.

        The write outlives a cancellation, so that an answer once had is never lost.
        """
        if (store := self._store) is None:
            return completion

        def put() -> Completion:
            store.put(request, completion)
            return store.get(request.key) or completion

        return await asyncio.shield(asyncio.wrap_future(self._writer.submit(put)))

    def _answer(self, ask: Ask, key: str, completion: Completion, *, cached: bool) -> None:
        if self._halted:
            return
        ask.cached = cached
        response = self._response(ask, key, completion)
        if self._store is None:
            ask.response = response
        if ask.planned:
            self.counts.answered += 1
            self.counts.from_store += cached
            self._judge_planned(ask, response)
        self._waits.land(ask)

    def _response(self, ask: Ask, key: str, completion: Completion) -> Response:
        answer, reasoning, closed = self._parts.separate(completion)
        return Response(key, completion, answer, reasoning, closed, ask.cached)

    def _fail(self, ask: Ask, failure: UnscoredError) -> None:
        if self._halted:
            return
        ask.failure = failure
        self.counts.unscored += ask.planned
        self._waits.land(ask)

    # Judging

    def _judge_planned(self, ask: Ask, response: Response) -> None:
        try:
            check_judgeable(response, judge_cut_answers=self._parts.settings.judge_cut_answers)
        except UnscoredError as error:
            ask.barred = plain(error, TruncatedError, FilteredError, BlankError)
            self.counts.unscored += 1
            return
        ask.judging = judging = self.judging(ask.instance.question, response.answer)
        judging.planned += 1
        if judging.landed:
            self._count(judging, 1)
        else:
            self.judge(judging, urgent=ask.urgent)

    async def _judge(self, judging: Judging) -> None:
        self._read_lane.pump()  # a place in the backlog is free
        verdict = failure = None
        try:
            verdict = await self._caller.verdict(judging.question, judging.answer)
        except UnscoredError as error:
            failure = plain(error, JudgeError)
        if self._halted:
            return
        judging.verdict, judging.failure = verdict, failure
        judging.question = judging.answer = ""  # its key has them; the text need not stay
        self._count(judging, judging.planned)
        self._waits.land(judging)

    def _count(self, judging: Judging, planned: int) -> None:
        if judging.verdict is None:
            self.counts.unscored += planned
        else:
            self.counts.judged += planned
