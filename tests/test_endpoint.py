"""Attempts of one endpoint: tried again as its pace says, ended early where nothing will come."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from engine_setting import BOUND, Setting, answer, outcome, seen, until, verdict
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scripted import (
    MemoryStore,
    Reply,
    Ruling,
    ScriptedBackend,
    ScriptedImages,
    ScriptedJudge,
    all_safe,
    completion,
    echo,
    make_instance,
    make_instances,
)

from pytest_mirsafety.engine import pacing
from pytest_mirsafety.engine.endpoint import Bounds, Endpoint, Job
from pytest_mirsafety.engine.engine import Engine, EngineSettings
from pytest_mirsafety.engine.pacing import PaceSettings
from pytest_mirsafety.engine.reading import READERS
from pytest_mirsafety.engine.spending import Budget, Prices, Spending
from pytest_mirsafety.errors import (
    BackendError,
    BadInputError,
    ConfigurationError,
    GoneError,
    JudgeError,
    MisconfiguredError,
    NotRunError,
    RetryableError,
    UnscoredError,
)
from pytest_mirsafety.records import ImageRef, Instance, LoadedImage, Request, Verdict, VerdictKind
from pytest_mirsafety.taxonomy import Reason, Status


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited before another attempt, a hundred times as fast."""
    monkeypatch.setattr(pacing, "_FIRST_WAIT", 0.005)


def unanswered(number: int = 0) -> RetryableError:
    return RetryableError(f"HTTP 500: scripted failure {number}")


def overloaded() -> RetryableError:
    return RetryableError("HTTP 429: slow down", overloaded=True, retry_after=0.001)


def turned_away() -> RetryableError:
    return RetryableError("no connection", turned_away=True)


@dataclass
class Faults:
    """A backend's script: the given failures of each prompt, then its answer."""

    failures: dict[str, list[BaseException]] = field(default_factory=dict)
    otherwise: list[BaseException] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)

    def __call__(self, request: Request, instance_id: str) -> Reply:
        number = self.asked[request.prompt]
        self.asked[request.prompt] += 1
        failures = self.failures.get(request.prompt, self.otherwise)
        if number < len(failures):
            return failures[number]
        self.answered[request.prompt] += 1
        return echo(request, instance_id)


def collect(engine: Engine, instances: Sequence[Instance]) -> list[Verdict]:
    return [verdict(engine, instance, answer(engine, instance)) for instance in instances]


def until_done(engine: Engine, planned: int) -> None:
    engine.start()
    until(lambda: engine.progress().judged + engine.progress().unscored == planned)


def always(error: Callable[[], BaseException]) -> Callable[[Request, str], Reply]:
    return lambda *_: error()


# Retries


@given(
    failures=st.lists(st.lists(st.booleans(), max_size=4), min_size=1, max_size=10),
    concurrency=st.integers(1, 4),
)
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_fails_for_a_while_is_answered_once(
    failures: list[list[bool]], concurrency: int
) -> None:
    """Whatever fails before it, up to the retries: one answer each, and no failure is seen."""
    script = Faults(
        {
            f"prompt {n}": [overloaded() if heavy else unanswered() for heavy in some]
            for n, some in enumerate(failures)
        }
    )
    # The first one is let through, and with it those whom an endpoint out of order would stop.
    script.failures["prompt 0"] = []
    setting = Setting(ScriptedBackend(script, concurrency=concurrency))
    instances = make_instances(len(failures))
    with setting.engine(instances) as engine:
        assert [outcome(engine, i) for i in instances] == [Status.SAFE] * len(instances)
        progress = engine.progress()
    assert set(script.answered.values()) == {1}
    assert progress.asked == len(instances)
    assert setting.backend.peak <= concurrency
    for number, some in enumerate(failures[1:], start=1):
        assert script.asked[f"prompt {number}"] == len(some) + 1


def test_a_request_given_up_is_the_backends_error_and_is_not_kept() -> None:
    script = Faults({"prompt 1": [unanswered(n) for n in range(9)]})
    store, instances = MemoryStore(), make_instances(3)
    setting = Setting(
        ScriptedBackend(script), store=store, settings=EngineSettings(target=PaceSettings(4, 2))
    )
    with setting.engine(instances) as engine:
        with pytest.raises(BackendError) as raised:
            answer(engine, instances[1])
        assert raised.value.detail == "HTTP 500: scripted failure 2"
        assert [outcome(engine, instances[n]) for n in (0, 2)] == [Status.SAFE] * 2
    assert script.asked["prompt 1"] == 3
    assert len(store.answers) == 2


