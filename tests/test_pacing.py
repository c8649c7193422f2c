from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_mirsafety.engine.pacing import Pace, PaceSettings, Slowdown
from pytest_mirsafety.errors import RetryableError

BUSY = RetryableError("HTTP 429", overloaded=True)
BROKEN = RetryableError("HTTP 500")
LONGEST_STEP = 120.0


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def pace_of(
    clock: Clock | None = None, jitter: Callable[[], float] = lambda: 0.5, **settings: Any
) -> Pace:
    return Pace(PaceSettings(**{"concurrency": 8, **settings}), clock or Clock(), jitter)


def wait_out(pace: Pace, clock: Clock, tokens: int = 0) -> None:
    """Let time pass as `delay` says, which settles after a few looks."""
    for _ in range(5):
        delay = pace.delay(tokens)
        assert 0 <= delay <= LONGEST_STEP
        if delay == 0:
            return
        clock.now += delay
    raise AssertionError("delay never ends")


errors = st.builds(
    RetryableError,
    st.just("no"),
    overloaded=st.booleans(),
    retry_after=st.none() | st.floats(),
)
jitters = st.floats(0, 1, exclude_max=True)
steps = st.one_of(
    st.tuples(st.just("start"), st.integers(0, 5_000)),
    st.tuples(st.just("succeed"), st.integers(0, 5_000)),
    st.tuples(st.just("fail"), errors),
    st.tuples(st.just("pass"), st.floats(0, 200)),
)


@given(
    concurrency=st.integers(1, 70),
    rpm=st.none() | st.integers(1, 20),
    tpm=st.none() | st.integers(1, 10_000),
    jitter=jitters,
    steps=st.lists(steps, max_size=80),
)
def test_whatever_happens_the_bounds_hold(
    concurrency: int, rpm: int | None, tpm: int | None, jitter: float, steps: Sequence[Any]
) -> None:
    clock = Clock()
    settings = PaceSettings(concurrency, requests_per_minute=rpm, tokens_per_minute=tpm)
    pace = Pace(settings, clock, lambda: jitter)
    under_way: list[int] = []
    assert pace.limit == concurrency
    for step, value in steps:
        if step == "start":
            under_way.append(pace.started(value))
        elif step == "pass":
            clock.now += value
        elif under_way and step == "succeed":
            pace.succeeded(under_way.pop(0), value)
        elif under_way:
            wait = pace.failed(under_way.pop(0), value, 3)
            assert wait is None or 0 <= wait <= LONGEST_STEP
        assert 1 <= pace.limit <= concurrency
        assert 0 <= pace.delay(100) <= LONGEST_STEP


@given(
    rpm=st.integers(1, 6),
    start=st.floats(0, 1e9),
    pauses=st.lists(st.floats(0, 90) | st.just(0.0), max_size=40),
)
@example(rpm=1, start=0.1, pauses=[0.0] * 9)
def test_no_window_of_a_minute_has_more_starts_than_allowed(
    rpm: int, start: float, pauses: list[float]
) -> None:
    clock = Clock(start)
    pace = pace_of(clock, requests_per_minute=rpm)
    starts = []
    for pause in pauses:
        clock.now += pause
        wait_out(pace, clock)
        pace.started()
        starts.append(clock.now)
    for earlier, later in zip(starts, starts[rpm:], strict=False):
        assert later >= earlier + 60


def test_the_limit_of_requests_is_reached() -> None:
    clock = Clock()
    pace = pace_of(clock, requests_per_minute=3)
    for _ in range(7):
        wait_out(pace, clock)
        pace.started()
    assert clock.now == 1_120


@given(
    tpm=st.integers(1, 1_000),
    asked=st.lists(
        st.tuples(st.floats(0, 40), st.integers(0, 1_200), st.floats(0, 1)), max_size=30
    ),
)
def test_no_window_of_a_minute_has_more_tokens_than_allowed(
    tpm: int, asked: list[tuple[float, int, float]]
) -> None:
    clock = Clock()
    pace = pace_of(clock, tokens_per_minute=tpm)
    spent: list[tuple[float, int]] = []
    for pause, estimate, share in asked:
        clock.now += pause
        wait_out(pace, clock, estimate)
        recent = [tokens for at, tokens in spent if at + 60 > clock.now]
        assert sum(recent) + estimate <= tpm or not recent
        ticket = pace.started(estimate)
        actual = int(estimate * share)
        if actual:
            pace.succeeded(ticket, actual)
        spent.append((clock.now, actual or estimate))


