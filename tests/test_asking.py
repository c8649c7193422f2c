"""Each request is asked once, with exactly its images, and its answer is kept and judged."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from engine_setting import (
    BOUND,
    Setting,
    SlowStore,
    answer,
    environment,
    outcome,
    seen,
    until,
    verdict,
)
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
)

from pytest_mirsafety.engine.engine import Engine, EngineSettings
from pytest_mirsafety.engine.reading import READERS
from pytest_mirsafety.errors import (
    BackendError,
    BadInputError,
    StoreError,
)
from pytest_mirsafety.records import (
    Completion,
    ImageRef,
    LoadedImage,
    Request,
    Verdict,
    VerdictKind,
)
from pytest_mirsafety.store import SQLiteStore
from pytest_mirsafety.taxonomy import Reason, Status

# Asked once


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


@dataclass
class CountingStore(MemoryStore):
    """Counts the looks for each answer."""

    looks: Counter[str] = field(default_factory=Counter)

    def get(self, key: str) -> Completion | None:
        self.looks[key] += 1
        return super().get(key)


def test_a_stored_answer_is_read_once() -> None:
    """Once more only for who wants it a second time."""
    store, instances = CountingStore(), make_instances(200)
    for _ in range(2):
        store.looks.clear()
        with Setting(store=store).engine(instances) as engine:
            for instance in instances:
                engine.wait(instance, lambda: None, 0.01)
                verdict(engine, instance, answer(engine, instance))
            assert set(store.looks.values()) == {1}
            assert answer(engine, instances[0]) == answer(engine, instances[0])
            assert store.looks.total() == 202


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
        return None if self.looks == 2 or (self.forget and self.looks > 2) else found


def test_an_answer_stored_after_the_look_is_found() -> None:
    """An equal request that had looked before the answer was stored is not asked again."""
    setting = Setting(store=SlowLook())
    first, second = (make_instance(n, prompt="same", images=["same.png"]) for n in "ab")
    with setting.engine() as engine:
        # looks: before the ask; then the stale one
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
from pytest_mirsafety.engine.engine import Engine, EngineSettings
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


# What was asked is provable


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


# Verdicts


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
