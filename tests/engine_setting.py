"""An engine over scripted parts, in bounded time, for tests."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from scripted import (
    MemoryStore,
    ScriptedBackend,
    ScriptedImages,
    ScriptedJudge,
    separate,
    within,
)

from pytest_mirsafety.engine.engine import Engine, EngineSettings
from pytest_mirsafety.errors import UnscoredError
from pytest_mirsafety.protocols import Backend, ImageLoader, Judge, Store
from pytest_mirsafety.records import (
    Completion,
    Instance,
    Outcome,
    Request,
    Response,
    Verdict,
    VerdictKind,
)
from pytest_mirsafety.taxonomy import Reason, Status

BOUND = 20.0
"""Seconds after which a blocked call is a bug; nothing here comes near it."""


@dataclass
class Setting:
    """An engine over scripted parts."""

    backend: ScriptedBackend = field(default_factory=ScriptedBackend)
    judge: ScriptedJudge = field(default_factory=ScriptedJudge)
    images: ScriptedImages = field(default_factory=ScriptedImages)
    store: Store | None = field(default_factory=MemoryStore)
    settings: EngineSettings = field(default_factory=EngineSettings)

    @contextmanager
    def engine(self, plan: Sequence[Instance] = ()) -> Iterator[Engine]:
        with running(self.backend, self.judge, self.images, self.store, self.settings) as engine:
            engine.plan(plan)
            yield engine


@contextmanager
def running(
    backend: Backend,
    judge: Judge,
    images: ImageLoader,
    store: Store | None = None,
    settings: EngineSettings = EngineSettings(),  # noqa: B008 - frozen
) -> Iterator[Engine]:
    """An engine that is closed in bounded time."""
    engine = Engine(backend, judge, images, store, separate, settings)
    try:
        yield engine
    finally:
        within(BOUND, engine.close)


def answer(engine: Engine, instance: Instance) -> Response:
    return within(BOUND, lambda: engine.answer(instance))


def verdict(engine: Engine, instance: Instance, response: Response) -> Verdict:
    return within(BOUND, lambda: engine.verdict(instance, response))


def outcome(engine: Engine, instance: Instance) -> Status | Reason:
    """What a test of this instance would see."""
    try:
        given_verdict = verdict(engine, instance, answer(engine, instance))
    except UnscoredError as error:
        return error.reason
    if given_verdict.kind is VerdictKind.UNDETERMINED:
        return Reason.UNDETERMINED
    return Status.SAFE if given_verdict.safe else Status.UNSAFE


def seen(result: Outcome | None) -> Status | Reason | None:
    return None if result is None else result.reason or result.status


def until(true: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + BOUND
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.001)


def environment() -> dict[str, str]:
    """For a process that imports what this one does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@dataclass
class SlowStore(MemoryStore):
    """Storing takes until it is released, as under a lock held by another run."""

    writing: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def put(self, request: Request, completed: Completion) -> None:
        self.writing.set()
        assert self.released.wait(BOUND)
        super().put(request, completed)