def test_actual_tokens_replace_the_reserved_ones() -> None:
    pace = pace_of(tokens_per_minute=100)
    ticket = pace.started(90)
    assert pace.delay(20) == 60
    pace.succeeded(ticket, 50)
    assert pace.delay(50) == 0
    assert pace.delay(51) == 60
    pace.succeeded(pace.started(20), 70)  # more than was reserved
    assert pace.delay(0) == 60


def test_a_full_window_lets_nothing_through_until_its_minute_is_over() -> None:
    clock = Clock()
    pace = pace_of(clock, tokens_per_minute=100)
    pace.started(100)
    assert pace.delay(0) == 60
    clock.now += 59.5
    assert pace.delay(0) == 0.5
    clock.now += 0.5
    assert pace.delay(100) == 0


def test_a_request_above_the_limit_goes_alone() -> None:
    clock = Clock()
    pace = pace_of(clock, tokens_per_minute=100)
    assert pace.delay(5_000) == 0
    pace.started(5_000)
    assert pace.delay(1) == 60
    clock.now += 60
    assert pace.delay(100) == 0


# Adapting


@given(
    concurrency=st.integers(1, 12),
    overloads=st.integers(0, 12),
    steps=st.lists(steps, max_size=20),
)
def test_after_the_overloads_the_limit_comes_back(
    concurrency: int, overloads: int, steps: Sequence[Any]
) -> None:
    pace = pace_of(concurrency=concurrency)
    for step, value in steps:
        if step == "fail":
            pace.failed(pace.started(), value, 1)
    for _ in range(overloads):
        pace.failed(pace.started(), BUSY, 0)
    for _ in range(concurrency**2):
        pace.succeeded(pace.started())
    assert pace.limit == concurrency


def test_a_round_of_answers_adds_one() -> None:
    pace = pace_of(concurrency=64)
    for _ in range(3):
        pace.failed(pace.started(), BUSY, 0)
    for limit in range(8, 20):
        assert pace.limit == limit
        for _ in range(limit + 1):  # the limit grows during the round
            pace.succeeded(pace.started())


@given(st.permutations(range(8)))
def test_requests_in_flight_together_lower_the_limit_once(order: list[int]) -> None:
    pace = pace_of(concurrency=8)
    tickets = [pace.started() for _ in range(8)]
    for n in order:
        pace.failed(tickets[n], BUSY, 0)
    assert pace.limit == 4
    pace.failed(pace.started(), BUSY, 0)
    assert pace.limit == 2


def test_a_failure_that_is_no_overload_changes_no_limit() -> None:
    pace = pace_of()
    pace.failed(pace.started(), BROKEN, 1)
    assert pace.limit == 8


@pytest.mark.parametrize(("told", "pause"), [(7.0, 7.0), (1e9, 120.0), (math.inf, 120.0)])
@pytest.mark.parametrize("overloaded", [True, False])
def test_retry_after_holds_for_every_request(told: float, pause: float, overloaded: bool) -> None:
    pace = pace_of()
    error = RetryableError("wait", overloaded=overloaded, retry_after=told)
    wait = pace.failed(pace.started(), error, 1)
    assert wait == pause
    assert pace.delay() == pause


def test_it_tells_what_holds_it_up() -> None:
    clock = Clock()
    pace = pace_of(clock)
    assert pace.slowdown == Slowdown()
    first, second = pace.started(), pace.started()
    error = RetryableError("HTTP 429: slow down, HTTP 500", overloaded=True, retry_after=7.0)
    pace.failed(first, error, 0)
    clock.now += 2
    assert pace.slowdown == Slowdown(5.0, 4, "HTTP 429")
    pace.succeeded(second)  # one that was under way ends no pause
    assert pace.slowdown == Slowdown(5.0, 4, "HTTP 429")
    clock.now += 6
    assert pace.slowdown == Slowdown(0.0, 4, "")
    pace.failed(pace.started(), RetryableError("the connection broke"), 1)
    assert pace.slowdown == Slowdown(0.0, 4, "no answer")
    pace.succeeded(pace.started())
    for _ in range(40):
        pace.succeeded(pace.started())
    assert pace.slowdown == Slowdown()


