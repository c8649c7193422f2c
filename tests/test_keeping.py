"""Answers are written in groups, each before anybody has it, and none is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from engine_setting import BOUND
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import MemoryStore, completion

from pytest_mirsafety.engine.keeping import Keeper
from pytest_mirsafety.errors import StoreError
from pytest_mirsafety.records import Completion, ModelIdentity, Request

MODEL = ModelIdentity("scripted", "echo")


def request(number: int) -> Request:
    return Request(MODEL, f"prompt {number}", ())


@dataclass
class GroupStore(MemoryStore):
    """Remembers the groups it was given; the first write takes until it is released."""

    groups: list[int] = field(default_factory=list)
    writing: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def put_all(self, answers: Sequence[tuple[Request, Completion]]) -> list[Completion]:
        self.writing.set()
        assert self.released.wait(BOUND)
        self.groups.append(len(answers))
        return super().put_all(answers)


@given(numbers=st.lists(st.integers(0, 8), min_size=1, max_size=30), pauses=st.randoms())
@settings(max_examples=30, deadline=None)
def test_each_gets_what_the_store_holds_for_its_request(numbers: list[int], pauses: object) -> None:
    store = MemoryStore()

    async def scenario() -> list[Completion]:
        keeper = Keeper(store)

        async def keep(place: int, number: int) -> Completion:
            for _ in range(pauses.randrange(4)):  # type: ignore[attr-defined]
                await asyncio.sleep(0)
            kept = await keeper.keep(request(number), completion(f"answer {place}"))
            assert store.answers[request(number).key] == kept  # it is durable by now
            return kept

        results = await asyncio.gather(*(keep(p, n) for p, n in enumerate(numbers)))
        keeper.close()
        return results

    results = asyncio.run(scenario())
    for number, result in zip(numbers, results, strict=True):
        assert store.answers[request(number).key] == result


def test_answers_that_wait_are_written_together() -> None:
    store = GroupStore()

    async def scenario() -> None:
        keeper = Keeper(store)
        first = asyncio.create_task(keeper.keep(request(0), completion()))
        await asyncio.to_thread(store.writing.wait, BOUND)
        rest = [asyncio.create_task(keeper.keep(request(n), completion())) for n in range(1, 10)]
        await asyncio.sleep(0)
        assert not first.done()
        store.released.set()
        await asyncio.gather(first, *rest)
        keeper.close()

    asyncio.run(scenario())
    assert store.groups == [1, 9]


def test_a_write_outlives_who_waits_for_it() -> None:
    store = GroupStore()

    async def scenario() -> None:
        keeper = Keeper(store)
        tasks = [asyncio.create_task(keeper.keep(request(n), completion())) for n in range(5)]
        await asyncio.to_thread(store.writing.wait, BOUND)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        threading.Timer(0.01, store.released.set).start()
        keeper.close()

    asyncio.run(scenario())
    assert len(store.answers) == 5


def test_a_write_that_fails_reaches_all_who_wait() -> None:
    store = MemoryStore(put_error=StoreError("the disk is full"))

    async def scenario() -> list[BaseException | Completion]:
        keeper = Keeper(store)
        keeps = [keeper.keep(request(n), completion()) for n in range(3)]
        results = await asyncio.gather(*keeps, return_exceptions=True)
        keeper.close()
        return results

    for result in asyncio.run(scenario()):
        with pytest.raises(StoreError, match="the disk is full"):
            raise result  # type: ignore[misc]  # an answer here is the failure
