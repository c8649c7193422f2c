"""The end of an engine: stopped at once, by whomever, with nothing lost and nothing left."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from engine_setting import (
    BOUND,
    Setting,
    SlowStore,
    answer,
    environment,
    seen,
    until,
    verdict,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import (
    MemoryStore,
    Reply,
    ScriptedBackend,
    ScriptedImages,
    ScriptedJudge,
    completion,
    make_instance,
    make_instances,
    separate,
    within,
)

from pytest_mirsafety.engine.engine import Engine, EngineSettings
from pytest_mirsafety.errors import (
    BackendError,
    BlankError,
    NotRunError,
    RunError,
    UnscoredError,
)
from pytest_mirsafety.records import (
    Completion,
    Instance,
    Request,
    Response,
    Verdict,
)
from pytest_mirsafety.taxonomy import Reason, Status

# Stopping


@given(
    count=st.integers(1, 15),
    before=st.integers(0, 15),
    delay=st.sampled_from([0.0, 0.0005, 0.002]),
    stored=st.booleans(),
)
@settings(max_examples=50)
def test_a_stop_at_any_moment_leaves_everything_accounted_for(
    count: int, before: int, delay: float, stored: bool
) -> None:
    store = MemoryStore() if stored else None
    backend = ScriptedBackend(concurrency=3, delays=lambda _: delay)
    setting, instances = Setting(backend, store=store), make_instances(count)
    results: list[Response | UnscoredError] = []

    def run(engine: Engine) -> None:
        for instance in instances:
            try:
                results.append(engine.answer(instance))
            except UnscoredError as error:
                results.append(error)

    with setting.engine(instances) as engine:
        thread = threading.Thread(target=run, args=(engine,), daemon=True)
        thread.start()
        until(lambda: len(results) >= min(before, count))
        engine.stop()
        engine.stop()
        thread.join(BOUND)
        assert not thread.is_alive()
        outcomes = [seen(engine.outcome(instance.id)) for instance in instances]
    assert len(results) == count
    assert set(outcomes) <= {Status.SAFE, Reason.NOT_RUN}
    for result in results:
        if isinstance(result, UnscoredError):
            assert result.reason is Reason.NOT_RUN
        elif store is not None:
            assert store.answers[result.request_key] == result.completion
    if store is not None:  # nothing answered is lost, nobody waits: at most `in flight` are gone
        assert len(store.answers) >= len(backend.requests) - backend.concurrency


def test_nothing_is_asked_or_judged_after_a_stop() -> None:
    setting, instances = Setting(), make_instances(5)
    with setting.engine(instances) as engine:
        response = answer(engine, instances[0])
        until(lambda: engine.progress().judged == 5)
        engine.stop()
        asked, judged = len(setting.backend.requests), len(setting.judge.pairs)
        assert answer(engine, instances[0]) == response
        assert verdict(engine, instances[0], response).safe
        with pytest.raises(NotRunError, match="before this instance was answered"):
            answer(engine, make_instance("late"))
        with pytest.raises(NotRunError, match="before this instance was judged"):
            verdict(engine, instances[0], replace(response, answer="another"))
        with pytest.raises(BlankError):
            verdict(engine, instances[0], replace(response, answer=""))
    assert (len(setting.backend.requests), len(setting.judge.pairs)) == (asked, judged)


def test_a_stop_before_the_start_starts_nothing() -> None:
    setting, instances = Setting(), make_instances(2)
    with setting.engine(instances) as engine:
        engine.stop()
        with pytest.raises(NotRunError):
            answer(engine, instances[0])
        assert not engine.started
    assert setting.backend.requests == []


def test_answers_that_are_being_stored_when_stopped_are_kept() -> None:
    """The one that is being written, and those in line behind it."""
    store, backend = SlowStore(), ScriptedBackend(concurrency=3)
    setting, instances = Setting(backend, store=store), make_instances(3)
    with setting.engine(instances) as engine:

        def stop() -> None:
            assert store.writing.wait(BOUND)
            until(lambda: len(backend.requests) == 3 and engine.progress().in_flight == 0)
            engine.stop()

        threading.Thread(target=stop, daemon=True).start()
        with pytest.raises(NotRunError):
            answer(engine, instances[0])
        assert not store.answers
        closer = threading.Thread(target=engine.close, daemon=True)
        closer.start()
        until(lambda: backend.closed == 1)  # the asks are cancelled by now
        store.released.set()
        closer.join(BOUND)
    assert len(store.answers) == 3


def test_a_stop_cancels_what_is_in_flight() -> None:
    setting, instances = Setting(ScriptedBackend(held=True, unheld=1)), make_instances(9)
    with setting.engine(instances) as engine:

        def stop() -> None:
            until(lambda: setting.backend.in_flight == setting.backend.concurrency)
            engine.stop()

        threading.Thread(target=stop, daemon=True).start()
        with pytest.raises(NotRunError):
            answer(engine, instances[8])
        until(lambda: setting.backend.in_flight == 0)
    assert len(setting.backend.requests) == setting.backend.concurrency + 1


def test_a_stop_frees_who_waits_though_the_loop_is_blocked() -> None:
    blocking, instance = threading.Event(), make_instance("a")

    def block(request: Request, instance_id: str) -> Reply:
        blocking.set()
        time.sleep(0.5)  # on the loop's thread, as no backend should
        return completion()

    with Setting(ScriptedBackend(block)).engine([instance]) as engine:
        ended = []

        def run() -> None:
            with pytest.raises(NotRunError):
                engine.answer(instance)
            ended.append(engine.progress().in_flight)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        until(blocking.is_set)
        engine.stop()
        thread.join(BOUND)
    assert ended == [1]  # it was still in flight: the wait did not last until the loop was free


def collect(engine: Engine, instances: Sequence[Instance]) -> list[Verdict]:
    return [verdict(engine, instance, answer(engine, instance)) for instance in instances]


@pytest.mark.parametrize("where", ["backend", "judge", "images", "store"])
def test_an_error_that_concerns_the_run_ends_it(where: str) -> None:
    setting, instances = Setting(), make_instances(200)
    error = RunError("no key in OPENAI_API_KEY")
    if where == "backend":
        setting.backend.script = lambda *_: error
    elif where == "judge":
        setting.judge.script = lambda *_: error
    elif where == "images":
        setting.images = ScriptedImages(error=error)
    else:
        setting.store = MemoryStore(put_error=error)
    with setting.engine(instances) as engine:
        for _ in range(2):
            with pytest.raises(RunError, match="no key in"):
                collect(engine, instances)
        assert seen(engine.outcome(instances[-1].id)) is Reason.NOT_RUN
    assert len(setting.backend.requests) < 200
    if where == "store":
        assert isinstance(setting.store, MemoryStore)
        assert not setting.store.answers


@pytest.mark.parametrize("error", [ZeroDivisionError("bug"), SystemExit(3)])
def test_a_bug_of_our_own_reaches_the_caller(error: BaseException) -> None:
    with Setting(images=ScriptedImages(error=error)).engine(make_instances(3)) as engine:
        with pytest.raises(type(error)) as raised:
            answer(engine, make_instance("0"))
        assert str(raised.value) == str(error)
        with pytest.raises(type(error)):
            answer(engine, make_instance("1"))


def test_whatever_ends_the_loop_reaches_who_waits() -> None:
    setting, instance = Setting(ScriptedBackend(held=True)), make_instance("a")
    with setting.engine([instance]) as engine:

        def end() -> None:
            until(lambda: setting.backend.in_flight == 1)
            engine._call(sys.exit, 3)

        threading.Thread(target=end, daemon=True).start()
        with pytest.raises(SystemExit):
            answer(engine, instance)
    assert setting.backend.closed == 1


def test_a_bug_in_the_separation_reaches_the_caller() -> None:
    def wrong(completed: Completion) -> tuple[str, str | None, bool]:
        raise ZeroDivisionError

    setting = Setting()
    engine = Engine(setting.backend, setting.judge, setting.images, None, wrong, EngineSettings())
    with pytest.raises(ZeroDivisionError):
        answer(engine, make_instance("a"))
    within(BOUND, engine.close)


def meddle(request: Request, instance_id: str) -> Reply:
    """Cancel every task of the loop, the engine's own too."""
    for task in asyncio.all_tasks():
        task.cancel()
    return completion()


