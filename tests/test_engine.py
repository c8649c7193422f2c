"""The engine: a plan asked and judged ahead, others on demand, and those who wait for them."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from engine_setting import (
    BOUND,
    Setting,
    answer,
    seen,
    until,
    verdict,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import (
    ScriptedBackend,
    ScriptedJudge,
    make_instance,
    make_instances,
    separate,
    within,
)

from pytest_mirsafety.engine.asks import TokenCount
from pytest_mirsafety.engine.engine import Engine, EngineSettings, Progress
from pytest_mirsafety.engine.reading import READERS
from pytest_mirsafety.errors import (
    ConfigurationError,
    RunError,
)
from pytest_mirsafety.taxonomy import Status

# Plan, demand, order


def test_nothing_is_asked_before_the_first_planned_answer() -> None:
    setting, instances = Setting(), make_instances(3)
    with setting.engine(instances) as engine:
        engine.wait(instances[0], pytest.fail, 0.01)
        own = replace(instances[0], prompt="a prompt of the test's own")
        assert answer(engine, own).text == "answer to: a prompt of the test's own"
        assert len(setting.backend.requests) == 1
        assert not engine.started
        told = TokenCount(output=3, untold=1)
        assert engine.progress() == Progress(
            3, 0, 0, 0, 0, 1, 0, 0.0, limit=4, tokens=2010, asked_tokens=told
        )
        answer(engine, instances[0])
        assert engine.started
        until(lambda: engine.progress().judged == 3)


class Loading(ScriptedBackend):
    """Says what it does while it cannot answer yet: half of a colour's control code, and more."""

    doing = "loading\x1b[31m weights\n50%"


def test_what_is_done_before_the_first_answer_is_told_and_costs_no_rate() -> None:
    backend, instances = Loading(), make_instances(3)
    with Setting(backend).engine(instances) as engine:
        answer(engine, instances[0])
        busy = engine.progress()
        assert busy.doing.isprintable()
        assert busy.doing.startswith("loading")
        until(lambda: engine.progress().elapsed < 0.01)
        backend.doing = ""
        until(lambda: engine.progress().elapsed > 0.01)
        assert engine.progress().doing == ""


def test_the_plan_is_asked_and_judged_ahead() -> None:
    setting, instances = Setting(), make_instances(30)
    with setting.engine(instances) as engine:
        answer(engine, instances[0])
        until(lambda: engine.progress().judged == 30)
        assert len(setting.backend.requests) == len(setting.judge.pairs) == 30
        for instance in instances:
            assert verdict(engine, instance, answer(engine, instance)).safe
    assert len(setting.backend.requests) == len(setting.judge.pairs) == 30


def test_a_plan_may_grow_and_names_each_instance_once() -> None:
    setting, instances = Setting(), make_instances(6)
    with setting.engine([*instances[:3], instances[0]]) as engine:
        answer(engine, instances[0])
        engine.plan(instances)
        until(lambda: engine.progress().judged == 6)
        assert engine.progress().planned == 6


def test_requests_are_sent_in_the_plans_order() -> None:
    instances = make_instances(20)
    setting = Setting(ScriptedBackend(concurrency=1))
    with setting.engine(instances) as engine:
        answer(engine, instances[0])
        until(lambda: engine.progress().judged == 20)
    sent = [int(request.prompt.split()[1]) for request in setting.backend.requests]
    # Images are read by several threads, so that neighbours may change places.
    assert all(abs(number - place) <= 2 * READERS for place, number in enumerate(sent))


def test_a_waited_for_instance_jumps_the_queues() -> None:
    setting, instances = Setting(ScriptedBackend(concurrency=1, held=True)), make_instances(100)
    with setting.engine(instances) as engine:
        first = threading.Thread(target=engine.answer, args=(instances[0],), daemon=True)
        first.start()
        until(lambda: len(setting.backend.requests) == 1)
        last = threading.Thread(target=engine.answer, args=(instances[99],), daemon=True)
        last.start()
        until(lambda: "99-2.png" in setting.images.filled)
        setting.backend.held = False
        last.join(BOUND)
        first.join(BOUND)
        assert not last.is_alive()
    sent = [request.prompt for request in setting.backend.requests]
    assert sent.index("prompt 99") <= 2


