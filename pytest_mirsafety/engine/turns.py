"""Model and judge one after the other, where the machine has memory for one of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Literal, TypeAlias

from ..errors import RunError
from ..printable import one_line
from ..protocols import Backend, Judge

Side: TypeAlias = Literal["model", "judge"]

Free: TypeAlias = Callable[[], Awaitable[object]]


class Turns:
    """Whose turn it is to compute. The model begins; a side keeps its turn while it is busy.

    `free` lets go of a side's memory before the other one takes it; `busy` says whether a side
    has work, begun or in line. Confined to the loop's thread.
    """

    def __init__(
        self,
        free: Mapping[Side, Free],
        busy: Callable[[Side], bool],
        abort: Callable[[BaseException], None],
    ) -> None:
        self._free = free
        self._busy = busy
        self._abort = abort
        self._side: Side = "model"
        self._inside = 0
        self._waiting: dict[asyncio.Future[None], Side] = {}
        self._change: asyncio.Task[None] | None = None
        self._halted = False

    @asynccontextmanager
    async def of(self, side: Side) -> AsyncIterator[None]:
        """Within it that side computes, and the other does not."""
        while self._side != side or self._change is not None:
            await self._wait(side)
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            self.look()

    def look(self) -> None:
        """Change turns if that is due: to be called whenever a side may have done all it had."""
        if self._inside or self._change is not None or self._halted or self._busy(self._side):
            return
        other = next((side for side in self._waiting.values() if side != self._side), None)
        if other is not None:
            self._change = asyncio.create_task(self._change_to(other))

    @property
    def side(self) -> Side:
        """Whose turn it is."""
        return self._side

    def halt(self) -> None:
        """Give up a change that is under way, and begin no other: a side keeps its turn."""
        self._halted = True
        if self._change is not None:
            self._change.cancel()

    async def _wait(self, side: Side) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting[future] = side
        try:
            self.look()
            await future
        finally:
            del self._waiting[future]

    async def _change_to(self, side: Side) -> None:
        try:
            await self._free[self._side]()
        except asyncio.CancelledError:
            if not self._halted:
                self._not_freed("it was cancelled from within")
                return
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an adapter may raise anything
            self._not_freed(error)
            return
        finally:
            self._change = None
        if not self._halted:
            self._side = side
        # A change that was given up leaves those waiting who came for its own side meanwhile.
        for future, waits_for in self._waiting.items():
            if waits_for == self._side and not future.done():
                future.set_result(None)

    def _not_freed(self, why: object) -> None:
        """End the run: the other side would not find the memory that it needs."""
        problem = one_line(f"the {self._side}'s memory was not given back: {why}", 300)
        self._abort(RunError(problem))


def freeing(backend: Backend, judge: Judge) -> Mapping[Side, Free]:
    """How each of them is freed; one that has no `free` holds nothing."""
    return {
        "model": getattr(backend, "free", _hold_nothing),
        "judge": getattr(judge, "free", _hold_nothing),
    }


async def _hold_nothing() -> None:
    pass