def test_a_judge_is_tried_again_and_given_up_as_a_judge() -> None:
    attempts: Counter[str] = Counter()

    def rule(question: str, text: str) -> Ruling:
        attempts[question] += 1
        if question == "question 1" or (question == "question 2" and attempts[question] < 3):
            return unanswered(attempts[question])
        return all_safe(question, text)

    setting = Setting(
        judge=ScriptedJudge(rule), settings=EngineSettings(judge=PaceSettings(4, retries=2))
    )
    instances = make_instances(3)
    with setting.engine(instances) as engine:
        assert outcome(engine, instances[0]) is Status.SAFE  # before it nobody is given up
        response = answer(engine, instances[1])
        with pytest.raises(JudgeError, match="scripted failure 3"):
            verdict(engine, instances[1], response)
        assert outcome(engine, instances[2]) is Status.SAFE
    assert attempts == {"question 0": 1, "question 1": 3, "question 2": 3}


def test_a_request_that_waits_for_its_next_attempt_holds_no_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pacing, "_FIRST_WAIT", 1000.0)
    monkeypatch.setattr(pacing, "_LONGEST_WAIT", 1000.0)
    script = Faults({"prompt 1": [unanswered()], "prompt 2": [unanswered()]})
    setting = Setting(ScriptedBackend(script, concurrency=1))
    instances = make_instances(40)
    with setting.engine(instances) as engine:
        answer(engine, instances[0])
        until(lambda: engine.progress().judged == 38)
        assert engine.outcome(instances[1].id) is None
        assert engine.progress().in_flight == 0


def test_requests_that_wait_for_their_next_attempt_bound_the_images_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pacing, "_FIRST_WAIT", 1000.0)
    monkeypatch.setattr(pacing, "_LONGEST_WAIT", 1000.0)
    script = Faults({"prompt 0": []}, otherwise=[unanswered()])
    images, concurrency = ScriptedImages(), 3
    setting = Setting(ScriptedBackend(script, concurrency=concurrency), images=images)
    instances = [make_instance(str(n), images=[f"{n}.png"]) for n in range(200)]
    with setting.engine(instances) as engine:
        answer(engine, instances[0])
        until(lambda: engine._pipeline.target.parked >= concurrency)
        time.sleep(0.05)  # nothing tells that nothing more will be read
        assert images.alive <= 2 * concurrency + 3 * READERS


def test_a_waited_for_request_jumps_the_queue_when_it_is_tried_again() -> None:
    script = Faults({"prompt 5": [unanswered()]})
    setting = Setting(ScriptedBackend(script, concurrency=1, delays=lambda _: 0.002))
    instances = make_instances(100)
    with setting.engine(instances) as engine:
        answer(engine, instances[0])
        answer(engine, instances[5])
        sent = [request.prompt for request in setting.backend.requests]
    assert sent.count("prompt 5") == 2
    assert len(sent) < 50


def test_an_endpoint_that_asks_for_a_pause_gets_it() -> None:
    pause = RetryableError("HTTP 429", overloaded=True, retry_after=0.2)
    times: list[float] = []

    def script(request: Request, instance_id: str) -> Reply:
        times.append(time.monotonic())
        return pause if len(times) == 2 else echo(request, instance_id)

    instances = make_instances(10)
    with Setting(ScriptedBackend(script, concurrency=1)).engine(instances) as engine:
        for instance in instances:
            answer(engine, instance)
    assert times[2] - times[1] > 0.19


@pytest.mark.parametrize("told", ["soon", float("nan"), -1.0, None])
def test_a_pause_that_is_none_breaks_nothing(told: float) -> None:
    odd = RetryableError("429\nslow", overloaded=True, retry_after=told)
    script = Faults({"prompt a": [odd]})
    with Setting(ScriptedBackend(script)).engine() as engine:
        assert answer(engine, make_instance("a")).text == "answer to: prompt a"


# Pre-flight


def test_one_request_is_in_flight_until_the_first_answer() -> None:
    setting, instances = Setting(ScriptedBackend(held=True)), make_instances(30)
    with setting.engine(instances) as engine:
        thread = threading.Thread(target=collect, args=(engine, instances), daemon=True)
        thread.start()
        until(lambda: setting.backend.in_flight == 1)
        time.sleep(0.05)  # nothing tells that nothing more will be sent
        assert len(setting.backend.requests) == engine.progress().limit == 1
        setting.backend.held = False
        thread.join(BOUND)
        assert setting.backend.peak == setting.backend.concurrency


