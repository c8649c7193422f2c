"""Lanes and waits: bounded, in order, and nobody is left waiting."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from interrupts import Interrupted, interrupted
from scripted import within

from pytest_mirsafety.engine.lanes import Landing, Lane, Waits

FOREVER = 3600.0


def never(error: BaseException) -> None:
    raise error


async def idle(lane: Lane[Any]) -> None:
    while lane.running:  # noqa: ASYNC110 - a lane has nothing to wait for: jobs begin others
        await asyncio.sleep(0)


@given(
    jobs=st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=20),
    limit=st.integers(1, 4),
    hurried=st.sets(st.integers(0, 19)),
)
@settings(max_examples=100)
def test_each_job_is_worked_on_once_within_the_limit(
    jobs: list[tuple[int, bool]], limit: int, hurried: set[int]
) -> None:
    begun: list[int] = []
    peak = 0

    async def scenario() -> None:
        async def work(job: int) -> None:
            nonlocal peak
            begun.append(job)
            peak = max(peak, lane.running)
            for _ in range(jobs[job][0]):
                await asyncio.sleep(0)

        lane = Lane(work, limit, never)
        for job, (_, urgent) in enumerate(jobs):
            lane.add(job, urgent=urgent)
        for job in hurried:
            lane.hurry(job)
        await idle(lane)

    asyncio.run(scenario())
    assert sorted(begun) == list(range(len(jobs)))
    assert peak <= limit


def test_urgent_jobs_come_first_and_keep_their_order() -> None:
    begun: list[str] = []

    async def scenario() -> None:
        async def work(job: str) -> None:
            begun.append(job)

        lane = Lane(work, 1, never)
        lane.extend("abcd")  # `a` runs at once
        lane.add("x", urgent=True)
        lane.hurry("d")
        lane.hurry("unknown")
        assert lane.waiting == 4
        await idle(lane)

    asyncio.run(scenario())
    assert begun == ["a", "x", "d", "b", "c"]


def test_without_room_only_urgent_jobs_begin() -> None:
    begun: list[str] = []

    async def scenario() -> None:
        async def work(job: str) -> None:
            begun.append(job)

        room = False
        lane = Lane(work, 2, never, room=lambda: room)
        lane.extend("ab")
        lane.add("x", urgent=True)
        await idle(lane)
        assert begun == ["x"]
        room = True
        lane.pump()
        await idle(lane)

    asyncio.run(scenario())
    assert begun == ["x", "a", "b"]


def test_what_may_not_begin_is_overtaken_by_nothing() -> None:
    begun: list[str] = []

    async def scenario() -> None:
        async def work(job: str) -> None:
            begun.append(job)

        refused = {"x"}
        lane = Lane(work, 3, never, may_begin=lambda job: job not in refused)
        lane.add("x", urgent=True)
        lane.extend("ab")
        await idle(lane)
        assert (begun, lane.waiting) == ([], 3)
        refused.clear()
        lane.pump()
        await idle(lane)

    asyncio.run(scenario())
    assert begun == ["x", "a", "b"]


def test_jobs_are_taken_out_of_line_and_put_back() -> None:
    begun: list[str] = []

    async def scenario() -> None:
        async def work(job: str) -> None:
            begun.append(job)

        lane = Lane(work, 0, never)
        lane.extend("abcdef")
        lane.add("y", urgent=True)
        lane.add("x", urgent=True, first=True)
        assert lane.take(4) == ["x", "y", "a", "b"]
        lane.put_back(["y", "a", "b"], lambda job: job == "y")
        assert lane.remove("c")
        assert not lane.remove("x")
        lane.limit = 1
        lane.pump()
        await idle(lane)
        lane.limit = 0
        lane.extend("gh")
        assert lane.clear() == ["g", "h"]
        lane.halt()
        lane.put_back(["z"], lambda _: True)
        assert lane.waiting == 0

    asyncio.run(scenario())
    assert begun == ["y", "a", "b", "d", "e", "f"]


def test_a_raised_limit_is_used() -> None:
    async def scenario() -> None:
        async def work(job: int) -> None:
            await asyncio.sleep(FOREVER)

        lane = Lane(work, 1, never)
        lane.extend(range(5))
        assert lane.running == 1
        lane.limit = 3
        lane.pump()
        assert lane.running == 3
        lane.halt()
        await lane.drained(FOREVER)
        assert (lane.running, lane.waiting) == (0, 0)
        lane.add(9)
        lane.extend([10])
        assert (lane.running, lane.waiting) == (0, 0)

    asyncio.run(scenario())


def test_whatever_escapes_is_reported() -> None:
    reported: list[BaseException] = []
    bug = ZeroDivisionError()

    async def scenario() -> None:
        async def work(job: str) -> None:
            if job == "bug":
                raise bug
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

        lane = Lane(work, 2, reported.append)
        lane.extend(["bug", "cancelled"])
        await idle(lane)

    asyncio.run(scenario())
    assert reported[0] is bug
    assert isinstance(reported[1], RuntimeError)


def test_a_wait_ends_with_its_landing_only() -> None:
    waits, first, second = Waits(), Landing(), Landing()
    assert not waits.wait(first, 0.001)

    def land() -> None:
        while first not in waits._waiting.values():
            time.sleep(0.001)
        waits.land(first)

    threading.Thread(target=land, daemon=True).start()
    assert within(20, lambda: waits.wait(first, FOREVER))
    assert waits.wait(first, FOREVER)
    assert not waits.wait(second, 0.001)
    assert (first.landed, second.landed) == (True, False)


def test_a_release_ends_every_wait_now_and_later() -> None:
    waits = Waits()
    begun = threading.Semaphore(0)

    def wait() -> None:
        begun.release()
        assert waits.wait(Landing(), FOREVER)

    threads = [threading.Thread(target=wait, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
        begun.acquire()
    waits.release()
    waits.release()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert waits.over
    assert waits.wait(Landing(), FOREVER)


def test_an_interrupt_comes_out_of_a_wait_as_it_was_raised() -> None:
    """A wait that is not one call into C answers some of these with an error about its lock."""
    waits, raised = Waits(), 0
    delays = random.Random(1)
    for _ in range(10_000):
        with suppress(Interrupted), interrupted(after=delays.uniform(1e-6, 3e-4)):
            try:
                waits.wait(Landing(), 1e-4)
            except Interrupted:
                raised += 1
    assert raised, "no wait was interrupted: nothing was seen"