def test_a_backend_that_cancels_everything_hangs_nobody() -> None:
    setting = Setting(ScriptedBackend(meddle))
    with setting.engine(make_instances(5)) as engine:
        for instance in make_instances(5):
            with pytest.raises((BackendError, RuntimeError)):
                answer(engine, instance)


# Interrupts and closing


@pytest.fixture
def main_thread() -> int:
    assert threading.current_thread() is threading.main_thread()
    return threading.get_ident()


def test_control_c_interrupts_a_wait(main_thread: int) -> None:
    backend, instance = ScriptedBackend(held=True), make_instance("a")
    with Setting(backend).engine([instance]) as engine:

        def interrupt() -> None:
            until(lambda: backend.in_flight == 1)
            signal.pthread_kill(main_thread, signal.SIGINT)
            time.sleep(BOUND)
            engine.stop()  # the wait was not interruptible: let the test fail, not hang

        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            engine.answer(instance)
        engine.stop()
        with pytest.raises(NotRunError):
            engine.answer(instance)


def test_a_signal_handler_may_stop_the_engine(main_thread: int) -> None:
    backend, instance = ScriptedBackend(held=True), make_instance("a")
    with Setting(backend).engine([instance]) as engine:
        before = signal.signal(signal.SIGUSR1, lambda *_: engine.stop())
        try:

            def interrupt() -> None:
                until(lambda: backend.in_flight == 1)
                signal.pthread_kill(main_thread, signal.SIGUSR1)

            threading.Thread(target=interrupt, daemon=True).start()
            with pytest.raises(NotRunError):
                engine.answer(instance)
        finally:
            signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("started", [True, False])