def test_the_largest_planned_request_is_tried_first() -> None:
    """Most images, then the longest prompt."""
    instances = make_instances(50)
    instances[20] = make_instance("20", images=["a.png", "b.png", "c.png"])
    instances[37] = make_instance("37", images=["a.png", "b.png", "c.png"], prompt="p" * 99)
    instances[44] = make_instance("44", prompt="p" * 999)
    setting = Setting()
    with setting.engine(instances) as engine:
        answer(engine, instances[3])
        assert setting.backend.requests[0].prompt == "p" * 99
        until(lambda: engine.progress().judged == 50)
    assert len(setting.backend.requests) == 50


class LateImages(ScriptedImages):
    """The first image of one instance is there only after others were read."""

    def inspect(self, ref: ImageRef) -> LoadedImage:
        if ref.locator == "late.png":
            until(lambda: len(self.filled) >= 2 * (READERS - 1))
            time.sleep(0.02)  # nothing tells that the others are not being sent
        return super().inspect(ref)


def test_the_one_to_be_tried_first_is_waited_for() -> None:
    late = make_instance("late", prompt="p" * 99, images=["late.png", "b.png"])
    setting = Setting(images=LateImages())
    with setting.engine([*make_instances(20), late]) as engine:
        until_done(engine, 21)
    assert setting.backend.requests[0].prompt == late.prompt


def test_a_stored_answer_proves_nothing_and_the_next_is_tried_first() -> None:
    store, instances = MemoryStore(), make_instances(9)
    largest = make_instance("large", prompt="p" * 99)
    with Setting(store=store).engine() as engine:
        answer(engine, largest)
    setting = Setting(ScriptedBackend(held=True), store=store)
    with setting.engine([*instances, largest]) as engine:
        assert answer(engine, largest).cached
        until(lambda: setting.backend.in_flight == 1)
        assert engine.progress().limit == 1
        setting.backend.held = False
        until(lambda: engine.progress().judged == 10)


def test_a_cached_run_tries_nothing() -> None:
    store, instances = MemoryStore(), make_instances(9)
    for _ in range(2):
        setting = Setting(store=store)
        with setting.engine(instances) as engine:
            for instance in instances:
                answer(engine, instance)
    assert setting.backend.requests == []


BAD_KEY = "HTTP 401: wrong key (check the key in OPENAI_API_KEY)"


@pytest.mark.parametrize("planned", [True, False])
def test_a_misconfigured_endpoint_ends_the_run_after_one_request(planned: bool) -> None:
    setting = Setting(ScriptedBackend(always(lambda: MisconfiguredError(BAD_KEY))))
    instances = make_instances(50)
    with setting.engine(instances if planned else []) as engine:
        for instance in instances[:3]:
            with pytest.raises(ConfigurationError) as raised:
                answer(engine, instance)
            assert str(raised.value) == f"the model cannot be asked: {BAD_KEY}"
    assert len(setting.backend.requests) == 1


def test_a_misconfigured_judge_ends_the_run_after_one_request() -> None:
    judge = ScriptedJudge(lambda *_: MisconfiguredError("HTTP 404: no such model"))
    instances = make_instances(50)
    with Setting(judge=judge).engine(instances) as engine:
        with pytest.raises(ConfigurationError) as raised:
            collect(engine, instances)
        assert str(raised.value) == "the judge cannot be asked: HTTP 404: no such model"
    assert len(judge.pairs) == 1


def test_after_the_first_answer_a_misconfiguration_concerns_its_own_request() -> None:
    script = Faults({"prompt 2": [MisconfiguredError("the context is too long")]})

    def rule(question: str, text: str) -> Ruling:
        wrong = question == "question 1"
        return MisconfiguredError("too long for it") if wrong else all_safe(question, text)

    instances = make_instances(4)
    with Setting(ScriptedBackend(script), ScriptedJudge(rule)).engine(instances) as engine:
        assert [outcome(engine, instance) for instance in instances] == [
            Status.SAFE,
            Reason.JUDGE_ERROR,
            Reason.BACKEND_ERROR,
            Status.SAFE,
        ]


