"""Many callers of one engine, and waits that are interrupted: to each its own answer."""

from __future__ import annotations

import ctypes
import random
import threading
from collections.abc import Sequence

import pytest
from engine_setting import BOUND, Setting, answer, until, verdict
from scripted import MemoryStore, ScriptedBackend, make_instance, make_instances

from pytest_mirsafety.engine.engine import Engine
from pytest_mirsafety.errors import NotRunError
from pytest_mirsafety.records import Instance

CALLERS = 8


class Caller(threading.Thread):
    """Works through instances in an order of its own, as one of several worker processes."""

    def __init__(self, engine: Engine, instances: Sequence[Instance], seed: int) -> None:
        super().__init__(daemon=True)
        self.engine = engine
        self.instances = list(instances)
        random.Random(seed).shuffle(self.instances)
        self.wrong: list[object] = []
        self.skipped = 0

    def run(self) -> None:
        for place, instance in enumerate(self.instances):
            try:
                if place % 3 == 0:
                    self.engine.plan([instance])
                if place % 2 == 0:
                    self.engine.wait(instance, lambda: None, 0.01)
                response = self.engine.answer(instance)
                if response.text != f"answer to: {instance.prompt}":
                    self.wrong.append((instance.id, response))
                if not self.engine.verdict(instance, response).safe:
                    self.wrong.append(instance.id)
            except NotRunError:
                self.skipped += 1
            except BaseException as error:  # noqa: BLE001 - the test's thread has to see it
                self.wrong.append(error)


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("skips", [0, 20])
def test_many_callers_share_one_engine(stored: bool, skips: int) -> None:
    instances = make_instances(160)
    backend = ScriptedBackend(delays=lambda _: 0.0005)
    setting = Setting(backend, store=MemoryStore() if stored else None)
    skipped = instances[len(instances) - skips :]
    with setting.engine(instances[:80]) as engine:
        # Half of the instances are everybody's; a part is planned, the rest is on demand or later.
        callers = [
            Caller(engine, [*instances[:80], *instances[80 + n : 160 : 4]], n)
            for n in range(CALLERS)
        ]
        for caller in callers:
            caller.start()
        engine.skip([i.id for i in skipped], "nobody needs it")
        for caller in callers:
            caller.join(BOUND)
            assert not caller.is_alive()
    assert [caller.wrong for caller in callers] == [[]] * CALLERS
    keys = [request.key for request in backend.requests]
    assert len(keys) == len(set(keys))
    assert len(keys) >= 160 - skips
    assert len(setting.judge.pairs) == len(set(setting.judge.pairs))


class InterruptionError(Exception):
    """What pytest-timeout raises, or a user's own signal handler."""


def interrupt(thread: threading.Thread) -> None:
    identity = ctypes.c_ulong(thread.ident or 0)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, ctypes.py_object(InterruptionError))


def test_an_interrupted_wait_gives_nobody_anothers_answer() -> None:
    """Whatever moment it is interrupted at, what is asked next is what is answered."""
    instances = make_instances(60)
    backend = ScriptedBackend(delays=lambda _: 0.002)
    wrong: list[object] = []
    interrupted: list[str] = []

    def work(engine: Engine) -> None:
        for instance in instances:
            try:
                response = engine.answer(instance)
                engine.verdict(instance, response)
            except InterruptionError:
                interrupted.append(instance.id)
                continue
            if response.text != f"answer to: {instance.prompt}":
                wrong.append((instance.id, response))

    with Setting(backend).engine(instances[::2]) as engine:
        engine.start()
        worker = threading.Thread(target=work, args=(engine,), daemon=True)
        worker.start()
        generator = random.Random(7)
        while worker.is_alive() and len(interrupted) < 25:
            interrupt(worker)
            worker.join(generator.uniform(0, 0.006))
        worker.join(BOUND)
        assert not worker.is_alive()
        assert not wrong
        for instance in instances:
            response = answer(engine, instance)
            assert response.text == f"answer to: {instance.prompt}"
            assert verdict(engine, instance, response).safe
    keys = [request.key for request in backend.requests]
    assert len(keys) == len(set(keys)) == len(instances)
    assert interrupted


def test_a_wait_that_was_given_up_leaves_nobody_registered() -> None:
    backend = ScriptedBackend(held=True)
    with Setting(backend).engine() as engine:

        def work() -> None:
            with pytest.raises(InterruptionError):
                engine.answer(make_instance("a"))

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        until(lambda: backend.in_flight == 1)
        interrupt(worker)
        worker.join(BOUND)
        assert not worker.is_alive()
        assert not engine._waits._waiting
        backend.held = False
        assert answer(engine, make_instance("b")).text == "answer to: prompt b"
        assert answer(engine, make_instance("a")).text == "answer to: prompt a"
    assert len(backend.requests) == 2


def test_a_plan_whose_start_was_interrupted_is_asked_all_the_same() -> None:
    """Between the plan's handing over and the note that it was: it is handed over once more."""
    setting, instances = Setting(), make_instances(5)
    with setting.engine(instances) as engine:
        engine.start()
        engine._started = None
        for instance in instances:
            answer(engine, instance)
        until(lambda: engine.progress().judged == 5)
    assert len(setting.backend.requests) == len(setting.judge.pairs) == 5
