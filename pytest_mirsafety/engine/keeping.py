"""Keeps answers and verdicts: all that wait are written to the store in one transaction."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

K = TypeVar("K")
V = TypeVar("V")
K_contra = TypeVar("K_contra", contravariant=True)


class Shelf(Protocol[K_contra, V]):
    """Where things are kept: the first of each key counts."""

    def put_all(self, things: Sequence[tuple[K_contra, V]], /) -> list[V]:
        """Keep all or none; gives for each the one that is held now."""


@dataclass(frozen=True, slots=True)
class _Entry(Generic[K, V]):
    """Something to be kept, and who waits for that."""

    key: K
    value: V
    kept: asyncio.Future[V]


class Keeper(Generic[K, V]):
    """Writes in a thread of its own. `keep` belongs to the loop's thread."""

    def __init__(self, store: Shelf[K, V]) -> None:
        self._store = store
        self._entries: deque[_Entry[K, V]] = deque()
        self._scheduled = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="mirsafety-store")

    async def keep(self, key: K, value: V) -> V:
        """Store what was had and give the one that the store holds: the first counts.

        The write outlives a cancellation, so that what was had once is never lost.

        Raises:
            StoreError: it cannot be written.
        """
        loop = asyncio.get_running_loop()
        entry: _Entry[K, V] = _Entry(key, value, loop.create_future())
        self._entries.append(entry)
        if not self._scheduled:
            self._scheduled = True
            self._writer.submit(self._write, loop)
        return await entry.kept

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self._writer.shutdown()

    def _write(self, loop: asyncio.AbstractEventLoop) -> None:
        self._scheduled = False  # before looking: who comes later schedules another write
        entries: list[_Entry[K, V]] = []
        with suppress(IndexError):
            while True:
                entries.append(self._entries.popleft())
        if not entries:
            return
        result: list[V] | BaseException
        try:
            result = self._store.put_all([(e.key, e.value) for e in entries])
        except BaseException as error:  # noqa: BLE001 - it must reach those who wait
            result = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_tell, entries, result)


def _tell(entries: list[_Entry[K, V]], result: list[V] | BaseException) -> None:
    for number, entry in enumerate(entries):
        if entry.kept.done():  # cancelled
            continue
        if isinstance(result, BaseException):
            entry.kept.set_exception(result)
        else:
            entry.kept.set_result(result[number])