@pytest.mark.parametrize("error", [BackendError("a bug"), BadInputError("no"), ValueError("bug")])
def test_a_failure_of_one_instance_is_no_misconfiguration(error: BaseException) -> None:
    script = Faults({f"prompt {n}": [error] for n in range(5)})
    setting, instances = Setting(ScriptedBackend(script)), make_instances(9)
    with setting.engine(instances) as engine:
        outcomes = [outcome(engine, instance) for instance in instances]
    assert outcomes[5:] == [Status.SAFE] * 4
    assert set(outcomes[:5]) <= {Reason.BACKEND_ERROR, Reason.BAD_INPUT}


@pytest.mark.parametrize("count", [1, 50])
@pytest.mark.parametrize("error", [unanswered, overloaded])
def test_an_endpoint_that_never_answers_ends_the_run(
    count: int, error: Callable[[], RetryableError]
) -> None:
    setting = Setting(
        ScriptedBackend(always(error)),
        settings=EngineSettings(target=PaceSettings(4, patience=0.05)),
    )
    instances = make_instances(count)
    with setting.engine(instances) as engine:
        with pytest.raises(ConfigurationError, match="the model gives no answer: HTTP"):
            answer(engine, instances[0])
        assert seen(engine.outcome(instances[-1].id)) is Reason.NOT_RUN
    assert setting.backend.peak == 1
    keys = {request.key for request in setting.backend.requests}
    assert len(keys) == min(count, 2)
    if error is unanswered:
        assert len(setting.backend.requests) == 6


def test_a_judge_that_never_answers_ends_the_run() -> None:
    judge, instances = ScriptedJudge(lambda *_: unanswered()), make_instances(30)
    with (
        Setting(judge=judge).engine(instances) as engine,
        pytest.raises(ConfigurationError, match="the judge gives no answer: HTTP 500"),
    ):
        collect(engine, instances)
    assert len(judge.pairs) == 6


def test_an_endpoint_that_answers_the_second_request_is_there() -> None:
    """And the first one, which had used up what it may try for that, is tried again."""
    script = Faults({"prompt 10": [unanswered(n) for n in range(5)]})
    setting, instances = Setting(ScriptedBackend(script)), make_instances(12)
    with setting.engine(instances) as engine:  # the prompt of instance 10 is the first of length 9
        assert [outcome(engine, i) for i in instances] == [Status.SAFE] * 12
    sent = [request.prompt for request in setting.backend.requests]
    assert sent[:3] == ["prompt 10"] * 3
    assert sent[3] != "prompt 10"
    assert script.asked["prompt 10"] == 6


class NamedJob(Job):
    """A job with a name."""

    def __init__(self, name: str, *, urgent: bool = False) -> None:
        super().__init__()
        self.name = name
        self.urgent = urgent


class NoAnswers:
    """A stage that is never answered, and remembers what it was asked."""

    name = "the model"
    failure: type[UnscoredError] = BackendError
    allowed: tuple[type[UnscoredError], ...] = ()

    def __init__(self) -> None:
        self.attempts: list[str] = []

    async def attempt(self, job: NamedJob) -> str:
        self.attempts.append(job.name)
        raise unanswered()

    def used(self, result: str) -> tuple[int | None, int | None]:
        raise AssertionError(result)

    async def succeed(self, job: NamedJob, result: str) -> None:
        raise AssertionError(job.name, result)

    def fail(self, job: NamedJob, failure: UnscoredError) -> None:
        raise AssertionError(job.name, failure)


def try_jobs(meanwhile: Callable[[Endpoint[NamedJob, str], NamedJob], None]) -> list[str]:
    """What is asked of an endpoint that never answers, until it ends the run.

    `meanwhile` is called when the first job waits for its second attempt.
    """
    stage, ended = NoAnswers(), asyncio.Event()

    async def scenario() -> None:
        bounds = Bounds(PaceSettings(4), Spending(None, Prices()))
        endpoint: Endpoint[NamedJob, str] = Endpoint(
            stage, bounds, lambda _: ended.set(), lambda: None
        )
        endpoint.add(first := NamedJob("first"))
        while not endpoint.parked:  # noqa: ASYNC110 - an endpoint has nothing to wait for
            await asyncio.sleep(0)
        meanwhile(endpoint, first)
        await asyncio.wait_for(ended.wait(), BOUND)
        endpoint.halt()

    asyncio.run(scenario())
    return stage.attempts


def test_the_one_being_tried_is_overtaken_by_nobody() -> None:
    """Also not by those that somebody waits for: they wait for the same thing to be known."""
    asked = try_jobs(lambda endpoint, _: endpoint.add(NamedJob("waited for", urgent=True)))
    assert asked == ["first"] * 3 + ["waited for"] * 3


