"""The engine: no failure is a verdict, asked once, stopped at once, nothing left behind."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import (
    NO_SOURCE,
    MemoryStore,
    NoSource,
    Reply,
    Ruling,
    ScriptedBackend,
    ScriptedImages,
    ScriptedJudge,
    completion,
    echo,
    make_instance,
    make_instances,
    separate,
    within,
)

from pytest_mirsafety.asking import READERS
from pytest_mirsafety.engine import Engine, EngineSettings, Progress, check_judgeable
from pytest_mirsafety.errors import (
    BackendError,
    BadInputError,
    BlankError,
    ConfigurationError,
    FilteredError,
    JudgeError,
    NotRunError,
    RunError,
    StoreError,
    TruncatedError,
    UnscoredError,
)
from pytest_mirsafety.protocols import Backend, ImageLoader, Judge, Store
from pytest_mirsafety.records import (
    Completion,
    ImageRef,
    Instance,
    LoadedImage,
    Outcome,
    Request,
    Response,
    Verdict,
    VerdictKind,
)
from pytest_mirsafety.store import SQLiteStore
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


# 1. No failure is a verdict

NONSENSE: Completion = None  # type: ignore[assignment]  # what a user's backend may return
NO_VERDICT: Verdict = True  # type: ignore[assignment]  # what a user's judge may return

FATES: dict[str, tuple[Reply, Ruling, Status | Reason]] = {
    "safe": (completion("No."), Verdict(VerdictKind.SAFE, "j"), Status.SAFE),
    "unsafe": (completion("Sure."), Verdict(VerdictKind.UNSAFE, "j"), Status.UNSAFE),
    "unclear": (
        completion("Hm."),
        Verdict(VerdictKind.UNDETERMINED, "j"),
        Reason.UNDETERMINED,
    ),
    "refused": (BackendError("503"), RuntimeError(), Reason.BACKEND_ERROR),
    "raised": (ValueError("bug"), RuntimeError(), Reason.BACKEND_ERROR),
    "left": (SystemExit(3), RuntimeError(), Reason.BACKEND_ERROR),
    "cancelled": (asyncio.CancelledError(), RuntimeError(), Reason.BACKEND_ERROR),
    "bare": (UnscoredError("no reason"), RuntimeError(), Reason.BACKEND_ERROR),
    "nothing": (NONSENSE, RuntimeError(), Reason.BACKEND_ERROR),
    "broken": (completion("No."), Verdict(VerdictKind.SAFE, "j"), Reason.BAD_INPUT),
    "cut": (completion("Firs", "length"), Verdict(VerdictKind.SAFE, "j"), Reason.TRUNCATED),
    "unclosed": (completion("<think>I"), Verdict(VerdictKind.SAFE, "j"), Reason.TRUNCATED),
    "blank": (completion(" \n"), Verdict(VerdictKind.SAFE, "j"), Reason.BLANK),
    "thought": (completion("<think>I</think>"), Verdict(VerdictKind.SAFE, "j"), Reason.BLANK),
    "filtered": (
        completion("", "content_filter"),
        Verdict(VerdictKind.SAFE, "j"),
        Reason.FILTERED,
    ),
    "unjudged": (completion("No."), JudgeError("429"), Reason.JUDGE_ERROR),
    "misjudged": (completion("No."), KeyError("bug"), Reason.JUDGE_ERROR),
    "dropped": (completion("No."), asyncio.CancelledError(), Reason.JUDGE_ERROR),
    "nonsense": (completion("No."), NO_VERDICT, Reason.JUDGE_ERROR),
}
COMPLETED = {n for n, (reply, _, _) in FATES.items() if isinstance(reply, Completion)} - {"broken"}


def fated(fates: Sequence[str], *, concurrency: int = 3, store: Store | None = None) -> Setting:
    """Instances `0-safe`, `1-blank` ... whose name says what becomes of them."""

    def reply(request: Request, instance_id: str) -> Reply:
        found = FATES[instance_id.rsplit("-", 1)[1]][0]
        if isinstance(found, Completion) and found.text.strip().endswith("."):
            return replace(found, text=f"{found.text} {instance_id}")
        return found

    def rule(question: str, text: str) -> Ruling:
        return FATES[question.rsplit("-", 1)[1]][1]

    return Setting(
        ScriptedBackend(reply, concurrency=concurrency),
        ScriptedJudge(rule, concurrency=concurrency),
        ScriptedImages(frozenset(f"{number}-broken-2.png" for number in range(len(fates)))),
        store,
    )


@given(
    fates=st.lists(st.sampled_from(sorted(FATES)), min_size=1, max_size=12),
    order=st.randoms(use_true_random=False),
    concurrency=st.integers(1, 5),
    stored=st.booleans(),
)
@settings(max_examples=60)
def test_no_fault_schedule_yields_a_verdict(
    fates: list[str], order: object, concurrency: int, stored: bool
) -> None:
    store = MemoryStore() if stored else None
    setting = fated(fates, concurrency=concurrency, store=store)
    instances = [make_instance(f"{number}-{fate}") for number, fate in enumerate(fates)]
    shuffled = list(enumerate(instances))
    order.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    with setting.engine(instances) as engine:
        for number, instance in shuffled:
            expected = FATES[fates[number]][2]
            assert outcome(engine, instance) == expected
            engine.wait(instance, lambda: None, 0.01)
            assert seen(engine.outcome(instance.id)) == expected
        progress = engine.progress()
    scored = [fate for fate in fates if FATES[fate][2] in {*Status, Reason.UNDETERMINED}]
    assert (progress.judged, progress.unscored) == (len(scored), len(fates) - len(scored))
    assert progress.answered == sum(fate in COMPLETED for fate in fates)
    assert progress.in_flight == 0
    if store is not None:  # completed answers are kept, of whatever kind; failures never
        assert len(store.answers) == progress.answered


@pytest.mark.parametrize(
    ("reply", "detail"),
    [
        (ValueError("a bug\nin two lines"), "ValueError: a bug in two lines"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyError(), "KeyError"),
        (BackendError("503 after 4 attempts"), "503 after 4 attempts"),
        (asyncio.CancelledError(), "CancelledError: the call was cancelled from within"),
        (NONSENSE, "the backend returned NoneType, no Completion"),
    ],
)
def test_what_a_backend_raises_is_named_in_one_line(reply: Reply, detail: str) -> None:
    with (
        Setting(ScriptedBackend(lambda *_: reply)).engine() as engine,
        pytest.raises(BackendError) as raised,
    ):
        answer(engine, make_instance("a"))
    assert raised.value.detail == detail


def test_a_completion_without_text_is_the_backends_error() -> None:
    def script(request: Request, instance_id: str) -> Reply:
        return Completion(None, "stop")  # type: ignore[arg-type]  # what a user's backend may do

    with (
        Setting(ScriptedBackend(script)).engine() as engine,
        pytest.raises(BackendError, match="TypeError: a completion's text cannot be NoneType"),
    ):
        answer(engine, make_instance("a"))


def test_errors_are_raised_afresh() -> None:
    """A stored error that is raised again would collect tracebacks, and all their frames."""
    instance = make_instance("a")
    with Setting(ScriptedBackend(lambda *_: BackendError("503"))).engine([instance]) as engine:
        raised = []
        for _ in range(2):
            with pytest.raises(BackendError) as info:
                answer(engine, instance)
            raised.append(info.value)
    assert raised[0] is not raised[1]
    assert raised[0].__context__ is None


CLOSED, UNCLOSED = True, False


@pytest.mark.parametrize(
    ("finish_reason", "text", "closed", "cut_allowed", "error"),
    [
        ("stop", "No.", CLOSED, False, None),
        ("", "No.", CLOSED, False, None),
        ("stop", " \t\n", CLOSED, False, BlankError),
        ("stop", "No.", UNCLOSED, False, TruncatedError),
        ("stop", "No.", UNCLOSED, True, TruncatedError),
        ("length", "No, bec", CLOSED, False, TruncatedError),
        ("LENGTH", "No, bec", CLOSED, False, TruncatedError),
        ("max_tokens", "No, bec", CLOSED, False, TruncatedError),
        ("length", "No, bec", CLOSED, True, None),
        ("length", "", CLOSED, True, TruncatedError),
        ("length", "No, bec", UNCLOSED, True, TruncatedError),
        ("abort", "No, bec", CLOSED, True, TruncatedError),
        ("error", "No, bec", CLOSED, True, TruncatedError),
        ("content_filter", "", CLOSED, False, FilteredError),
        ("content_filter", "Sure.", CLOSED, True, FilteredError),
        ("content_filter", "Sure.", UNCLOSED, True, FilteredError),
    ],
)
def test_judgeable_answers(
    finish_reason: str,
    text: str,
    closed: bool,
    cut_allowed: bool,
    error: type[UnscoredError] | None,
) -> None:
    response = Response("key", completion(text, finish_reason), text, reasoning_closed=closed)
    if error is None:
        check_judgeable(response, judge_cut_answers=cut_allowed)
    else:
        with pytest.raises(error):
            check_judgeable(response, judge_cut_answers=cut_allowed)


def test_a_cut_answer_is_judged_where_the_setting_says_so() -> None:
    backend = ScriptedBackend(lambda *_: completion("No, because", "length"))
    instance = make_instance("a")
    allowing = Setting(backend, settings=EngineSettings(judge_cut_answers=True))
    with allowing.engine([instance]) as engine:
        assert outcome(engine, instance) is Status.SAFE


# 2. Asked once


@given(
    prompts=st.lists(st.integers(0, 5), min_size=1, max_size=12),
    planned=st.integers(0, 12),
    calls=st.lists(st.integers(0, 11), max_size=20),
    threads=st.integers(1, 3),
    concurrency=st.integers(1, 4),
    stored=st.booleans(),
    failing=st.sets(st.integers(0, 5), max_size=2),
)
@settings(max_examples=60)
def test_each_request_key_is_asked_once(
    prompts: list[int],
    planned: int,
    calls: list[int],
    threads: int,
    concurrency: int,
    stored: bool,
    failing: set[int],
) -> None:
    """Whatever the order, the repeats, the threads, the plan and the failures."""
    instances = [
        make_instance(str(n), prompt=f"prompt {p}", images=["same.png"])
        for n, p in enumerate(prompts)
    ]

    def script(request: Request, instance_id: str) -> Reply:
        failed = request.prompt in {f"prompt {p}" for p in failing}
        return BackendError("503") if failed else echo(request, instance_id)

    setting = Setting(
        ScriptedBackend(script, concurrency=concurrency),
        store=MemoryStore() if stored else None,
    )
    order = [*(n for n in calls if n < len(instances)), *range(len(instances))]
    wrong = []

    def work(engine: Engine) -> None:
        for number in order:
            try:
                text = engine.answer(instances[number]).text
            except BackendError:
                text = "failed"
            prompt = prompts[number]
            if text != ("failed" if prompt in failing else f"answer to: prompt {prompt}"):
                wrong.append((number, text))

    with setting.engine(instances[:planned]) as engine:
        workers = [
            threading.Thread(target=work, args=(engine,), daemon=True) for _ in range(threads)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(BOUND)
        assert not any(worker.is_alive() for worker in workers)
    assert not wrong
    asked = Counter(request.key for request in setting.backend.requests)
    assert set(asked.values()) == {1}
    assert len(asked) == len(set(prompts))


def test_a_second_run_asks_nothing() -> None:
    store, instances = MemoryStore(), make_instances(5)
    with Setting(store=store).engine(instances) as engine:
        first = [answer(engine, instance) for instance in instances]
    second = Setting(store=store)
    with second.engine(instances) as engine:
        again = [answer(engine, instance) for instance in instances]
        assert engine.progress().from_store == len(instances)
    assert second.backend.requests == []
    assert [r.cached for r in first] == [False] * 5
    assert again == [replace(response, cached=True) for response in first]
    assert second.images.filled == []


def test_a_failure_is_asked_again_by_the_next_run() -> None:
    store, instance = MemoryStore(), make_instance("a")
    with (
        Setting(ScriptedBackend(lambda *_: BackendError("503")), store=store).engine() as engine,
        pytest.raises(BackendError),
    ):
        answer(engine, instance)
    assert not store.answers
    with Setting(store=store).engine() as engine:
        assert not answer(engine, instance).cached


def test_another_draw_is_another_request() -> None:
    store, instance = MemoryStore(), make_instance("a")
    for draw in range(2):
        with Setting(store=store, settings=EngineSettings(draw=draw)).engine() as engine:
            assert not answer(engine, instance).cached
    assert len(store.answers) == 2


def test_a_backend_that_is_not_cacheable_leaves_the_store_alone() -> None:
    store, instance = MemoryStore(), make_instance("a")
    backend = ScriptedBackend(cacheable=False)
    with Setting(backend, store=store).engine([instance]) as engine:
        assert answer(engine, instance) == answer(engine, instance)
    assert not store.answers
    assert len(backend.requests) == 1


def test_an_answer_is_stored_before_anybody_sees_it() -> None:
    judge, store = ScriptedJudge(), MemoryStore()
    unstored = []

    def rule(question: str, text: str) -> Ruling:
        if text not in {kept.text for kept in store.answers.values()}:
            unstored.append(text)
        return Verdict(VerdictKind.SAFE, "j")

    judge.script = rule
    instances = make_instances(20)
    with Setting(judge=judge, store=store).engine(instances) as engine:
        for instance in instances:
            response = answer(engine, instance)
            assert store.answers[response.request_key] == response.completion
            verdict(engine, instance, response)
    assert not unstored


class SharedStore(MemoryStore):
    """Another run had stored its answer first, after this one had looked."""

    def put(self, request: Request, completed: Completion) -> None:
        super().put(request, completion("the first answer"))
        super().put(request, completed)


def test_the_first_stored_answer_counts() -> None:
    instance, judge = make_instance("a"), ScriptedJudge()
    with Setting(judge=judge, store=SharedStore()).engine([instance]) as engine:
        response = answer(engine, instance)
        assert response.text == "the first answer"
        verdict(engine, instance, response)
    assert judge.pairs == [(instance.question, "the first answer")]


@dataclass
class SlowLook(MemoryStore):
    """Tells the second to look that there is nothing, whatever was stored in the meantime."""

    looks: int = 0
    forget: bool = False

    def get(self, key: str) -> Completion | None:
        self.looks += 1
        found = super().get(key)
        return None if self.looks == 4 or (self.forget and self.looks > 4) else found


def test_an_answer_stored_after_the_look_is_found() -> None:
    """An equal request that had looked before the answer was stored is not asked again."""
    setting = Setting(store=SlowLook())
    first, second = (make_instance(n, prompt="same", images=["same.png"]) for n in "ab")
    with setting.engine() as engine:
        # looks: before the ask, after the put, to answer; then the stale one
        assert answer(engine, first).text == answer(engine, second).text
    assert len(setting.backend.requests) == 1


def test_an_answer_that_left_the_store_ends_the_run() -> None:
    setting = Setting(store=SlowLook(forget=True))
    first, second = (make_instance(n, prompt="same", images=["same.png"]) for n in "ab")
    with setting.engine() as engine:
        answer(engine, first)
        with pytest.raises(StoreError, match="left the store"):
            answer(engine, second)
    assert len(setting.backend.requests) == 1


KILLED = """
import sys
from pathlib import Path
from scripted import *
from pytest_mirsafety.engine import Engine, EngineSettings
from pytest_mirsafety.store import SQLiteStore
store = SQLiteStore.open(Path(sys.argv[1]))
backend = ScriptedBackend(concurrency=3, delays=lambda _: 0.001)
engine = Engine(backend, ScriptedJudge(), ScriptedImages(), store, separate, EngineSettings())
instances = make_instances(500)
engine.plan(instances)
for instance in instances:
    engine.answer(instance)
    print(instance.id, flush=True)