def test_a_waited_for_verdict_jumps_the_queue() -> None:
    setting, instances = Setting(judge=ScriptedJudge(concurrency=1, held=True)), make_instances(40)

    def release() -> None:
        setting.judge.held = False

    with setting.engine(instances) as engine:
        answer(engine, instances[0])
        until(lambda: engine.progress().answered == 40)
        within(BOUND, lambda: engine.wait(instances[39], release, 0.01))
    asked = [question for question, _ in setting.judge.pairs]
    # Behind the one being judged, and the one that was waited for before.
    assert asked.index("question 39") <= 2


@given(concurrency=st.integers(1, 6), count=st.integers(0, 25))
@settings(max_examples=15)
def test_no_more_are_in_flight_than_allowed(concurrency: int, count: int) -> None:
    backend = ScriptedBackend(concurrency=concurrency, delays=lambda _: 0.001)
    instances = make_instances(count)
    with Setting(backend).engine(instances) as engine:
        for instance in instances:
            answer(engine, instance)
    assert backend.peak <= concurrency


def test_as_many_are_in_flight_as_allowed() -> None:
    setting, instances = (
        Setting(ScriptedBackend(concurrency=7, held=True, unheld=1)),
        make_instances(30),
    )
    with setting.engine(instances) as engine:
        thread = threading.Thread(target=engine.answer, args=(instances[29],), daemon=True)
        thread.start()
        until(lambda: setting.backend.in_flight == 7)
        assert engine.progress().in_flight == 7
        setting.backend.held = False
        thread.join(BOUND)
        assert not thread.is_alive()


@pytest.mark.parametrize("broken", ["backend", "judge"])
def test_a_concurrency_below_one_is_refused(broken: str) -> None:
    setting = Setting()
    getattr(setting, broken).concurrency = 0
    with pytest.raises(ConfigurationError, match=f"the {broken}'s concurrency is below 1"):
        Engine(setting.backend, setting.judge, setting.images, None, separate, EngineSettings())


# Waiting


def test_waiting_ticks_until_answer_and_verdict_are_there() -> None:
    setting = Setting(ScriptedBackend(held=True), ScriptedJudge(held=True))
    instances = make_instances(2)
    ticks = []

    def tick() -> None:
        ticks.append(engine.progress())
        if len(ticks) == 3:
            setting.backend.held = False
        if len(ticks) > 3 and ticks[-1].answered == 2:
            setting.judge.held = False

    with setting.engine(instances) as engine:
        starter = threading.Thread(target=engine.answer, args=(instances[0],), daemon=True)
        starter.start()
        until(lambda: engine.started)
        within(BOUND, lambda: engine.wait(instances[1], tick, 0.01))
        starter.join(BOUND)
        assert seen(engine.outcome(instances[1].id)) is Status.SAFE
        within(BOUND, lambda: engine.wait(make_instance("unknown"), pytest.fail, 0.01))
    assert len(ticks) > 3


def test_waiting_for_what_failed_or_was_stopped_raises_nothing() -> None:
    setting = Setting(ScriptedBackend(lambda *_: RunError("no key")))
    instances = make_instances(3)
    with setting.engine(instances) as engine:
        with pytest.raises(RunError):
            answer(engine, instances[0])
        within(BOUND, lambda: engine.wait(instances[1], lambda: None, 0.01))


def test_progress_tells_rate_and_time_left() -> None:
    progress = Progress(
        planned=100,
        answered=50,
        from_store=10,
        judged=45,
        unscored=3,
        asked=44,
        in_flight=4,
        elapsed=20.0,
    )
    assert progress.rate == 2.0
    assert progress.remaining == 26.0
    assert replace(progress, answered=10).rate is None
    assert replace(progress, elapsed=0.0).remaining is None