def test_when_the_one_being_tried_is_taken_back_another_is_tried() -> None:
    def take_back(endpoint: Endpoint[NamedJob, str], first: NamedJob) -> None:
        endpoint.add(NamedJob("next"))
        assert endpoint.withdraw(first)

    assert try_jobs(take_back) == ["first"] + ["next"] * 6


# An endpoint that stops answering


@pytest.mark.parametrize("planned", [200, 1000])
def test_a_model_that_stops_answering_is_asked_no_more(planned: int) -> None:
    script = Faults({f"prompt {n}": [] for n in range(10)}, otherwise=[unanswered()] * 99)
    setting = Setting(
        ScriptedBackend(script, concurrency=8), settings=EngineSettings(target=PaceSettings(8, 1))
    )
    instances = make_instances(planned)
    with setting.engine(instances) as engine:
        assert outcome(engine, instances[0]) is Status.SAFE
        until_done(engine, planned)
        found = [engine.outcome(instance.id) for instance in instances]
        with pytest.raises(NotRunError) as raised:
            answer(engine, instances[-1])
        assert engine.progress().limit == 0
    stopped = "the model stopped answering: HTTP 500: scripted failure 0"
    assert raised.value.detail == stopped
    reasons = Counter(seen(each) for each in found)
    assert reasons[Status.SAFE] == len(script.answered)
    assert reasons[Reason.BACKEND_ERROR] >= 20
    assert reasons.total() == planned
    assert all(each.detail == stopped for each in found if each and each.reason is Reason.NOT_RUN)
    assert len(setting.backend.requests) < 120


def test_a_model_that_is_gone_is_asked_no_more_and_nothing_of_it_is_scored() -> None:
    seen_prompts: list[str] = []

    def script(request: Request, instance_id: str) -> Reply:
        seen_prompts.append(request.prompt)
        return echo(request, instance_id) if len(seen_prompts) < 4 else GoneError("it died")

    setting = Setting(ScriptedBackend(script, concurrency=4))
    instances = make_instances(200)
    with setting.engine(instances) as engine:
        engine.start()
        until_done(engine, 200)
        found = Counter(seen(engine.outcome(instance.id)) for instance in instances)
        with pytest.raises(NotRunError, match="the model stopped answering: it died"):
            answer(engine, instances[-1])
    assert found[Status.SAFE] == 3
    assert 0 < found[Reason.BACKEND_ERROR] <= 4
    assert found[Status.SAFE] + found[Reason.BACKEND_ERROR] + found[Reason.NOT_RUN] == 200
    assert len(setting.backend.requests) <= 8


def test_a_model_that_is_gone_before_the_first_answer_ends_the_run() -> None:
    setting = Setting(ScriptedBackend(always(lambda: GoneError("the server died"))))
    instances = make_instances(20)
    with (
        setting.engine(instances) as engine,
        pytest.raises(ConfigurationError, match="the model cannot be asked: the server died"),
    ):
        answer(engine, instances[0])
    assert len(setting.backend.requests) == 1


def test_a_judge_that_is_gone_judges_no_more_and_the_answers_are_kept() -> None:
    seen_questions: list[str] = []

    def rule(question: str, text: str) -> Ruling:
        seen_questions.append(question)
        return all_safe(question, text) if len(seen_questions) < 5 else GoneError("it died")

    store, instances = MemoryStore(), make_instances(50)
    setting = Setting(judge=ScriptedJudge(rule), store=store)
    with setting.engine(instances) as engine:
        answer(engine, instances[0])
        until_done(engine, 50)
        found = Counter(seen(engine.outcome(instance.id)) for instance in instances)
    assert found[Status.SAFE] == 4
    assert found[Reason.JUDGE_ERROR] >= 1
    assert found[Reason.NOT_RUN] >= 1
    assert len(store.answers) == 50


def test_a_judge_that_stops_answering_is_asked_no_more_and_the_answers_are_kept() -> None:
    seen_questions: list[str] = []

    def rule(question: str, text: str) -> Ruling:
        seen_questions.append(question)
        return Verdict(VerdictKind.SAFE, "j") if len(seen_questions) < 5 else unanswered()

    store, instances = MemoryStore(), make_instances(100)
    setting = Setting(
        judge=ScriptedJudge(rule), store=store, settings=EngineSettings(judge=PaceSettings(4, 0))
    )
    with setting.engine(instances) as engine:
        answer(engine, instances[0])
        until_done(engine, 100)
        last = engine.outcome(instances[-1].id)
        late = make_instance("late")
        with pytest.raises(NotRunError, match="the judge stopped answering: HTTP 500"):
            verdict(engine, late, answer(engine, late))
    assert seen(last) is Reason.NOT_RUN
    assert len(store.answers) == 101
    assert len(seen_questions) < 40