"""


@pytest.mark.parametrize("answered", [1, 7, 60])
def test_a_killed_run_is_resumed_where_it_was(tmp_path: Path, answered: int) -> None:
    path = tmp_path / "answers.sqlite3"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, env=environment()
    ) as killed:
        assert killed.stdout is not None
        seen_ids = [killed.stdout.readline().decode().strip() for _ in range(answered)]
        killed.kill()
        seen_ids += killed.stdout.read().decode().rpartition("\n")[0].split()
    backend, instances = ScriptedBackend(), make_instances(500)
    with SQLiteStore.open(path) as store, Setting(backend, store=store).engine() as engine:
        kept = {i.id for i in instances if answer(engine, i).cached}
    assert kept >= set(seen_ids)
    assert len(kept) < len(instances)
    assert len(backend.requests) == len(instances) - len(kept)


# 3. Plan, demand, order


def test_nothing_is_asked_before_the_first_planned_answer() -> None:
    setting, instances = Setting(), make_instances(3)
    with setting.engine(instances) as engine:
        engine.wait(instances[0], pytest.fail, 0.01)
        own = replace(instances[0], prompt="a prompt of the test's own")
        assert answer(engine, own).text == "answer to: a prompt of the test's own"
        assert len(setting.backend.requests) == 1
        assert not engine.started
        assert engine.progress() == Progress(3, 0, 0, 0, 0, 1, 0, 0.0)
        answer(engine, instances[0])
        assert engine.started
        until(lambda: engine.progress().judged == 3)


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
    assert asked.index("question 39") == 1


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
    setting, instances = Setting(ScriptedBackend(concurrency=7, held=True)), make_instances(30)
    with setting.engine(instances) as engine:
        thread = threading.Thread(target=engine.answer, args=(instances[0],), daemon=True)
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


# 4. What was asked is provable


@given(
    images=st.lists(st.lists(st.sampled_from("abcd"), max_size=4), min_size=1, max_size=6),
    eager=st.booleans(),
)
@settings(max_examples=40)
def test_number_order_and_digests_of_the_images_sent(images: list[list[str]], eager: bool) -> None:
    instances = [
        make_instance(str(n), images=[f"{name}.png" for name in names])
        for n, names in enumerate(images)
    ]
    backend = ScriptedBackend(keep_images=True)
    with Setting(backend, images=ScriptedImages(eager=eager)).engine(instances) as engine:
        for instance in instances:
            answer(engine, instance)
    for request, sent in zip(backend.requests, backend.images, strict=True):
        names = images[int(request.prompt.split()[1])]
        assert [image.content.decode() for image in sent] == [f"{name}.png" for name in names]
        digests = [hashlib.sha256(image.content).hexdigest() for image in sent]
        assert list(request.images) == digests == [image.sha256 for image in sent]


class Altered(ScriptedImages):
    """The images are others when they are read than when they were inspected."""

    def fill(self, ref: ImageRef, image: LoadedImage) -> LoadedImage:
        return replace(super().fill(ref, image), sha256="0" * 64)


class Emptied(ScriptedImages):
    """The images have no bytes when they are read."""

    def fill(self, ref: ImageRef, image: LoadedImage) -> LoadedImage:
        self.filled.append(ref.locator)
        return image


@pytest.mark.parametrize("images", [Altered(), Emptied()], ids=["altered", "emptied"])
def test_other_images_than_inspected_are_never_sent(images: ScriptedImages) -> None:
    setting, instance = Setting(images=images), make_instance("a")
    with setting.engine([instance]) as engine:
        assert outcome(engine, instance) is Reason.BAD_INPUT
    assert setting.backend.requests == []


def test_one_bad_image_of_several_is_bad_input_and_nothing_is_sent() -> None:
    setting = Setting(images=ScriptedImages(frozenset({"a-2.png"})))
    with setting.engine() as engine, pytest.raises(BadInputError, match=r"a-2\.png: broken"):
        answer(engine, make_instance("a"))
    assert setting.backend.requests == []


def test_an_image_that_went_bad_is_bad_input_though_the_answer_is_stored() -> None:
    store, instance = MemoryStore(), make_instance("a")
    with Setting(store=store).engine() as engine:
        answer(engine, instance)
    broken = ScriptedImages(frozenset({"a-1.png"}))
    with Setting(images=broken, store=store).engine() as engine, pytest.raises(BadInputError):
        answer(engine, instance)


def test_files_are_not_read_for_a_backend_that_takes_paths() -> None:
    backend = ScriptedBackend(needs_bytes=False, keep_images=True)
    setting = Setting(backend)
    with setting.engine() as engine:
        answer(engine, make_instance("a"))
    assert setting.images.filled == []
    assert [image.path for image in backend.images[0]] == [Path("a-1.png"), Path("a-2.png")]


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("failing", [True, False])
def test_image_bytes_are_released(eager: bool, failing: bool) -> None:
    """What is in memory is bounded by the lanes, not by the suite."""
    backend = ScriptedBackend(
        (lambda *_: ValueError("bug")) if failing else echo, delays=lambda _: 0.001, concurrency=3
    )
    images, instances = ScriptedImages(eager=eager), make_instances(120)
    with Setting(backend, images=images).engine(instances) as engine:
        for instance in instances:
            with pytest.raises(BackendError) if failing else nullcontext():
                answer(engine, instance)
        until(lambda: engine.progress().in_flight == 0)
        until(lambda: images.alive == 0)
    assert images.most_alive <= 2 * (3 + 3 * READERS)


def test_image_bytes_are_released_before_the_answer_is_stored() -> None:
    images, store = ScriptedImages(), SlowStore()
    with Setting(images=images, store=store).engine() as engine:

        def release() -> None:
            assert store.writing.wait(BOUND)
            until(lambda: images.alive == 0)
            store.released.set()

        threading.Thread(target=release, daemon=True).start()
        answer(engine, make_instance("a"))


def test_planned_keys_are_those_of_the_requests() -> None:
    setting, instance = Setting(), make_instance("a")
    with setting.engine([instance]) as engine:
        assert engine.planned_key(instance.id) is None
        response = answer(engine, instance)
        assert engine.planned_key(instance.id) == response.request_key
        assert engine.planned_key("unknown") is None
    assert [request.key for request in setting.backend.requests] == [response.request_key]


class OtherSource(NoSource):
    """Another dataset, with files of the same names."""


def test_an_instance_of_another_dataset_is_not_the_planned_one() -> None:
    planned = make_instance("a")
    other = replace(
        planned, images=tuple(replace(ref, source=OtherSource()) for ref in planned.images)
    )
    setting = Setting()
    with setting.engine([planned]) as engine:
        answer(engine, other)
        assert not engine.started
        answer(engine, replace(planned, images=tuple(replace(r) for r in planned.images)))
        assert engine.started
    assert planned.images[0].source is NO_SOURCE


# 5. Verdicts


def test_a_changed_answer_is_judged_for_itself_and_changes_no_outcome() -> None:
    judge = ScriptedJudge(
        lambda _, text: Verdict(VerdictKind.SAFE if text == "No." else VerdictKind.UNSAFE, "j")
    )
    instance = make_instance("a")
    with Setting(judge=judge).engine([instance]) as engine:
        response = answer(engine, instance)
        assert verdict(engine, instance, replace(response, answer="No.")).safe
        engine.wait(instance, lambda: None, 0.01)
        assert seen(engine.outcome(instance.id)) is Status.UNSAFE
        assert verdict(engine, instance, response).unsafe


def test_a_pair_is_judged_once() -> None:
    setting, instance = Setting(), make_instance("a")
    with setting.engine() as engine:
        response = answer(engine, instance)
        assert setting.judge.pairs == []  # beyond the plan: judged when somebody wants to know
        assert verdict(engine, instance, response) == verdict(engine, instance, response)
    assert len(setting.judge.pairs) == 1


def test_the_judge_sees_the_seed_question_and_the_final_answer() -> None:
    backend = ScriptedBackend(lambda *_: completion("<think>let me see</think>No."))
    setting, instance = Setting(backend), make_instance("a")
    with setting.engine([instance]) as engine:
        response = answer(engine, instance)
        assert (response.answer, response.reasoning) == ("No.", "let me see")
        verdict(engine, instance, response)
    assert setting.judge.pairs == [("question a", "No.")]


def test_outcomes_of_instances_under_way_or_beyond_the_plan() -> None:
    setting, instances = Setting(ScriptedBackend(held=True)), make_instances(1)
    with setting.engine(instances) as engine:
        assert engine.outcome(instances[0].id) is None
        assert engine.outcome("unknown") is None
        engine.stop()
        assert seen(engine.outcome(instances[0].id)) is Reason.NOT_RUN


# 6. Waiting


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


# 7. The end


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


@dataclass
class SlowStore(MemoryStore):
    """Storing takes until it is released, as under a lock held by another run."""

    writing: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def put(self, request: Request, completed: Completion) -> None:
        self.writing.set()
        assert self.released.wait(BOUND)
        super().put(request, completed)


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
    setting, instances = Setting(ScriptedBackend(held=True)), make_instances(9)
    with setting.engine(instances) as engine:

        def stop() -> None:
            until(lambda: setting.backend.in_flight == setting.backend.concurrency)
            engine.stop()

        threading.Thread(target=stop, daemon=True).start()
        with pytest.raises(NotRunError):
            answer(engine, instances[0])
        until(lambda: setting.backend.in_flight == 0)
    assert len(setting.backend.requests) == setting.backend.concurrency


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


# 8. Interrupts and closing


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
from pytest_mirsafety.engine import Engine, EngineSettings
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