def test_closing_closes_the_adapters_once_and_ends_the_threads(started: bool) -> None:
    setting, instances = Setting(), make_instances(3)
    before = set(threading.enumerate())
    with setting.engine(instances) as engine:
        if started:
            answer(engine, instances[0])
        within(BOUND, engine.close)
        within(BOUND, engine.close)
        assert not {t.name for t in set(threading.enumerate()) - before if "mirsafety" in t.name}
        with pytest.raises(NotRunError):
            answer(engine, make_instance("late"))
    assert (setting.backend.closed, setting.judge.closed) == (1, 1)


class Unclosing(ScriptedBackend):
    """Cannot be closed."""

    async def aclose(self) -> None:
        raise OSError("the pipe is broken")


class Endless(ScriptedJudge):
    """Never ends closing."""

    async def aclose(self) -> None:
        await asyncio.sleep(3600)


def test_what_does_not_close_is_named_and_holds_nothing_up() -> None:
    setting = Setting(Unclosing(), Endless(), settings=EngineSettings(patience=0.05))
    engine = Engine(
        setting.backend, setting.judge, setting.images, None, separate, setting.settings
    )
    with pytest.raises(RunError) as raised:
        within(BOUND, engine.close)
    assert str(raised.value) == (
        "the backend did not close: OSError: the pipe is broken; "
        "the judge did not close: TimeoutError"
    )
    within(BOUND, engine.close)


CLEAN = """
import logging
from scripted import *
from pytest_mirsafety.engine.engine import Engine, EngineSettings
logging.getLogger("asyncio").setLevel(logging.ERROR)  # on a busy machine it calls callbacks slow
backend, instances = ScriptedBackend(), make_instances(30)
for stop_early in (False, True):
    engine = Engine(backend, ScriptedJudge(), ScriptedImages(), MemoryStore(), separate,
                    EngineSettings())
    engine.plan(instances)
    engine.answer(instances[0])
    if not stop_early:
        for instance in instances:
            engine.verdict(instance, engine.answer(instance))
    engine.close()
print("done")
"""


def test_an_engine_leaves_no_warning_behind() -> None:
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", CLEAN],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(),
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("done\n", "", 0)
