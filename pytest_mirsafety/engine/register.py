"""Every request key of a run: under way, or settled. So each is worked on once."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from ..errors import StoreError, UnscoredError
from ..records import Completion, Request
from .asks import Ask
from .reading import Prepared


class Receiver(Protocol):
    """Who is told what becomes of an ask."""

    def answered(self, ask: Ask, completion: Completion, *, cached: bool) -> None:
        """It has an answer, which the store holds if there is one."""

    def failed(self, ask: Ask, failure: UnscoredError) -> None:
        """It has none, and will have none."""

    def look_again(self, ask: Ask) -> None:
        """Its answer was stored after the store had been looked into."""

    def read_on(self) -> None:
        """There may be room for more asks."""


class UnderWay(Protocol):
    """One request that is worked on, for all the asks that came to it."""

    request: Request
    asks: list[Ask]


W = TypeVar("W", bound=UnderWay)


class Register(Generic[W]):
    """Which requests are under way, and what came of the others. For the loop's thread."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._under_way: dict[str, W] = {}
        # None stands for a completion that the store keeps, so that memory need not.
        self._settled: dict[str, Completion | UnscoredError | None] = {}

    @property
    def under_way(self) -> list[W]:
        """All that are under way."""
        return list(self._under_way.values())

    def of(self, ask: Ask) -> W | None:
        """What is under way for this ask."""
        return None if ask.key is None else self._under_way.get(ask.key)

    def settle(self, ask: Ask, prepared: Prepared) -> bool:
        """Let an ask have what is known of its request; tells whether anything is."""
        ask.key = key = prepared.request.key
        if key in self._settled:
            self._settle(ask, self._settled[key] or prepared.completion)
        elif key in self._under_way or prepared.completion is None:
            return False
        else:
            self._receiver.answered(ask, prepared.completion, cached=True)
        return True

    def begin(self, work: W) -> None:
        """It is under way from now on."""
        self._under_way[work.request.key] = work

    def drop(self, work: W) -> None:
        """It is under way no more, and nothing came of it."""
        del self._under_way[work.request.key]

    def end(self, work: W, result: Completion | UnscoredError, *, kept: bool) -> None:
        """Let all its asks have the result, which the store has if it is `kept`."""
        key = work.request.key
        self._settled[key] = None if kept else result
        del self._under_way[key]
        for ask in work.asks:
            self._settle(ask, result)

    def _settle(self, ask: Ask, result: Completion | UnscoredError | None) -> None:
        if isinstance(result, UnscoredError):
            self._receiver.failed(ask, result)
        elif result is not None:
            self._receiver.answered(ask, result, cached=False)
        elif not ask.looked_again:  # it was stored after this ask had looked
            ask.looked_again = True
            self._receiver.look_again(ask)
        else:
            raise StoreError(f"the answer of {ask.instance.id} (request {ask.key}) left the store")
