"""Skipping: what nobody needs any more is not asked and not judged, and is accounted for."""

from __future__ import annotations

import threading

import pytest
from engine_setting import BOUND, Setting, answer, outcome, seen, until, verdict
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import (
    MemoryStore,
    ScriptedBackend,
    ScriptedImages,
    ScriptedJudge,
    completion,
    make_instance,
    make_instances,
)

from pytest_mirsafety.engine.engine import Engine
from pytest_mirsafety.errors import NotRunError
from pytest_mirsafety.records import ImageRef, LoadedImage
from pytest_mirsafety.taxonomy import Reason, Status

WHY = "every gate that it is in was decided"


def done(engine: Engine, count: int) -> None:
    until(lambda: engine.progress().judged + engine.progress().unscored == count)


@given(
    count=st.integers(1, 25),
    skipped=st.lists(st.sets(st.integers(0, 24)), max_size=3),
    answered=st.integers(0, 10),
    same=st.booleans(),
    stored=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_a_skip_at_any_moment_leaves_everything_accounted_for(
    count: int, skipped: list[set[int]], answered: int, same: bool, stored: bool
) -> None:
    """Each ends once, as it would have or as not-run; none that was not skipped is touched."""
    instances = [
        make_instance(str(n), prompt=f"prompt {n % 3 if same else n}", images=["same.png"])
        for n in range(count)
    ]
    backend = ScriptedBackend(concurrency=2, delays=lambda _: 0.0005)
    setting = Setting(backend, store=MemoryStore() if stored else None)
    every = {n for some in skipped for n in some if n < count}
    with setting.engine(instances) as engine:
        for number in range(min(answered, count)):
            answer(engine, instances[number])
        for some in skipped:
            engine.skip([instances[n].id for n in some if n < count] + ["unknown"], WHY)
        engine.start()
        done(engine, count)
        found = [engine.outcome(instance.id) for instance in instances]
        progress = engine.progress()
    for number, result in enumerate(found):
        assert result is not None
        if seen(result) is not Status.SAFE:
            assert number in every
            assert (result.reason, result.detail) == (Reason.NOT_RUN, WHY)
    assert progress.judged + progress.unscored == count
    assert len(backend.requests) == len({request.key for request in backend.requests})


def test_what_is_skipped_before_the_start_is_never_asked() -> None:
    setting, instances = Setting(), make_instances(10)
    with setting.engine(instances) as engine:
        engine.skip([i.id for i in instances[2:]], WHY)
        assert not engine.started
        for instance in instances[:2]:
            assert outcome(engine, instance) is Status.SAFE
        with pytest.raises(NotRunError, match=WHY):
            answer(engine, instances[9])
        done(engine, 10)
    assert len(setting.backend.requests) == 2


def test_what_is_in_flight_goes_on_and_its_answer_is_kept() -> None:
    store = MemoryStore()
    setting = Setting(ScriptedBackend(held=True, concurrency=4, unheld=1), store=store)
    instances = make_instances(40)
    with setting.engine(instances) as engine:
        answer(engine, instances[10])  # the first of those with the longest prompt
        until(lambda: setting.backend.in_flight == 4)
        engine.skip([i.id for i in instances], WHY)
        until(lambda: engine.progress().unscored >= 35)
        setting.backend.held = False
        done(engine, 40)
        assert engine.progress().answered == 5
    assert len(setting.backend.requests) == len(store.answers) == 5
    assert len(setting.judge.pairs) == 1


def test_who_waits_for_a_skipped_instance_is_told() -> None:
    setting, instances = Setting(ScriptedBackend(held=True)), make_instances(30)
    with setting.engine(instances) as engine:
        raised: list[str] = []

        def wait() -> None:
            with pytest.raises(NotRunError) as info:
                engine.answer(instances[20])
            raised.append(info.value.detail)

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        until(lambda: "20-2.png" in setting.images.filled)
        engine.skip([instances[20].id], WHY)
        thread.join(BOUND)
        assert raised == [WHY]


def test_an_equal_request_of_another_instance_is_still_asked() -> None:
    setting = Setting(ScriptedBackend(held=True, concurrency=1, unheld=1))
    first = make_instance("first", prompt="p" * 99)
    one, two = (make_instance(n, prompt="same", images=["same.png"]) for n in ("one", "two"))
    with setting.engine([first, one, two]) as engine:
        answer(engine, first)
        until(lambda: setting.backend.in_flight == 1)
        engine.skip([one.id], WHY)
        setting.backend.held = False
        assert outcome(engine, two) is Status.SAFE
        assert setting.backend.requests[-1].prompt == "same"


def test_judgings_that_nobody_needs_are_given_up() -> None:
    judge = ScriptedJudge(concurrency=1, held=True)
    setting, instances = Setting(judge=judge), make_instances(20)
    with setting.engine(instances) as engine:
        engine.start()
        until(lambda: engine.progress().answered == 20)
        until(lambda: len(judge.pairs) == 1)
        engine.skip([i.id for i in instances[:18]], WHY)
        until(lambda: engine.progress().unscored >= 17)
        judge.held = False
        done(engine, 20)
        assert len(judge.pairs) <= 3
        # A test that judges it all the same gets its verdict, and the gates do not.
        skipped = next(i for i in instances if seen(engine.outcome(i.id)) is Reason.NOT_RUN)
        assert verdict(engine, skipped, answer(engine, skipped)).safe
        assert seen(engine.outcome(skipped.id)) is Reason.NOT_RUN


def test_a_judging_that_another_instance_needs_goes_on() -> None:
    judge = ScriptedJudge(concurrency=1, held=True)
    setting = Setting(ScriptedBackend(lambda *_: completion("No.")), judge)
    first = make_instance("first", prompt="p" * 99)
    one, two = make_instance("one"), make_instance("two")
    object.__setattr__(two, "question", one.question)
    with setting.engine([first, one, two]) as engine:
        engine.start()
        until(lambda: engine.progress().answered == 3)
        engine.skip([one.id], WHY)
        judge.held = False
        done(engine, 3)
        assert [seen(engine.outcome(i.id)) for i in (one, two)] == [Status.SAFE] * 2
    assert len(judge.pairs) == 2


def test_skipping_the_one_that_is_tried_first_holds_nothing_up() -> None:
    setting, instances = Setting(images=SlowImages()), make_instances(11)
    with setting.engine(instances) as engine:
        engine.start()
        until(lambda: "10-1.png" in setting.images.inspected)
        engine.skip([instances[10].id], WHY)
        until(lambda: seen(engine.outcome(instances[10].id)) is Reason.NOT_RUN)
        assert isinstance(setting.images, SlowImages)
        setting.images.released.set()
        done(engine, 11)
        assert engine.progress().judged == 10


class SlowImages(ScriptedImages):
    """The images of instance 10 take until they are released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def inspect(self, ref: ImageRef) -> LoadedImage:
        result = super().inspect(ref)
        if ref.locator.startswith("10-"):
            assert self.released.wait(BOUND)
        return result


def test_a_skip_after_the_end_does_nothing() -> None:
    setting, instances = Setting(), make_instances(3)
    with setting.engine(instances) as engine:
        assert outcome(engine, instances[0]) is Status.SAFE
        done(engine, 3)
        for _ in range(2):
            engine.skip([i.id for i in instances], WHY)
        assert outcome(engine, instances[1]) is Status.SAFE
        engine.close()
        engine.skip([instances[2].id], WHY)
        assert seen(engine.outcome(instances[2].id)) is Status.SAFE
