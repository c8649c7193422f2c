"""Keeps completed answers: all that wait are written to the store in one transaction."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from ..protocols import Store
from ..records import Completion, Request


@dataclass(frozen=True, slots=True)
class _Entry:
    """An answer to be kept, and who waits for that."""

    request: Request
    completion: Completion
    kept: asyncio.Future[Completion]


class Keeper:
    """Writes answers in a thread of its own. `keep` belongs to the loop's thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._entries: deque[_Entry] = deque()
        self._scheduled = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="mirsafety-store")

    async def keep(self, request: Request, completion: Completion) -> Completion:
        """Store the answer and give the one that the store holds: the first counts.

        The write outlives a cancellation, so that an answer once had is never lost.

        Raises:
            StoreError: it cannot be written.
        """
        loop = asyncio.get_running_loop()
        entry = _Entry(request, completion, loop.create_future())
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
        entries: list[_Entry] = []
        with suppress(IndexError):
            while True:
                entries.append(self._entries.popleft())
        if not entries:
            return
        result: list[Completion] | BaseException
        try:
            result = self._store.put_all([(e.request, e.completion) for e in entries])
        except BaseException as error:  # noqa: BLE001 - it must reach those who wait
            result = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_tell, entries, result)


def _tell(entries: list[_Entry], result: list[Completion] | BaseException) -> None:
    for number, entry in enumerate(entries):
        if entry.kept.done():  # cancelled
            continue
        if isinstance(result, BaseException):
            entry.kept.set_exception(result)
        else:
            entry.kept.set_result(result[number])
