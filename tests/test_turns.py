"""Two phases: model and judge never hold memory at once, and nothing else changes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

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
    make_instances,
    within,
)

from pytest_mirsafety.engine.asks import EngineSettings, Trial
from pytest_mirsafety.errors import BackendError, NotRunError, RetryableError, RunError
from pytest_mirsafety.gates.challenge import Canary, CanaryClass
from pytest_mirsafety.records import (
    Completion,
    Instance,
    LoadedImage,
    Request,
    Verdict,
    VerdictKind,
)
from pytest_mirsafety.taxonomy import Reason, Status

TWO = EngineSettings(two_phases=True)


@dataclass
class Device:
    """Memory for one model. `loads` has the sides in the order in which they took it."""

    holder: str | None = None
    loads: list[str] = field(default_factory=list)

    def take(self, side: str) -> None:
        assert self.holder in (None, side), f"{side} while {self.holder} holds the memory"
        if self.holder is None:
            self.holder = side
            self.loads.append(side)

    def give_back(self, side: str) -> None:
        if self.holder == side:
            self.holder = None


@dataclass
class LocalBackend(ScriptedBackend):
    device: Device = field(default_factory=Device)
    free_error: BaseException | None = None

    async def complete(
        self, request: Request, images: Sequence[LoadedImage], instance_id: str
    ) -> Completion:
        self.device.take("model")
        given = await super().complete(request, images, instance_id)
        self.device.take("model")  # still
        return given

    async def free(self) -> None:
        await asyncio.sleep(0)
        assert self.in_flight == 0
        if self.free_error is not None:
            raise self.free_error
        self.device.give_back("model")


@dataclass
class LocalJudge(ScriptedJudge):
    device: Device = field(default_factory=Device)

    async def judge(self, question: str, answer: str) -> Verdict:
        self.device.take("judge")
        given = await super().judge(question, answer)
        self.device.take("judge")
        return given

    async def free(self) -> None:
        await asyncio.sleep(0)
        self.device.give_back("judge")


@dataclass
class OneDevice(Setting):
    """Model and judge that share a device."""

    device: Device = field(default_factory=Device)
    settings: EngineSettings = field(default_factory=lambda: TWO)

    def __post_init__(self) -> None:
        self.backend = LocalBackend(**{**vars(self.backend), "device": self.device})
        self.judge = LocalJudge(**{**vars(self.judge), "device": self.device})


def some_unsafe(question: str, answer: str) -> Verdict:
    return Verdict(VerdictKind.UNSAFE if "3" in answer else VerdictKind.SAFE, "scripted")


def test_without_two_phases_both_hold_memory() -> None:
    setting, instances = OneDevice(settings=EngineSettings()), make_instances(8)
    with setting.engine(instances) as engine:
        found = {outcome(engine, instance) for instance in instances}
    assert found & {Reason.JUDGE_ERROR, Reason.BACKEND_ERROR}


def test_all_is_asked_then_all_is_judged() -> None:
    setting, instances = OneDevice(), make_instances(30)
    with setting.engine(instances) as engine:
        first = answer(engine, instances[0])
        assert verdict(engine, instances[0], first).safe
        assert len(setting.backend.requests) == 30
        until(lambda: engine.progress().judged == 30)
    assert setting.device.loads == ["model", "judge"]


def test_canaries_come_before_the_first_verdict_and_after_the_last() -> None:
    canaries = tuple(
        Canary(kind, f"known {kind} {n}", "an answer") for kind in CanaryClass for n in range(3)
    )
    setting, instances = OneDevice(), make_instances(5)
    setting.settings = replace(TWO, trial=Trial(setting.judge, canaries))
    with setting.engine(instances) as engine:
        for instance in instances:
            verdict(engine, instance, answer(engine, instance))
        within(BOUND, engine.challenge)
        assert engine.trial is not None
        assert [one.when for one in engine.trial] == ["before", "after"]
    asked = [question for question, _ in setting.judge.pairs]
    assert sum(q.startswith("known") for q in asked[:9]) == 9
    assert sum(q.startswith("known") for q in asked[-9:]) == 9
    assert setting.device.loads == ["model", "judge"]


def test_a_stop_while_asking_loads_no_judge() -> None:
    canaries = tuple(Canary(kind, f"known {kind}", "an answer") for kind in CanaryClass)
    setting, instances = OneDevice(ScriptedBackend(held=True, unheld=2)), make_instances(9)
    setting.settings = replace(TWO, trial=Trial(setting.judge, canaries))
    with setting.engine(instances) as engine:
        answer(engine, instances[0])
        engine.stop()
        within(BOUND, engine.challenge)
        with pytest.raises(NotRunError):
            answer(engine, instances[8])
    assert setting.device.loads == ["model"]


def test_what_the_store_has_needs_no_model() -> None:
    setting, instances = OneDevice(), make_instances(9)
    with setting.engine(instances) as engine:
        before = [outcome(engine, instance) for instance in instances]
    again = OneDevice(store=setting.store)
    with again.engine(instances) as engine:
        assert [outcome(engine, instance) for instance in instances] == before
    assert again.device.loads == ["judge"]


def test_a_request_beyond_the_plan_changes_turns() -> None:
    setting, instances = OneDevice(), make_instances(4)
    with setting.engine(instances) as engine:
        for instance in instances:
            verdict(engine, instance, answer(engine, instance))
            own = replace(instance, prompt=f"another prompt for {instance.id}")
            assert verdict(engine, own, answer(engine, own)).safe
    assert setting.device.loads == ["model", "judge"] * 5


def test_memory_that_is_not_given_back_ends_the_run() -> None:
    setting, instances = OneDevice(), make_instances(4)
    assert isinstance(setting.backend, LocalBackend)
    setting.backend.free_error = RuntimeError("the process\ndid not end")
    with setting.engine(instances) as engine:
        given_answer = answer(engine, instances[0])
        with pytest.raises(RunError, match="the model's memory was not given back: the process"):
            verdict(engine, instances[0], given_answer)
    assert setting.device.loads == ["model"]


@dataclass(frozen=True)
class Case:
    """What may differ between runs: instances by number, and the order in which tests come."""

    order: list[int]
    broken: set[int]
    failing: set[int]
    retried: set[int]
    stored: set[int]
    skipped: set[int]
    concurrency: int

    @property
    def instances(self) -> list[Instance]:
        return make_instances(len(self.order))

    def of(self, numbers: set[int]) -> list[Instance]:
        return [instance for n, instance in enumerate(self.instances) if n in numbers]

    def reply(self) -> Callable[[Request, str], Completion | BaseException]:
        busy = {i.id for i in self.of(self.retried)}
        failing = {i.id for i in self.of(self.failing)}

        def script(request: Request, instance_id: str) -> Completion | BaseException:
            if instance_id in busy:
                busy.remove(instance_id)
                return RetryableError("busy", overloaded=True, retry_after=0.001)
            if instance_id in failing:
                return BackendError("refused")
            return completion(f"answer to: {request.prompt}")

        return script

    def setting(self, kind: type[Setting], how: EngineSettings) -> Setting:
        store = MemoryStore()
        known = self.of(self.stored)
        with Setting(store=store).engine(known) as engine:
            for instance in known:
                answer(engine, instance)
        return kind(
            ScriptedBackend(self.reply(), concurrency=self.concurrency),
            ScriptedJudge(some_unsafe, concurrency=self.concurrency),
            ScriptedImages(broken=frozenset(f"{n}-1.png" for n in self.broken)),
            store,
            how,
        )

    def run(self, setting: Setting) -> list[Status | Reason | None]:
        instances = self.instances
        with setting.engine(instances) as engine:
            engine.skip([i.id for i in self.of(self.skipped)], "decided")
            for number in self.order:
                outcome(engine, instances[number])
            return [seen(engine.outcome(i.id)) for i in instances]


NUMBERS = st.sets(st.integers(0, 11), max_size=5)
CASES = st.builds(
    Case,
    order=st.integers(1, 12).flatmap(lambda count: st.permutations(range(count))),
    broken=NUMBERS,
    failing=NUMBERS,
    retried=NUMBERS,
    stored=NUMBERS,
    skipped=NUMBERS,
    concurrency=st.integers(1, 4),
)


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_outcomes_are_those_of_one_phase(case: Case) -> None:
    setting = case.setting(OneDevice, TWO)
    assert isinstance(setting, OneDevice)
    assert case.run(setting) == case.run(case.setting(Setting, EngineSettings()))
    assert setting.device.loads in ([], ["model"], ["judge"], ["model", "judge"])


@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(0)])
def test_a_backend_that_ends_its_own_task_leaves_nobody_waiting(error: BaseException) -> None:
    setting, instances = OneDevice(), make_instances(4)
    assert isinstance(setting.backend, LocalBackend)
    setting.backend.free_error = error
    with setting.engine(instances) as engine:
        given_answer = answer(engine, instances[0])
        with pytest.raises(RunError, match="the model's memory was not given back"):
            verdict(engine, instances[0], given_answer)


@dataclass
class SlowToFree(LocalJudge):
    """Gives its memory back when it is told to stop doing so, as a server that ends in time."""

    raises: bool = True
    freeing: threading.Event = field(default_factory=threading.Event)

    async def free(self) -> None:
        self.freeing.set()
        try:
            await asyncio.sleep(BOUND)
        except asyncio.CancelledError:
            await asyncio.sleep(0.2)
            self.device.give_back("judge")
            if self.raises:
                raise


@pytest.mark.parametrize("raises", [True, False])
def test_a_stop_while_turns_change_still_tries_the_judge(raises: bool) -> None:
    canaries = tuple(Canary(kind, f"known {kind}", "an answer") for kind in CanaryClass)
    setting, instances = OneDevice(), make_instances(3)
    judge = SlowToFree(device=setting.device, raises=raises)
    setting.judge = judge
    setting.settings = replace(TWO, trial=Trial(judge, canaries))
    with setting.engine(instances) as engine:
        for instance in instances:
            verdict(engine, instance, answer(engine, instance))
        own = replace(instances[0], prompt="another prompt")
        asking = threading.Thread(target=lambda: outcome(engine, own), daemon=True)
        asking.start()
        assert judge.freeing.wait(BOUND)
        engine.stop()
        within(BOUND, engine.challenge)
        assert engine.trial is not None
        assert [one.when for one in engine.trial] == ["before", "after"]
