"""Requests under a defence: whom they go to, how often, and what comes out."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest
from engine_setting import Setting, answer, outcome, until, verdict
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import (
    MemoryStore,
    ScriptedBackend,
    ScriptedJudge,
    completion,
    make_instance,
    make_instances,
    within,
)

from pytest_mirsafety.defended import REFUSAL, Asked, Blocked, Decided, Passed
from pytest_mirsafety.engine.asks import ArmDefence, EngineSettings
from pytest_mirsafety.engine.pacing import PaceSettings
from pytest_mirsafety.engine.spending import Budget
from pytest_mirsafety.errors import (
    ConfigurationError,
    JudgeError,
    MisconfiguredError,
    NotRunError,
    RetryableError,
    UnscoredError,
)
from pytest_mirsafety.records import Completion, Instance, Request, Verdict, VerdictKind, arm_id
from pytest_mirsafety.taxonomy import Reason, Status

GUARDED = "guarded"
Said = Decided | BaseException


def passes(*_: object) -> Said:
    return None


@dataclass
class ScriptedDefence:
    """Decides by its scripts, and remembers what it was asked. While `held`, nothing ends."""

    first: Callable[[Asked], Said] = passes
    then: Callable[[Asked, str], Said] = passes
    identity: str = "scripted"
    concurrency: int = 4
    wants_images: bool = False
    held: bool = False
    asked: list[Asked] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    in_flight: int = 0
    peak: int = 0
    closed: int = 0

    async def before(self, asked: Asked) -> Decided:
        self.asked.append(asked)
        return await self._said(lambda: self.first(asked))

    async def after(self, asked: Asked, answer: str) -> Decided:
        self.answers.append(answer)
        return await self._said(lambda: self.then(asked, answer))

    async def _said(self, say: Callable[[], Said]) -> Decided:
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            await asyncio.sleep(0)
            while self.held:  # noqa: ASYNC110 - set by the test's thread
                await asyncio.sleep(0.001)
        finally:
            self.in_flight -= 1
        said = say()
        if isinstance(said, BaseException):
            raise said
        return said

    async def aclose(self) -> None:
        self.closed += 1


def guarded(instance: Instance, arm: str = GUARDED, **changes: object) -> Instance:
    made = replace(instance, id=arm_id(instance.id, arm), arm=arm)
    return replace(made, **changes) if changes else made  # type: ignore[arg-type]


def setting(
    defence: ScriptedDefence,
    *,
    arms: Sequence[str] = (GUARDED,),
    pace: PaceSettings | None = None,
    backend: ScriptedBackend | None = None,
    judge: ScriptedJudge | None = None,
    store: MemoryStore | None = None,
    own: EngineSettings = EngineSettings(),  # noqa: B008 - frozen
) -> Setting:
    return Setting(
        backend=backend or ScriptedBackend(),
        judge=judge or ScriptedJudge(),
        store=store or MemoryStore(),
        settings=replace(own, defences={arm: ArmDefence(defence, pace) for arm in arms}),
    )


def blocks(*names: str) -> Callable[[Asked], Said]:
    """A defence against these prompts."""
    return lambda asked: Blocked(why="a word") if asked.prompt in names else None


def prompts(backend: ScriptedBackend) -> list[str]:
    return sorted(request.prompt for request in backend.requests)


def test_the_model_is_asked_once_for_an_instance_with_and_without_a_defence() -> None:
    plain = make_instances(6)
    defence = ScriptedDefence(blocks("prompt 2"))
    of = setting(defence)
    with of.engine([*plain, *map(guarded, plain)]) as engine:
        answers = {one.id: answer(engine, one) for one in [*map(guarded, plain), *plain]}
    assert prompts(of.backend) == sorted(one.prompt for one in plain)
    assert sorted(asked.prompt for asked in defence.asked) == prompts(of.backend)
    for one in plain:
        own, kept = answers[one.id], answers[guarded(one).id]
        blocked = one.prompt == "prompt 2"
        assert own.answer == f"answer to: {one.prompt}"
        assert kept.answer == (REFUSAL if blocked else own.answer)
        assert kept.completion.blocked == ("a word" if blocked else None)
        assert own.request_key != kept.request_key
    assert all(not request.defence for request in of.backend.requests)
    assert defence.closed == 1


def test_what_is_blocked_before_the_model_is_never_asked_of_it() -> None:
    plain = make_instances(4)
    defence = ScriptedDefence(blocks("prompt 1", "prompt 3"))
    of = setting(defence)
    with of.engine([guarded(one) for one in plain]) as engine:
        texts = [answer(engine, guarded(one)).text for one in plain]
    # In whatever order their images were read: each once, and no other.
    assert prompts(of.backend) == ["prompt 0", "prompt 2"]
    assert [text == REFUSAL for text in texts] == [False, True, False, True]
    assert sorted(defence.answers) == [f"answer to: {p}" for p in ("prompt 0", "prompt 2")]


def test_an_answer_may_be_replaced_and_the_judge_sees_what_the_user_sees() -> None:
    judge = ScriptedJudge(
        lambda _, said: Verdict(VerdictKind.SAFE if said == "No." else VerdictKind.UNSAFE, "j")
    )
    defence = ScriptedDefence(then=lambda *_: Blocked("No.", "the answer", 7, 1))
    one = make_instance("a")
    of = setting(
        defence,
        judge=judge,
        backend=ScriptedBackend(
            lambda *_: Completion("Sure.", "stop", input_tokens=10, output_tokens=5, latency=2.0)
        ),
    )
    with of.engine([one, guarded(one)]) as engine:
        own, kept = answer(engine, one), answer(engine, guarded(one))
        assert verdict(engine, one, own).unsafe
        assert verdict(engine, guarded(one), kept).safe
        assert outcome(engine, guarded(one)) is Status.SAFE
    assert (kept.text, kept.completion.blocked) == ("No.", "the answer")
    assert (kept.completion.input_tokens, kept.completion.output_tokens) == (17, 6)
    assert kept.completion.latency >= 2.0
    assert (own.completion.input_tokens, own.completion.latency) == (10, 2.0)


@pytest.mark.parametrize(
    ("said", "tokens"),
    [(None, (10, 5)), (Passed(3, 2), (13, 7)), (Passed(None, 2), (None, 7))],
)
def test_tokens_are_those_of_all_and_unknown_where_some_are(
    said: Decided, tokens: tuple[int | None, int | None]
) -> None:
    defence = ScriptedDefence(lambda _: said)
    backend = ScriptedBackend(
        lambda *_: Completion("Sure.", "stop", input_tokens=10, output_tokens=5)
    )
    one = guarded(make_instance("a"))
    with setting(defence, backend=backend).engine([one]) as engine:
        kept = answer(engine, one).completion
    assert (kept.input_tokens, kept.output_tokens) == tokens


def test_a_run_that_is_repeated_asks_neither_model_nor_defence() -> None:
    plain, store = make_instances(5), MemoryStore()
    plan = [*plain, *map(guarded, plain)]
    first = ScriptedDefence(blocks("prompt 0"), lambda *_: Passed(1, 1))
    with setting(first, store=store).engine(plan) as engine:
        before = [answer(engine, one) for one in plan]
    again = ScriptedDefence(lambda _: JudgeError("asked"))
    of = setting(again, store=store)
    with of.engine(plan) as engine:
        after = [answer(engine, one) for one in plan]
    assert (of.backend.requests, again.asked, again.answers) == ([], [], [])
    assert [one.completion for one in after] == [one.completion for one in before]
    assert all(one.cached for one in after)


def test_another_defence_is_asked_and_the_model_is_not() -> None:
    plain, store = make_instances(3), MemoryStore()
    with setting(ScriptedDefence(), store=store).engine(list(map(guarded, plain))) as engine:
        [answer(engine, guarded(one)) for one in plain]
    other = ScriptedDefence(blocks("prompt 1"), identity="stricter")
    of = setting(other, store=store)
    with of.engine([guarded(one) for one in plain]) as engine:
        texts = [answer(engine, guarded(one)).text for one in plain]
    assert texts.count(REFUSAL) == 1
    assert (len(other.asked), of.backend.requests) == (3, [])


FAILURES: list[tuple[BaseException, str]] = [
    (JudgeError("cannot tell of the prompt"), "cannot tell of the prompt"),
    (ValueError("odd"), "ValueError: odd"),
    (SystemExit(3), "SystemExit: 3"),
    (asyncio.CancelledError(), "cancelled from within"),
]


@pytest.mark.parametrize(("error", "detail"), FAILURES)
@pytest.mark.parametrize("after", [False, True])
def test_a_defence_that_fails_lets_nothing_through_and_blocks_nothing(
    error: BaseException, detail: str, after: bool
) -> None:
    store = MemoryStore()
    one, other = make_instance("a"), make_instance("b")
    bad = lambda asked, *_: error if asked.prompt == one.prompt else None  # noqa: E731
    defence = ScriptedDefence(*((passes, bad) if after else (bad, passes)))
    of = setting(defence, store=store)
    with of.engine([guarded(other), guarded(one), one]) as engine:
        answer(engine, guarded(other))
        with pytest.raises(UnscoredError) as raised:
            answer(engine, guarded(one))
        assert outcome(engine, guarded(one)) is Reason.BACKEND_ERROR
        assert answer(engine, one).answer == "answer to: prompt a"
    assert raised.value.reason is Reason.BACKEND_ERROR
    assert f"the defence of arm '{GUARDED}': " in raised.value.detail
    assert detail in raised.value.detail
    with setting(ScriptedDefence(), store=store).engine([guarded(one)]) as engine:
        assert answer(engine, guarded(one)).answer == "answer to: prompt a", "nothing was stored"


@pytest.mark.parametrize("said", ["blocked", True, Blocked(None), Passed(-1), Blocked("x", 3)])  # type: ignore[arg-type]
def test_what_is_no_decision_decides_nothing(said: object) -> None:
    one = guarded(make_instance("a"))
    defence = ScriptedDefence(lambda _: said)  # type: ignore[arg-type,return-value]
    with setting(defence).engine([one]) as engine, pytest.raises(UnscoredError) as raised:
        answer(engine, one)
    assert raised.value.reason is Reason.BACKEND_ERROR


def test_a_defence_is_asked_again_and_the_model_is_not() -> None:
    troubles = [RetryableError("busy"), RetryableError("busy")]
    defence = ScriptedDefence(then=lambda *_: troubles.pop() if troubles else Blocked())
    one = guarded(make_instance("a"))
    of = setting(defence)
    with of.engine([one]) as engine:
        assert answer(engine, one).text == REFUSAL
    assert (len(defence.asked), len(defence.answers), len(of.backend.requests)) == (1, 3, 1)


def test_a_defence_that_gives_no_answer_at_all_ends_the_run() -> None:
    defence = ScriptedDefence(lambda _: MisconfiguredError("HTTP 401"))
    one = guarded(make_instance("a"))
    complaint = pytest.raises(ConfigurationError, match="the defence of arm 'guarded' cannot be as")
    with setting(defence).engine([one]) as engine, complaint:
        answer(engine, one)


@pytest.mark.parametrize("text", ["", "  ", "<think>on and on"])
def test_what_is_no_answer_is_not_shown_to_a_defence(text: str) -> None:
    defence = ScriptedDefence(then=lambda *_: Blocked())
    backend = ScriptedBackend(lambda *_: completion(text))
    one = guarded(make_instance("a"))
    with setting(defence, backend=backend).engine([one]) as engine:
        assert answer(engine, one).text == text
        assert outcome(engine, one) in (Reason.BLANK, Reason.TRUNCATED)
    assert (len(defence.asked), defence.answers) == (1, [])


def test_a_failure_of_the_model_is_that_of_the_defended_too() -> None:
    one = make_instance("a")
    backend = ScriptedBackend(lambda *_: MisconfiguredError("no images"))
    other = make_instance("b")
    backend.script = lambda request, _: (
        JudgeError("x") if request.prompt == one.prompt else completion("No.")
    )
    with setting(ScriptedDefence(), backend=backend).engine([other, one, guarded(one)]) as engine:
        answer(engine, other)
        for each in (one, guarded(one)):
            with pytest.raises(UnscoredError) as raised:
                answer(engine, each)
            assert raised.value.reason is Reason.BACKEND_ERROR
    assert len(backend.requests) == 2


def test_a_defence_sees_final_answers_prompts_and_the_images_it_wants() -> None:
    backend = ScriptedBackend(lambda *_: completion("<think>hm</think>Yes."), system="Be brief.")
    one = guarded(make_instance("a"))
    for wants in (True, False):
        defence = ScriptedDefence(wants_images=wants)
        with setting(defence, backend=backend).engine([one]) as engine:
            answer(engine, one)
        (asked,) = defence.asked
        assert (asked.prompt, asked.system) == ("prompt a", "Be brief.")
        shown = [image.content.decode() for image in asked.images]
        assert shown == (["a-1.png", "a-2.png"] if wants else [])
        assert defence.answers == ["Yes."]


def test_a_defence_that_acts_in_one_place_is_called_there_alone() -> None:
    one = guarded(make_instance("a"))
    for where, counts in (("before", (0, 1)), ("after", (1, 0))):
        defence = ScriptedDefence()
        setattr(defence, f"acts_{where}", False)
        with setting(defence).engine([one]) as engine:
            answer(engine, one)
        assert (len(defence.asked), len(defence.answers)) == counts


def test_another_system_prompt_is_another_request_of_the_model() -> None:
    one = make_instance("a")
    of = setting(ScriptedDefence())
    with of.engine([one, guarded(one, system="Be careful.")]) as engine:
        answer(engine, guarded(one, system="Be careful."))
        answer(engine, one)
    assert sorted(str(r.system) for r in of.backend.requests) == ["Be careful.", "None"]


def test_twins_have_the_defence_and_the_model_is_asked_as_without_it() -> None:
    asked_as: list[str] = []

    def script(request: Request, instance_id: str) -> Completion:
        asked_as.append(instance_id)
        return completion("Sure.")

    twin, bad, harmless = map(make_instance, ("t", "b", "u"))
    plain = {bad.id: bad, arm_id(harmless.id, "benign-twin"): harmless}
    defence = ScriptedDefence(blocks(twin.prompt))
    of = setting(
        defence,
        arms=(GUARDED, f"{GUARDED}-twin"),
        backend=ScriptedBackend(script),
        own=EngineSettings(undefended=plain),
    )
    with of.engine([guarded(twin, f"{GUARDED}-twin"), guarded(bad)]) as engine:
        assert answer(engine, guarded(twin, f"{GUARDED}-twin")).text == REFUSAL
        assert answer(engine, guarded(bad)).text == "Sure."
        defence.first = passes
        fresh = guarded(harmless, f"{GUARDED}-twin", draw=1)
        answer(engine, replace(fresh, id=f"{fresh.id}#2"))
        other = guarded(bad, composed=True)  # which is another request
        answer(engine, replace(other, draw=2, id=f"{other.id}#3"))
    assert asked_as == [bad.id, "self-harm/analogy/u@benign-twin#2", f"{bad.id}@{GUARDED}#3"]
    assert defence.closed == 1


def test_concurrency_is_bounded_and_retries_are_as_set() -> None:
    defence = ScriptedDefence(concurrency=2)
    plan = [guarded(one) for one in make_instances(20)]
    with setting(defence).engine(plan) as engine:
        [answer(engine, one) for one in plan]
    assert defence.peak <= 2
    down = ScriptedDefence(
        lambda asked: RetryableError("down") if asked.prompt != "prompt 0" else None
    )
    with setting(down, pace=PaceSettings(1, retries=1)).engine(plan[:2]) as engine:
        answer(engine, plan[0])
        with pytest.raises(UnscoredError, match="down"):
            answer(engine, plan[1])
    assert len(down.asked) == 3


def test_a_stop_ends_a_defence_at_once() -> None:
    defence = ScriptedDefence(held=True)
    plan = [guarded(one) for one in make_instances(9)]
    of = setting(defence)
    with of.engine(plan) as engine:
        engine.start()
        until(lambda: defence.in_flight > 0)
        within(5, engine.stop)
        until(lambda: defence.in_flight == 0)
        with pytest.raises(NotRunError):
            answer(engine, plan[0])
    assert of.backend.requests == []


@pytest.mark.parametrize("whose", ["defence", "model"])
def test_who_is_waited_for_jumps_the_queue(whose: str) -> None:
    backend = ScriptedBackend(concurrency=1, held=whose == "model")
    defence = ScriptedDefence(concurrency=1, held=whose == "defence")
    plan = [guarded(one) for one in make_instances(9)]
    with setting(defence, backend=backend).engine(plan) as engine:
        engine.start()
        begun = 1 if whose == "defence" else len(plan)
        until(lambda: len(defence.asked) == begun and defence.in_flight + backend.in_flight == 1)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(answer, engine, plan[-1])
            until(lambda: engine._planned[plan[-1].id].urgent)
            backend.held = defence.held = False
            waiting.result()
    order = [each.prompt for each in (defence.asked if whose == "defence" else backend.requests)]
    assert order.index(plan[-1].prompt) == 1


def test_who_asks_beyond_the_plan_jumps_the_queue_too() -> None:
    defence = ScriptedDefence(concurrency=1, held=True)
    plan, late = [guarded(one) for one in make_instances(9)], guarded(make_instance("late"))
    with setting(defence).engine(plan) as engine:
        engine.start()
        until(lambda: defence.in_flight == 1 and engine._pipeline._defending.waiting == 8)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(answer, engine, late)
            until(lambda: engine._pipeline._defending.waiting == 9)
            defence.held = False
            waiting.result()
    assert defence.asked[1].prompt == late.prompt


def test_what_is_skipped_is_asked_of_nobody() -> None:
    defence = ScriptedDefence(held=True, concurrency=1)
    plan = [guarded(one) for one in make_instances(6)]
    of = setting(defence)
    with of.engine(plan) as engine:
        engine.start()
        until(lambda: defence.in_flight == 1)
        engine.skip([one.id for one in plan], "decided")
        until(lambda: engine.progress().unscored >= 5)
        defence.held = False
        until(lambda: engine.progress().unscored == 6)
        assert all(outcome(engine, one) is Reason.NOT_RUN for one in plan)
    assert (len(defence.asked), of.backend.requests) == (1, [])


def test_a_skip_takes_back_what_the_model_is_asked_for_it() -> None:
    backend = ScriptedBackend(held=True, concurrency=1)
    plain = make_instances(3)
    defence = ScriptedDefence()
    of = setting(defence, backend=backend)
    with of.engine([plain[0], *map(guarded, plain[1:])]) as engine:
        engine.start()
        until(lambda: backend.in_flight == 1 and len(defence.asked) == 2)
        engine.skip([guarded(one).id for one in plain[1:]], "decided")
        until(lambda: engine.progress().unscored == 2)
        backend.held = False
        answer(engine, plain[0])
    assert prompts(backend) == ["prompt 0"]


@pytest.mark.parametrize("ahead", [True, False])
def test_nothing_more_is_asked_of_a_defence_once_the_budget_is_spent(ahead: bool) -> None:
    plan = [guarded(one) for one in make_instances(30)]
    defence = ScriptedDefence(concurrency=1)
    backend = ScriptedBackend(
        lambda *_: Completion("No.", "stop", input_tokens=500, output_tokens=500), concurrency=1
    )
    own = EngineSettings(budget=Budget(2500, None), image_tokens=100)
    with setting(defence, backend=backend, own=own).engine(plan if ahead else []) as engine:
        reasons: Counter[Reason | None] = Counter()
        for one in plan:
            try:
                answer(engine, one)
                reasons[None] += 1
            except UnscoredError as error:
                reasons[error.reason] += "the budget" in error.detail
        asked = len(defence.asked)
        with pytest.raises(NotRunError, match="the budget"):
            answer(engine, guarded(make_instance("late")))
        assert len(defence.asked) == asked
    assert reasons[None] == len(backend.requests) < 5
    assert reasons[Reason.NOT_RUN] == 30 - reasons[None]
    if not ahead:  # planned ones may all have been asked before the first answer was paid for
        assert len(defence.asked) <= reasons[None] + 1
    assert len(defence.answers) == reasons[None]


def test_model_and_judge_may_take_turns_beside_a_defence() -> None:
    plain = make_instances(4)
    plan = [*plain, *map(guarded, plain)]
    own = EngineSettings(two_phases=True)
    with setting(ScriptedDefence(blocks("prompt 1")), own=own).engine(plan) as engine:
        for one in plan:
            assert verdict(engine, one, answer(engine, one)).safe


def test_without_a_store_the_answers_are_the_same() -> None:
    one = make_instance("a")
    defence = ScriptedDefence()
    of = setting(defence, backend=ScriptedBackend(cacheable=False))
    with of.engine([one, guarded(one)]) as engine:
        assert answer(engine, guarded(one)).answer == answer(engine, one).answer
    assert (len(of.backend.requests), len(defence.asked)) == (1, 1)


WAYS = st.sampled_from(["pass", "block", "block-after", "fail", "fail-after", "busy"])


@settings(max_examples=40, deadline=None)
@given(st.lists(WAYS, min_size=1, max_size=7), st.randoms())
def test_every_defended_instance_ends_as_its_defence_says(ways: list[str], random: object) -> None:
    plain = make_instances(len(ways))
    way = {one.prompt: way for one, way in zip(plain, ways, strict=True)}
    busy = {prompt for prompt, name in way.items() if name == "busy"}

    def first(asked: Asked) -> Said:
        if asked.prompt in busy:
            busy.discard(asked.prompt)
            return RetryableError("busy", overloaded=True, retry_after=0.0)
        if way[asked.prompt] == "fail":
            return JudgeError("?")
        return Blocked() if way[asked.prompt] == "block" else None

    def then(asked: Asked, _: str) -> Said:
        if way[asked.prompt] == "fail-after":
            return JudgeError("?")
        return Blocked() if way[asked.prompt] == "block-after" else None

    defence = ScriptedDefence(first, then)
    of = setting(defence)
    plan = [*plain, *map(guarded, plain)]
    random.shuffle(plan)  # type: ignore[attr-defined]
    with of.engine(plan) as engine:
        for one in plan:
            name = way[one.prompt]
            if one.arm == GUARDED and name.startswith("fail"):
                with pytest.raises(UnscoredError) as raised:
                    answer(engine, one)
                assert raised.value.reason is Reason.BACKEND_ERROR
                continue
            blocked = one.arm == GUARDED and name.startswith("block")
            assert answer(engine, one).text == (REFUSAL if blocked else f"answer to: {one.prompt}")
    assert set(Counter(prompts(of.backend)).values()) == {1}
    assert max(Counter(defence.answers).values(), default=1) == 1