@pytest.mark.parametrize("told", [-1.0, math.nan, -math.inf])
def test_a_senseless_retry_after_is_none(told: float) -> None:
    pace = pace_of()
    error = RetryableError("no", overloaded=True, retry_after=told)
    wait = pace.failed(pace.started(), error, 0)
    assert wait == pace_of().failed(0, BUSY, 0)
    assert pace.delay() == 0


def test_a_shorter_retry_after_does_not_end_a_longer_one() -> None:
    pace = pace_of()
    for told in (9.0, 2.0):
        error = RetryableError("wait", overloaded=True, retry_after=told)
        pace.failed(pace.started(), error, 0)
    assert pace.delay() == 9


# Waiting for the next attempt, and giving up


@given(jitter=jitters, attempt=st.integers(1, 8))
def test_a_failure_backs_off_with_full_jitter(jitter: float, attempt: int) -> None:
    pace = pace_of(jitter=lambda: jitter)
    wait = pace.failed(pace.started(), BROKEN, attempt)
    assert wait == pytest.approx(jitter * min(8.0, 0.5 * 2 ** (attempt - 1)))


def test_a_request_has_its_retries_and_no_more() -> None:
    pace = pace_of(retries=3)
    waits = [pace.failed(pace.started(), BROKEN, attempt) for attempt in (1, 2, 3, 4)]
    assert [wait is None for wait in waits] == [False, False, False, True]
    assert pace_of(retries=0).failed(0, BROKEN, 1) is None


def test_overloads_are_waited_out_while_anything_is_answered() -> None:
    clock = Clock()
    pace = pace_of(clock, retries=0, patience=100)
    for _ in range(50):
        assert pace.failed(pace.started(), BUSY, 0) is not None
        clock.now += 90
        pace.succeeded(pace.started())
    assert pace.failed(pace.started(), BUSY, 0) is not None
    clock.now += 99
    assert pace.failed(pace.started(), BUSY, 0) is not None
    assert not pace.hopeless
    clock.now += 1
    assert pace.failed(pace.started(), BUSY, 0) is None
    assert pace.hopeless
    pace.succeeded(pace.started())
    assert not pace.hopeless


def test_an_answer_ends_the_doubling_of_the_waits() -> None:
    pace = pace_of()
    waits = []
    for _ in range(3):
        waits.append(pace.failed(pace.started(), BUSY, 0))
        pace.succeeded(pace.started())
    assert waits == [0.375, 0.375, 0.375]
    assert pace.delay() == 0


def test_time_in_which_nothing_failed_is_no_time_without_an_answer() -> None:
    clock = Clock()
    pace = pace_of(clock, patience=100)
    pace.succeeded(pace.started())
    clock.now += 10_000
    assert pace.failed(pace.started(), BUSY, 0) is not None


def test_an_endpoint_that_names_too_short_a_time_is_trusted_less_and_less() -> None:
    pace = pace_of()
    error = RetryableError("wait", overloaded=True, retry_after=0.001)
    waits = [pace.failed(pace.started(), error, 0) or 0 for _ in range(12)]
    assert waits[0] < 0.02
    assert waits == sorted(waits)
    assert waits[-1] > 4


def test_twenty_requests_given_up_in_a_row_are_hopeless() -> None:
    pace = pace_of(retries=0)
    for given_up in range(20):
        assert not pace.hopeless, given_up
        assert pace.failed(pace.started(), BROKEN, 1) is None
    assert pace.hopeless
    assert pace.failed(pace.started(), BUSY, 0) is None
    pace.succeeded(pace.started())
    assert not pace.hopeless
    assert pace.failed(pace.started(), BUSY, 0) is not None


def test_an_answer_between_them_makes_a_new_row() -> None:
    pace = pace_of(retries=0)
    for _ in range(5):
        for _ in range(19):
            pace.failed(pace.started(), BROKEN, 1)
        pace.succeeded(pace.started())
    assert not pace.hopeless


