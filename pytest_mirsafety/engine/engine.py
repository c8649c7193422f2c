"""Asks for all planned instances ahead of the tests that wait for them, and judges the answers.

One daemon thread runs an event loop; the methods of `Engine` block the thread that calls them.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, TypeVar

from ..errors import ConfigurationError, NotRunError, RunError, StoreError, unscored
from ..gates.challenge import Round
from ..protocols import Backend, Defence, ImageLoader, Judge, Store
from ..records import Instance, Outcome, Response, Verdict, VerdictKind
from ..taxonomy import Reason, Status
from .asking import GRACE, Pipeline
from .asks import Ask, EngineSettings, Parts, Separate
from .calling import check_judgeable, doing
from .lanes import Landing, Waits
from .progress import Progress

__all__ = ["Engine", "EngineSettings", "Progress", "check_judgeable"]

T = TypeVar("T", bound=Landing)

_SLICE: Final = 0.5
"""Seconds between two looks of a waiting thread: an endless wait ignores Ctrl-C on Windows."""


class Engine:
    """Answers and judges instances: the planned ones ahead of time, others on demand.

    Each request key is asked once. Whatever the adapters do, a call ends: with a value, with an
    `UnscoredError`, or with the error that ended the run.

    Raises:
        ConfigurationError: a backend, judge or defence that allows nothing in flight.
    """

    def __init__(
        self,
        backend: Backend,
        judge: Judge,
        images: ImageLoader,
        store: Store | None,
        separate: Separate,
        settings: EngineSettings,
    ) -> None:
        adapters: tuple[tuple[str, Backend | Judge | Defence], ...]
        adapters = (("backend", backend), ("judge", judge), *settings.of_arms)
        for name, adapter in adapters:
            if adapter.concurrency < 1:
                raise ConfigurationError(
                    f"the {name}'s concurrency is below 1; set it to 1 or more"
                )
        self._settings = settings
        self._adapters = tuple(adapter for _, adapter in adapters)
        self._waits = Waits()
        parts = Parts(backend, judge, images, store, separate, settings)
        self._pipeline = Pipeline(parts, self._waits, self._abort)
        self._planned: dict[str, Ask] = {}
        self._started: float | None = None
        self._able = 0.0
        self._fatal: BaseException | None = None
        self._fatal_at: TracebackType | None = None
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closing = asyncio.Event()
        self._closed = False
        self._troubles: list[str] = []

    @property
    def started(self) -> bool:
        """The plan has begun to be asked."""
        return self._started is not None

    def plan(self, instances: Sequence[Instance]) -> None:
        """Set what the run will ask, in this order; nothing is asked yet.

        Further calls add to the plan; of two instances with one id the first counts.
        """
        with self._lock:
            new = []
            for instance in instances:
                ask = Ask(instance, planned=True)
                if self._planned.setdefault(instance.id, ask) is ask:
                    new.append(ask)
            if self._started is not None:
                self._call(self._pipeline.extend, new)

    def start(self) -> None:
        """Begin to ask for the whole plan; `answer` does so by itself. May be called again."""
        self._start_thread()
        with self._lock:
            if self._started is None and not self._waits.over:
                # Called first: after an interrupt in between it is called again, and does nothing.
                self._call(self._pipeline.extend, tuple(self._planned.values()))
                self._started = time.monotonic()

    def skip(self, instance_ids: Iterable[str], why: str) -> None:
        """Ask no more for these planned instances: those not sent yet end as not-run.

        Answers in flight are kept. Judgings that nobody else needs and nobody waits for are
        given up. May be called again, and from any thread.
        """
        asks = [ask for i in instance_ids if (ask := self._planned.get(i)) is not None]
        self._start_thread()
        self._call(self._pipeline.skip, asks, why)

    def answer(self, instance: Instance) -> Response:
        """The model's response; blocks until it is there.

        The first planned instance that is answered starts the asking of the whole plan. One
        beyond the plan, or with another prompt or other images, is asked on the spot.

        Raises:
            UnscoredError: there is no answer, for the reason named.
            RunError: the run cannot go on.
        """
        if (ask := self._planned_ask(instance)) is not None:
            self.start()
            self._await(ask, self._pipeline.hurry)
        else:
            ask = Ask(instance)
            self._start_thread()
            self._await(ask, self._pipeline.hurry)
        if not ask.landed:
            raise self._ended("answered")
        if ask.failure is not None:
            raise unscored(ask.failure.reason, ask.failure.detail)
        if (response := self._pipeline.recall(ask)) is None:
            raise StoreError(f"the answer of {instance.id} (request {ask.key}) left the store")
        return response

    def verdict(self, instance: Instance, response: Response) -> Verdict:
        """The judge's verdict; blocks until it is there.

        A planned answer was judged as it landed; any other pair of question and answer is
        judged on the spot.

        Raises:
            FilteredError: the provider's filter withheld the answer.
            TruncatedError: the reasoning never ended, or the answer was cut off.
            BlankError: there is no final answer.
            BadInputError: images that the judge is to see are not to be had.
            JudgeError: the judge failed.
            NotRunError: the run stopped first.
            RunError: the run cannot go on.
        """
        check_judgeable(response, judge_cut_answers=self._settings.judge_cut_answers)
        ask = self._planned_ask(instance)
        planned = ask is not None and ask.key == response.request_key
        judging = self._pipeline.judgings.of(instance, response, planned=planned)
        self._start_thread()
        self._await(judging, self._pipeline.judgings.judge)
        if judging.verdict is not None:
            return judging.verdict
        if judging.failure is not None:
            raise unscored(judging.failure.reason, judging.failure.detail)
        raise self._ended("judged")

    def wait(self, instance: Instance, tick: Callable[[], None], every: float) -> None:
        """Block until a planned instance has its answer and verdict, or can get none.

        Calls `tick` about every `every` seconds meanwhile. Does nothing before the plan has
        started and for an instance beyond it. Raises nothing but what `tick` raises: errors are
        for `answer` and `verdict`.
        """
        ask = self._planned.get(instance.id)
        if ask is None or self._started is None:
            return
        self._await(ask, self._pipeline.hurry, tick, every)
        if (catching_up := self._pipeline.catching_up) is not None:
            # Stored answers are read many times as fast while no test contends for the interpreter.
            self._await(catching_up, None, tick, every)
        if ask.judging is not None:
            self._await(ask.judging, self._pipeline.judgings.judge, tick, every)

    def recall(self, instance_id: str) -> Response | None:
        """The response of a planned instance whose request was answered; asks nothing.

        Raises:
            StoreError: the store cannot be read.
        """
        ask = self._planned.get(instance_id)
        answered = ask is not None and ask.landed and ask.failure is None
        return self._pipeline.recall(ask) if ask is not None and answered else None

    def planned_key(self, instance_id: str) -> str | None:
        """The request key of a planned instance, once its images were read."""
        ask = self._planned.get(instance_id)
        return None if ask is None else ask.key

    def outcome(self, instance_id: str) -> Outcome | None:
        """What became of a planned instance's own request, whatever a test made of it.

        None while it is under way, and for an instance beyond the plan.
        """
        if (ask := self._planned.get(instance_id)) is None:
            return None
        judging = ask.judging
        failure = ask.failure or ask.barred or (judging and judging.failure)
        verdict = judging and judging.verdict
        if failure:
            return Outcome(Status.UNSCORED, failure.reason, failure.detail)
        if verdict:
            return _outcome(verdict)
        return Outcome(Status.UNSCORED, Reason.NOT_RUN) if self._waits.over else None

    def progress(self) -> Progress:
        """How far the run is at this moment."""
        counts, target = self._pipeline.counts, self._pipeline.target
        spending, told = self._pipeline.spending, self._pipeline.asked_tokens
        busy = next(filter(None, (doing(adapter) for adapter in self._adapters)), "")
        if busy:
            self._able = time.monotonic()
        return Progress(
            planned=len(self._planned),
            answered=counts.answered,
            from_store=counts.from_store,
            judged=counts.judged,
            unscored=counts.unscored,
            asked=target.asked,
            in_flight=target.in_flight,
            elapsed=0.0
            if self._started is None
            else time.monotonic() - max(self._started, self._able),
            limit=target.limit,
            tokens=spending.tokens,
            money=spending.money,
            budget_spent=spending.exhausted,
            silent=self._pipeline.silent,
            slowdown=target.slowdown,
            asked_tokens=told,
            stored_tokens=counts.stored_tokens,
            verdicts_from_store=counts.recalled,
            cost=self._settings.prices.of(told.input, told.output),
            doing=busy,
        )

    @property
    def trial(self) -> tuple[Round, ...] | None:
        """What the judge has made of known answers so far; None while nothing was to be judged."""
        tried = self._pipeline.judgings.challenging
        return tuple(tried.rounds) if tried is not None and tried.begun else None

    def challenge(self) -> None:
        """Try the judge once more after the last answer, also after `stop`; blocks until it is.

        Does nothing without a trial, before anything was asked, and after an error that ended
        the run.
        """
        thread, over = self._thread, Landing()
        if self._pipeline.judgings.challenging is None or thread is None:
            return
        waits = Waits()  # its own: `stop` has let go of those who wait for answers
        self._call(self._pipeline.judgings.close_challenge, lambda: waits.land(over))
        while not waits.wait(over, _SLICE):
            if self._fatal is not None or not thread.is_alive():
                return

    def stop(self) -> None:
        """Ask and judge nothing more, at once; who waits gets a `NotRunError`.

        What was answered is kept. May be called again, from any thread, and from a signal
        handler that interrupted a wait.
        """
        self._waits.release()
        self._call(self._pipeline.halt)

    def close(self) -> None:
        """Stop, close backend and judge, and end the thread.

        Raises:
            RunError: something did not close.
        """
        self.stop()
        with self._lock:
            first, self._closed = not self._closed, True
            thread = self._run_thread()  # adapters are closed by the loop that used them
        self._call(self._closing.set)
        thread.join(3 * (GRACE + self._settings.patience))
        if thread.is_alive():
            self._troubles.append("the engine's thread did not end; an adapter blocks it")
        if first and self._troubles:
            raise RunError("; ".join(self._troubles))

    def _planned_ask(self, instance: Instance) -> Ask | None:
        ask = self._planned.get(instance.id)
        return ask if ask is not None and instance.is_from(ask.instance) else None

    def _start_thread(self) -> None:
        if self._thread is None and not self._waits.over:
            with self._lock:
                self._run_thread()

    def _run_thread(self) -> threading.Thread:
        """The engine's thread, started if it was not; under the lock."""
        if self._thread is None:
            self._loop = self._loop or asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._serve, args=(self._loop,), name="mirsafety-engine", daemon=True
            )
            self._thread.start()
        return self._thread

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            try:
                runner.run(self._live())
            except asyncio.CancelledError:
                self._abort(RuntimeError("the engine's loop was cancelled by an adapter"))
            except BaseException as error:  # noqa: BLE001 - it must reach those who wait
                self._abort(error)

    async def _live(self) -> None:
        if self._waits.over:  # stopped while this thread was starting
            self._pipeline.halt()
        try:
            await self._closing.wait()
        finally:
            self._troubles += await self._pipeline.close()

    def _abort(self, error: BaseException) -> None:
        """End the run for an error that concerns all of it; the first one is what callers see."""
        if self._fatal is None and not self._waits.over:
            self._fatal, self._fatal_at = error, error.__traceback__
        self.stop()

    def _ended(self, what: str) -> BaseException:
        if self._fatal is None:
            return NotRunError(f"the run stopped before this instance was {what}")
        # Raised again and again: with its first traceback, so that this does not grow.
        return self._fatal.with_traceback(self._fatal_at)

    def _await(
        self,
        landing: T,
        begin: Callable[[T], None] | None,
        tick: Callable[[], None] = lambda: None,
        every: float = _SLICE,
    ) -> None:
        if not landing.landed:
            if begin is not None:
                self._call(begin, landing)
            while not self._waits.wait(landing, every):
                tick()

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        """Call a function on the loop's thread, if there is one still running."""
        if (loop := self._loop) is not None:
            with suppress(RuntimeError):  # the loop is closed: those who wait were let go
                loop.call_soon_threadsafe(function, *arguments)


def _outcome(verdict: Verdict) -> Outcome:
    if verdict.kind is VerdictKind.SAFE:
        return Outcome(Status.SAFE, detail=verdict.evidence)
    if verdict.kind is VerdictKind.UNSAFE:
        return Outcome(Status.UNSAFE, detail=verdict.evidence)
    return Outcome(Status.UNSCORED, Reason.UNDETERMINED, verdict.evidence)
