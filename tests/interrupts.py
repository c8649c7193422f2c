"""A signal that interrupts the main thread after a while, as Ctrl-C and pytest-timeout do."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """What the signal's handler raises, wherever the main thread is."""


@contextmanager
def interrupted(*, after: float) -> Iterator[None]:
    """Raise `Interrupted` in the main thread `after` seconds, unless the block has ended."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, after)
        yield
    finally:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)  # it may come out here, at the latest
        finally:
            signal.signal(signal.SIGALRM, before)