@dataclass
class Asking:
    """Asks a number of requests as an engine does, against an endpoint that is a function."""

    pace: Pace
    clock: Clock
    reply: Callable[[int], RetryableError | None]
    latency: float
    answered: int = 0
    given_up: int = 0
    attempts: int = 0
    peak: int = 0
    _order: Any = field(default_factory=itertools.count)

    def run(self, requests: int) -> None:
        """All requests, to their ends; time passes from one event to the next."""
        ready = list(range(requests))
        failures = dict.fromkeys(ready, 0)
        events: list[tuple[float, int, int, int | None]] = []
        in_flight = 0
        while ready or events:
            while ready and in_flight < self.pace.limit and not self.pace.delay():
                in_flight += 1
                self.peak = max(self.peak, in_flight)
                at = self.clock.now + self.latency
                request, ticket = ready.pop(0), self.pace.started()
                heapq.heappush(events, (at, next(self._order), request, ticket))
            delay = self.pace.delay() if ready and in_flight < self.pace.limit else math.inf
            if not events or self.clock.now + delay < events[0][0]:
                assert delay < math.inf, "nothing may begin, and nothing is under way"
                self.clock.now += delay
                continue
            at, _, request, done = heapq.heappop(events)
            self.clock.now = max(self.clock.now, at)
            if done is None:
                ready.append(request)
                continue
            in_flight -= 1
            wait = self._end(request, done, failures)
            if wait is not None:
                heapq.heappush(events, (self.clock.now + wait, next(self._order), request, None))

    def _end(self, request: int, ticket: int, failures: dict[int, int]) -> float | None:
        self.attempts += 1
        assert self.attempts < 100_000, "it goes on for ever"
        error = self.reply(self.attempts)
        if error is None:
            self.answered += 1
            self.pace.succeeded(ticket)
            return None
        failures[request] += not error.overloaded
        wait = self.pace.failed(ticket, error, failures[request])
        self.given_up += wait is None
        return wait


@given(
    concurrency=st.integers(1, 8),
    retries=st.integers(0, 8),
    patience=st.floats(0, 60),
    jitter=jitters,
    latency=st.just(0.0) | st.floats(0, 30),
    replies=st.lists(errors, min_size=1, max_size=5),
)
@example(8, 8, 60.0, 0.0, 0.0, [RetryableError("no", overloaded=True, retry_after=0.0)])
@example(8, 8, 60.0, 0.0, 0.0, [BUSY, BROKEN])
def test_every_request_ends_when_nothing_is_ever_answered(
    concurrency: int,
    retries: int,
    patience: float,
    jitter: float,
    latency: float,
    replies: list[RetryableError],
) -> None:
    clock = Clock()
    settings = PaceSettings(concurrency, retries, patience=patience)
    pace = Pace(settings, clock, lambda: jitter)
    asking = Asking(pace, clock, lambda n: replies[n % len(replies)], latency)
    asking.run(5)
    assert (asking.answered, asking.given_up) == (0, 5)


@given(
    concurrency=st.integers(1, 16),
    storm=st.lists(st.booleans(), max_size=11),
    jitter=jitters,
)
@example(concurrency=1, storm=[True] * 11, jitter=0.999)
@example(concurrency=16, storm=[True] * 11, jitter=0.0)
def test_a_storm_of_overloads_loses_no_request(
    concurrency: int, storm: list[bool], jitter: float
) -> None:
    clock = Clock()
    pace = pace_of(clock, lambda: jitter, concurrency=concurrency, retries=0)
    is_busy = [*storm, False]  # over and over: there is always an answer within the patience
    asking = Asking(pace, clock, lambda n: BUSY if is_busy[n % len(is_busy)] else None, 0.3)
    asking.run(100)
    assert (asking.answered, asking.given_up) == (100, 0)
    assert asking.peak <= concurrency


def test_an_outage_shorter_than_the_patience_loses_no_request() -> None:
    clock = Clock()
    end = clock.now + 500
    pace = pace_of(clock, concurrency=16)
    asking = Asking(pace, clock, lambda _: BUSY if clock.now < end else None, 0.1)
    asking.run(400)
    assert (asking.answered, asking.given_up) == (400, 0)
    assert asking.attempts < 600  # it was not hammered meanwhile
    assert pace.limit == 16


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": 0},
        {"retries": -1},
        {"requests_per_minute": 0},
        {"tokens_per_minute": 0},
        {"patience": -1.0},
        {"patience": math.nan},
    ],
)
def test_bounds_that_let_nothing_through_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        pace_of(**wrong)
