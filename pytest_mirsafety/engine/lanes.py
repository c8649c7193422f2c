"""Bounded, ordered work on an event loop, and the threads that wait for what it brings."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

Job = TypeVar("Job", bound=Hashable)


@dataclass(slots=True, eq=False)
class Landing:
    """Something that lands once: on the loop's thread, while other threads wait for it."""

    landed: bool = field(default=False, init=False)


class Waits:
    """The threads that wait, each for one landing; `release` lets all of them go.

    Nothing here takes a lock that a waiting thread holds, so `release` may be called from a
    signal handler that interrupted a wait. Each thread waits at a queue of its own, since that
    wait is one call into C: what a signal handler raises comes out of it as it was raised, while
    a `Condition` (of a `Future`, an `Event`) may answer it with an error about its own lock.
    """

    def __init__(self) -> None:
        self._waiting: dict[SimpleQueue[None], Landing] = {}
        self._over = False

    @property
    def over(self) -> bool:
        """Everybody was let go: what has not landed will not land."""
        return self._over

    def wait(self, landing: Landing, timeout: float) -> bool:
        """Block for at most `timeout` seconds; tells whether there is no more to wait for."""
        bell: SimpleQueue[None] = SimpleQueue()
        self._waiting[bell] = landing
        try:
            # Looked at only now: whoever lands it from here on sees the bell and rings it.
            if not (landing.landed or self._over):
                bell.get(timeout=timeout)
        except Empty:
            pass
        finally:
            del self._waiting[bell]
        return landing.landed or self._over

    def land(self, landing: Landing) -> None:
        """Mark it landed and wake those who wait for it."""
        landing.landed = True
        for bell, awaited in self._waiting.copy().items():
            if awaited is landing:
                bell.put(None)

    def release(self) -> None:
        """Wake everybody, now and in future."""
        self._over = True
        for bell in self._waiting.copy():
            bell.put(None)


class Lane(Generic[Job]):
    """Works on at most `limit` jobs at once: the urgent ones first, then in order.

    Confined to the loop's thread. `limit` may be changed while the lane runs; `pump` then makes
    use of it. A job that is not urgent starts only while `room` says so, any job only when
    `may_begin` says so of it: nothing overtakes one that may not. What escapes from `work` is
    handed to `abort`: an error that nobody hears of would leave a thread waiting.
    """

    def __init__(
        self,
        work: Callable[[Job], Coroutine[object, object, None]],
        limit: int,
        abort: Callable[[BaseException], None],
        *,
        room: Callable[[], bool] = lambda: True,
        may_begin: Callable[[Job], bool] = lambda _: True,
    ) -> None:
        self.limit = limit
        self._work = work
        self._abort = abort
        self._room = room
        self._may_begin = may_begin
        self._urgent: OrderedDict[Job, None] = OrderedDict()
        self._queue: OrderedDict[Job, None] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._halted = False

    @property
    def running(self) -> int:
        """Jobs being worked on."""
        return len(self._tasks)

    @property
    def waiting(self) -> int:
        """Jobs not yet begun."""
        return len(self._urgent) + len(self._queue)

    def add(self, job: Job, *, urgent: bool = False, first: bool = False) -> None:
        """Put a job in line, behind its like or before them; once halted, do nothing."""
        if not self._halted:
            self._place(job, urgent=urgent, first=first)
            self.pump()

    def extend(self, jobs: Iterable[Job]) -> None:
        """Put many jobs in line, none of them urgent."""
        if not self._halted:
            self._queue.update(dict.fromkeys(jobs))
            self.pump()

    def hurry(self, job: Job) -> None:
        """Let a job that has not begun jump the queue."""
        if job in self._queue:
            del self._queue[job]
            self.add(job, urgent=True)

    def take(self, most: int) -> list[Job]:
        """Take the next jobs out of line, for one that runs to work on them with its own."""
        taken: list[Job] = []
        while len(taken) < most and (queue := self._open_queue()):
            taken.append(queue.popitem(last=False)[0])
        return taken

    def put_back(self, jobs: Sequence[Job], urgent: Callable[[Job], bool]) -> None:
        """Put jobs back where they were taken from; once halted, do nothing."""
        if not self._halted:
            for job in reversed(jobs):
                self._place(job, urgent=urgent(job), first=True)
            self.pump()

    def remove(self, job: Job) -> bool:
        """Take a job out of line; tells whether it was there."""
        for queue in (self._urgent, self._queue):
            if job in queue:
                del queue[job]
                return True
        return False

    def clear(self) -> list[Job]:
        """Take all jobs out of line."""
        jobs = [*self._urgent, *self._queue]
        self._urgent.clear()
        self._queue.clear()
        return jobs

    def pump(self) -> None:
        """Begin as many jobs as may run."""
        while len(self._tasks) < self.limit and (queue := self._open_queue()):
            job = next(iter(queue))
            if not self._may_begin(job):
                break
            del queue[job]
            task = asyncio.create_task(self._work(job))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def halt(self) -> None:
        """Begin nothing more, and cancel what runs."""
        self._halted = True
        self.clear()
        for task in self._tasks:
            task.cancel()

    async def drained(self, timeout: float) -> None:  # noqa: ASYNC109 - it gives up, not fails
        """Wait until nothing runs any more, or `timeout` seconds."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)

    def _place(self, job: Job, *, urgent: bool, first: bool) -> None:
        queue = self._urgent if urgent else self._queue
        queue[job] = None
        if first:
            queue.move_to_end(job, last=False)

    def _open_queue(self) -> OrderedDict[Job, None]:
        return self._urgent if self._urgent or not self._room() else self._queue

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            if not self._halted:
                self._abort(RuntimeError("a task of the engine was cancelled by somebody else"))
        elif (error := task.exception()) is not None:
            self._abort(error)
        self.pump()