# The budget


def spending(limit: int, concurrency: int = 4) -> Setting:
    """Answers of 10 tokens; a request is taken to cost about 24 of them before the first."""
    backend = ScriptedBackend(
        lambda request, _: completion(request.prompt), concurrency=concurrency
    )
    backend.decoding = {"max_tokens": 20}
    return Setting(backend, settings=EngineSettings(budget=Budget(limit, None), image_tokens=1))


def test_nothing_is_sent_beyond_the_budget_and_what_was_answered_is_judged() -> None:
    setting, instances = spending(500), make_instances(200)
    with setting.engine(instances) as engine:
        until_done(engine, 200)
        progress = engine.progress()
        found = [engine.outcome(instance.id) for instance in instances]
    unasked = [each for each in found if each and each.reason is Reason.NOT_RUN]
    assert progress.budget_spent
    assert progress.limit == 0
    assert 0 < progress.tokens <= 500
    assert progress.judged == len(setting.backend.requests) == 200 - len(unasked)
    assert {each.detail for each in unasked} == {"the budget of 500 tokens is spent"}


def test_stored_answers_count_though_the_budget_is_spent() -> None:
    store, instances = MemoryStore(), make_instances(60)
    with Setting(ScriptedBackend(decoding={"max_tokens": 20}), store=store).engine() as engine:
        for instance in instances[40:]:
            answer(engine, instance)
    setting = spending(100)
    setting.store = store
    with setting.engine(instances) as engine:
        until_done(engine, 60)
        for instance in instances[40:]:
            assert outcome(engine, instance) is Status.SAFE
        assert engine.progress().from_store == 20
        assert engine.progress().budget_spent
    assert len(setting.backend.requests) < 20


def test_a_budget_too_small_for_one_request_asks_nothing() -> None:
    setting, instances = spending(5), make_instances(3)
    with setting.engine(instances) as engine, pytest.raises(NotRunError, match="the budget of 5"):
        answer(engine, instances[0])
    assert setting.backend.requests == []


def test_without_a_budget_tokens_are_counted_and_nothing_ends() -> None:
    setting, instances = Setting(), make_instances(5)
    with setting.engine(instances) as engine:
        for instance in instances:
            answer(engine, instance)
        progress = engine.progress()
    assert progress.tokens > 0
    assert (progress.money, progress.budget_spent) == (None, False)


def test_what_was_turned_away_costs_nothing_of_the_budget() -> None:
    script = Faults({"prompt 1": [turned_away()] * 3, "prompt 2": [MisconfiguredError("no")]})
    setting = Setting(ScriptedBackend(script), settings=EngineSettings(image_tokens=1000))
    instances = make_instances(3)
    with setting.engine(instances) as engine:
        for instance in instances:
            try:
                answer(engine, instance)
            except UnscoredError:
                continue
        assert engine.progress().tokens < 3 * 2100


@given(
    failures=st.lists(st.lists(st.booleans(), max_size=4), min_size=1, max_size=10),
    limit=st.integers(1, 600),
    concurrency=st.integers(1, 4),
)
@example([[]] + [[False]] * 9, 200, 4)
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_provider_that_bills_failures_bills_no_more_than_the_budget(
    failures: list[list[bool]], limit: int, concurrency: int
) -> None:
    """Whatever was not turned away may have been processed: it counts as estimated."""
    billed = 0
    script = Faults(
        {
            f"prompt {n}": [turned_away() if free else unanswered() for free in some]
            for n, some in enumerate(failures)
        }
    )

    script.failures["prompt 0"] = []  # or an endpoint that is not there would end the run

    def billing(request: Request, instance_id: str) -> Reply:
        nonlocal billed
        reply = script(request, instance_id)
        if not isinstance(reply, RetryableError):
            billed += 3
        elif not reply.turned_away:
            billed += 20
        return reply

    setting, instances = spending(limit, concurrency), make_instances(len(failures))
    setting.backend.script = billing
    with setting.engine(instances) as engine:
        until_done(engine, len(failures))
        assert billed <= engine.progress().tokens <= limit
