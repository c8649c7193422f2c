"""How fast one endpoint may be asked.

The requests in flight rise by one per round of answers and halve when the endpoint asks for less.
Nothing here sleeps or knows of an event loop: a caller asks for seconds and waits them out.
"""

from __future__ import annotations

import random
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..errors import RetryableError

_MINUTE: Final = 60.0
_FIRST_WAIT: Final = 0.5
_SHORTEST_WAIT: Final = 0.01
_LONGEST_WAIT: Final = 8.0
_LONGEST_PAUSE: Final = 120.0
"""Seconds: no Retry-After stops the asking for longer."""

_STATUS: Final = re.compile(r"\bHTTP [0-9]{3}\b")
_MOST_GIVEN_UP: Final = 20
"""Requests given up in a row, after which the endpoint counts as gone."""


@dataclass(frozen=True, slots=True)
class PaceSettings:
    """The bounds of the pace.

    `concurrency` is the most requests in flight. `retries` are the further attempts of one request
    after failures that are no overload; overloads are waited out for `patience` seconds without
    any answer. The limits per minute hold in every window of 60 seconds; None is no limit.

    Raises:
        ValueError: a bound that would let nothing through.
    """

    concurrency: int
    retries: int = 8
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    patience: float = 600.0

    def __post_init__(self) -> None:
        for name in ("concurrency", "requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more")
        for name in ("retries", "patience"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more")


@dataclass(frozen=True, slots=True)
class Slowdown:
    """What holds an endpoint up.

    `wait` is the seconds until a request may start, 0 if one may; `limit` how many may be in
    flight while they are fewer than were set; `trouble` what came last instead of an answer.
    """

    wait: float = 0.0
    limit: int | None = None
    trouble: str = ""


@dataclass(slots=True)
class _Start:
    """A request in the window of the last minute."""

    leaves: float
    tokens: int


class Pace:
    """How fast one endpoint may be asked: additive up, multiplicative down, within the limits set.

    Belongs to one thread. Every attempt of a request is a start of its own: wait until `delay` is
    0 and fewer than `limit` requests are in flight, call `started`, and then `succeeded` or
    `failed` with its ticket. A start that ends otherwise, as by cancellation, needs no call.
    """

    def __init__(
        self,
        settings: PaceSettings,
        now: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._now = now
        self._jitter = jitter
        self._limit = float(settings.concurrency)
        self._next_ticket = 0
        self._round = 0
        """The first ticket that is not of a round which already lowered the limit."""
        self._overloads = 0
        """Rounds that met an overload, since the last answer."""
        self._paused_until = now()
        self._failing_since: float | None = None
        self._given_up = 0
        self._trouble = self._paused_for = ""
        self._out_of_patience = False
        self._window: OrderedDict[int, _Start] = OrderedDict()
        self._window_tokens = 0

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        return int(self._limit)

    @property
    def hopeless(self) -> bool:
        """The endpoint has answered nothing for so long that asking on is pointless."""
        return self._out_of_patience or self._given_up >= _MOST_GIVEN_UP

    @property
    def slowdown(self) -> Slowdown:
        """What the endpoint has slowed the asking down by. Any thread may look."""
        limit, wait = self.limit, max(0.0, self._paused_until - self._now())
        return Slowdown(
            wait=wait,
            limit=limit if limit < self._settings.concurrency else None,
            trouble=self._paused_for if wait else self._trouble,
        )

    def delay(self, tokens: int = 0) -> float:
        """Seconds until a request of about so many tokens may start; 0 when it may now.

        Ask again after the wait: others may have started, or the endpoint asked for a pause.
        """
        now = self._now()
        return max(0.0, self._paused_until - now, self._window_delay(now, tokens))

    def started(self, tokens: int = 0) -> int:
        """Note a start and reserve its estimated tokens; the ticket is the start's number."""
        ticket, self._next_ticket = self._next_ticket, self._next_ticket + 1
        settings = self._settings
        if settings.requests_per_minute is not None or settings.tokens_per_minute is not None:
            self._window[ticket] = _Start(self._now() + _MINUTE, tokens)
            self._window_tokens += tokens
        return ticket

    def succeeded(self, ticket: int, tokens: int = 0) -> None:
        """Note a reply, also one that refuses; `tokens` replace those reserved, unless 0."""
        if tokens and (start := self._window.get(ticket)) is not None:
            self._window_tokens += tokens - start.tokens
            start.tokens = tokens
        self._limit = min(self._limit + 1 / self._limit, float(self._settings.concurrency))
        self._overloads = self._given_up = 0
        self._trouble = ""
        self._failing_since, self._out_of_patience = None, False

    def failed(self, ticket: int, error: RetryableError, attempt: int) -> float | None:
        """Seconds to wait before this request's next attempt; None when it is given up.

        `attempt` counts the failures of this request that were no overload, this one included.
        The reserved tokens stay counted: providers count what they refuse.
        """
        now = self._now()
        if self._failing_since is None:
            self._failing_since = now
        self._trouble = _word(error)
        told = error.retry_after
        pause = min(told, _LONGEST_PAUSE) if told is not None and told >= 0 else None
        if pause is not None:
            self._pause(now + pause)
        if error.overloaded:
            wait = self._slow_down(now, ticket, told=pause is not None)
            self._out_of_patience |= now - self._failing_since >= self._settings.patience
        else:
            wait = self._jitter() * _doubled(_FIRST_WAIT, attempt - 1)
        if self.hopeless or (not error.overloaded and attempt > self._settings.retries):
            self._given_up += 1
            return None
        return max(pause or 0.0, wait)

    def _slow_down(self, now: float, ticket: int, *, told: bool) -> float:
        """Halve the limit, once for all requests that were in flight together; seconds to wait.

        From the second round without an answer the wait is one for every request, and it doubles:
        also where the endpoint keeps naming a time that is too short.
        """
        begins = ticket >= self._round
        if begins:
            self._limit = max(1.0, self._limit / 2)
            self._round = self._next_ticket
            self._overloads += 1
        first = _SHORTEST_WAIT if told else _FIRST_WAIT
        wait = (1 + self._jitter()) / 2 * _doubled(first, self._overloads - 1)
        if begins and self._overloads > 1:
            self._pause(now + wait)
        return wait

    def _pause(self, until: float) -> None:
        """Let nothing start until then; an answer to what is under way does not end it."""
        self._paused_until = max(self._paused_until, until)
        self._paused_for = self._trouble

    def _window_delay(self, now: float, tokens: int) -> float:
        while self._window and next(iter(self._window.values())).leaves <= now:
            self._window_tokens -= self._window.popitem(last=False)[1].tokens
        delay, count, used = 0.0, len(self._window), self._window_tokens
        for start in self._window.values():
            if self._fits(count, used, tokens):
                break
            delay, count, used = start.leaves - now, count - 1, used - start.tokens
        return delay

    def _fits(self, count: int, used: int, tokens: int) -> bool:
        """Whether another start fits; one above the limit of tokens does when it is alone."""
        requests, most = self._settings.requests_per_minute, self._settings.tokens_per_minute
        if requests is not None and count >= requests:
            return False
        return most is None or (used < most and used + tokens <= most)


def _doubled(first: float, times: int) -> float:
    return min(first * 2.0 ** min(max(times, 0), 20), _LONGEST_WAIT)


def _word(error: RetryableError) -> str:
    """Such as `HTTP 429`."""
    status = _STATUS.search(error.detail)
    return status[0] if status is not None else "no answer"
