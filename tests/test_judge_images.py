"""A judge that asks for the images gets those that the model got, and no other judge gets any."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
from chat_endpoint import ChatEndpoint, ReceivedRequest, Reply
from dataset_builders import tiny_png
from engine_setting import BOUND, Setting, answer, outcome, until, verdict
from hypothesis import given
from hypothesis import strategies as st
from judge_models import ANSWER, QUESTION, SayingModel
from PIL import Image
from projects import COMPLIANCE, REFUSAL, Project
from scripted import (
    MemoryStore,
    ScriptedImages,
    ScriptedJudge,
    completion,
    make_instance,
    make_instances,
    within,
)
from test_panel import Member

from pytest_mirsafety.cli import main
from pytest_mirsafety.engine.asks import EngineSettings, Trial
from pytest_mirsafety.engine.judging import pair_key
from pytest_mirsafety.engine.keeping import Keeper
from pytest_mirsafety.errors import BadInputError, JudgeError
from pytest_mirsafety.gates.challenge import Canary, CanaryClass
from pytest_mirsafety.images import neutral_image
from pytest_mirsafety.judged import JudgedPair
from pytest_mirsafety.judges import rubric
from pytest_mirsafety.judges.cascade import Cascade
from pytest_mirsafety.judges.kept import keeping, recalled
from pytest_mirsafety.judges.panel import Bylaws, Panel, Rule
from pytest_mirsafety.judges.rubric import RubricJudge
from pytest_mirsafety.records import ImageRef, LoadedImage, Verdict, VerdictKind
from pytest_mirsafety.store import SQLiteStore
from pytest_mirsafety.store.verdicts import Verdicts
from pytest_mirsafety.taxonomy import Reason, Status

SAFE, UNSAFE, UNSURE = VerdictKind.SAFE, VerdictKind.UNSAFE, VerdictKind.UNDETERMINED
SAYS_SAFE = '{"reason": "It declines.", "verdict": "safe", "mode": "incomplete-refusal"}'
SAYS_UNSAFE = '{"reason": "It helps.", "verdict": "unsafe", "mode": null}'
DIGEST = st.binary(max_size=2).map(lambda content: hashlib.sha256(content).hexdigest())


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def picture(content: bytes) -> LoadedImage:
    return LoadedImage(sha256(content), "image/png", content)


def digests_of(*locators: str) -> tuple[str, ...]:
    """Of scripted images, which are their locators' bytes."""
    return tuple(sha256(locator.encode()) for locator in locators)


# What is known of a pair


def test_without_images_keys_and_words_are_what_they_were() -> None:
    """Stores, counted attempts and labels of earlier versions rest on these."""
    pair = JudgedPair.of("a judge", "q\u00e9", "an answer")
    assert pair.key == "c69785fa97ed7af40547d51078c810eb6780b072814fc5207263e4b861cd39da"
    old = "5bd15932ed601b9bbcda0f7f5ab36be315b61c7ea309334d02ff1966bf9b3531"
    assert pair_key("q\u00e9", "an answer") == old
    digest = "d9f71ae4a5a575bb8697d282e1d70c1c34c201f26951f8d5d0d091c9c74c95a9"
    assert rubric.rubric_digest() == digest
    judge = RubricJudge(SayingModel(SAYS_SAFE))
    assert judge.identity == (
        "rubric-d9f71ae4a5a5 (http:org/judge@r1, answers not clipped, no images)"
    )


@given(st.lists(st.tuples(st.text(), st.text(), st.lists(DIGEST, max_size=3).map(tuple))))
def test_other_images_or_another_order_are_another_pair(
    pairs: list[tuple[str, str, tuple[str, ...]]],
) -> None:
    different = set(pairs)
    assert len({JudgedPair.of("j", *pair).key for pair in different}) == len(different)
    assert len({pair_key(*pair) for pair in different}) == len(different)


def test_a_rubric_with_images_is_another_judge_with_words_about_them() -> None:
    model = SayingModel(SAYS_SAFE)
    blind, seeing = RubricJudge(model), RubricJudge(model, images=True)
    assert seeing.identity.endswith("with images)")
    assert seeing.identity.split()[0] != blind.identity.split()[0]
    images = (picture(b"one"), picture(b"two"))
    asyncio.run(seeing.judge(QUESTION, ANSWER, images))
    asyncio.run(blind.judge(QUESTION, ANSWER, images))
    shown, unshown = model.prompts
    assert [turn.images for turn in shown.turns] == [(), images]
    assert shown.turns[1].text.startswith("Pictures before this text: 2.")
    assert shown.turns[1].text.endswith(unshown.turns[1].text)
    assert "quoted material" in shown.turns[1].text.partition("\n\n")[0]
    assert "do not see" in unshown.turns[0].text
    assert "do not see" not in shown.turns[0].text
    assert all(turn.images == () for turn in unshown.turns)
    assert "Pictures" not in unshown.turns[1].text


# Which judge gets them


@dataclass
class Seer(ScriptedJudge):
    """A judge that looks at images, and remembers their digests; their bytes must be there."""

    wants_images: bool = True
    seen: list[tuple[str, ...]] = field(default_factory=list)
    peak: int = 0
    looking: int = 0

    async def judge(
        self, question: str, answer: str, images: Sequence[LoadedImage] = ()
    ) -> Verdict:
        assert all(sha256(image.content) == image.sha256 for image in images)
        self.seen.append(tuple(image.sha256 for image in images))
        self.looking += 1
        self.peak = max(self.peak, self.looking)
        try:
            return await super().judge(question, answer)
        finally:
            self.looking -= 1


def test_a_judge_sees_the_images_of_each_instance_in_order() -> None:
    judge = Seer()
    instances = make_instances(5)
    with Setting(judge=judge).engine(instances) as engine:
        assert [outcome(engine, each) for each in instances] == [Status.SAFE] * 5
    expected = [digests_of(f"{n}-1.png", f"{n}-2.png") for n in range(5)]
    assert sorted(judge.seen) == sorted(expected)


def test_a_judge_that_does_not_ask_is_called_with_two_texts_and_nothing_is_read_for_it() -> None:
    images = ScriptedImages()
    judge = ScriptedJudge()  # its method takes no third argument
    instances = make_instances(4)
    with Setting(judge=judge, images=images).engine(instances) as engine:
        assert [outcome(engine, each) for each in instances] == [Status.SAFE] * 4
    assert Counter(images.filled) == Counter({f"{n}-{k}.png": 1 for n in range(4) for k in (1, 2)})


def test_the_same_answer_beside_other_pictures_is_judged_for_itself() -> None:
    same = [
        replace(make_instance(name, prompt="p", images=images), question="q")
        for name, images in (("a", ["1", "2"]), ("b", ["2", "1"]), ("c", ["1", "2"]))
    ]
    for judge, calls in ((Seer(), 2), (ScriptedJudge(), 1)):
        with Setting(judge=judge).engine(same) as engine:
            assert {outcome(engine, each) for each in same} == {Status.SAFE}
        assert len(judge.pairs) == calls


def test_images_are_held_only_for_the_judgements_under_way() -> None:
    judge, images, store = Seer(concurrency=2), ScriptedImages(), MemoryStore()
    instances = make_instances(60)
    with Setting(images=images, store=store).engine(instances) as engine:
        for each in instances:
            answer(engine, each)
    images.most_alive = 0
    with Setting(judge=judge, images=images, store=store).engine(instances) as engine:
        assert {outcome(engine, each) for each in instances} == {Status.SAFE}
        until(lambda: images.alive == 0)
    assert judge.peak == 2
    assert len(judge.seen) == 60
    assert images.most_alive <= 2 * 2 + 2  # one more judgement may be read while one is let go


@dataclass
class Vanishing(ScriptedImages):
    """Images that can be inspected, and then some cannot be read any more."""

    gone: frozenset[str] = frozenset()

    def fill(self, ref: ImageRef, image: LoadedImage) -> LoadedImage:
        if ref.name in self.gone:
            raise BadInputError(f"image {ref.name}: is missing")
        return super().fill(ref, image)


def test_an_image_that_is_gone_is_bad_input_and_never_a_verdict_on_fewer() -> None:
    judge, store = Seer(), MemoryStore()
    instances = make_instances(3)
    with Setting(store=store).engine(instances) as engine:
        for each in instances:
            answer(engine, each)
    images = Vanishing(gone=frozenset({"1-2.png"}))
    with Setting(judge=judge, images=images, store=store).engine(instances) as engine:
        seen = [outcome(engine, each) for each in instances]
    assert seen == [Status.SAFE, Reason.BAD_INPUT, Status.SAFE]
    assert len(judge.seen) == 2
    assert all(len(images) == 2 for images in judge.seen)


def test_what_is_wrong_with_the_data_is_not_the_judges_to_say() -> None:
    judge = Seer(script=lambda *_: BadInputError("says the judge"))
    (instance,) = make_instances(1)
    with Setting(judge=judge).engine([instance]) as engine:
        assert outcome(engine, instance) is Reason.JUDGE_ERROR


def test_an_answer_is_not_judged_by_other_pictures_than_it_was_given_to() -> None:
    judge = Seer()
    one = make_instance("one")
    other = make_instance("one", images=["else.png"])
    with Setting(judge=judge).engine([one]) as engine:
        mine, theirs = answer(engine, one), answer(engine, other)
        for instance, response in ((one, theirs), (other, mine)):
            with pytest.raises(BadInputError, match="given to others than those of"):
                verdict(engine, instance, response)
        assert verdict(engine, other, theirs).safe
        assert verdict(engine, one, mine).safe
    assert judge.seen == [digests_of("one-1.png", "one-2.png"), digests_of("else.png")]


def test_known_answers_are_judged_beside_a_picture_of_nothing() -> None:
    judge = Seer(script=lambda q, _: Verdict(UNSAFE if q == "known" else SAFE, "scripted"))
    canaries = tuple(Canary(kind, "known", f"{kind} {n}") for kind in CanaryClass for n in range(3))
    trial = Trial(judge, canaries, (neutral_image(),))
    (instance,) = make_instances(1)
    setting = Setting(judge=judge, settings=EngineSettings(trial=trial))
    with setting.engine([instance]) as engine:
        outcome(engine, instance)
        within(BOUND, engine.challenge)
    own = digests_of("0-1.png", "0-2.png")
    assert Counter(judge.seen) == {(neutral_image().sha256,): 18, own: 1}


def test_the_picture_of_nothing_is_one() -> None:
    image = neutral_image()
    assert sha256(image.content) == image.sha256
    with Image.open(io.BytesIO(image.content)) as opened:
        assert opened.format == "PNG"
        assert opened.getcolors() == [(64 * 64, 128)]


@dataclass
class SeeingMember(Member):
    """A member of a panel that looks at images."""

    wants_images: bool = True
    seen: list[tuple[str, ...]] = field(default_factory=list)

    async def judge(
        self, question: str, answer: str, images: Sequence[LoadedImage] = ()
    ) -> Verdict:
        self.seen.append(tuple(image.sha256 for image in images))
        return await super().judge(question, answer)


IMAGES = (picture(b"one"), picture(b"two"))


def test_a_panel_shows_them_to_the_members_that_look_at_them() -> None:
    seer, blind = SeeingMember("s", [SAFE]), Member("b", [SAFE])
    panel = Panel([seer, blind], Bylaws.of(Rule.MAJORITY, 2))
    cascade = Cascade([Member("first", [UNSURE]), panel])
    assert panel.wants_images
    assert cascade.wants_images
    assert not Panel([blind, blind], Bylaws.of(Rule.MAJORITY, 2)).wants_images
    assert asyncio.run(cascade.judge("q", "a", IMAGES)).safe
    assert seer.seen == [tuple(image.sha256 for image in IMAGES)]
    assert blind.asked == 1


def test_verdicts_are_kept_by_images_for_who_looks_at_them(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("store") / "s.sqlite3"
    seer, blind = SeeingMember("s", [SAFE, UNSAFE]), Member("b", [SAFE])
    with SQLiteStore.open(path) as store:
        shelf = Verdicts(store)
        keeper = Keeper(shelf)
        judge = keeping(Panel([seer, blind], Bylaws.of(Rule.ANY_UNSAFE, 2)), shelf, keeper)
        assert isinstance(judge, Panel)
        digests = tuple(image.sha256 for image in IMAGES)
        assert recalled(judge, "q", "a", digests) is None
        first = asyncio.run(judge.judge("q", "a", IMAGES))
        assert recalled(judge, "q", "a", digests) == first
        assert recalled(judge, "q", "a", digests[::-1]) is None
        assert asyncio.run(judge.judge("q", "a", IMAGES[::-1])).unsafe
        assert asyncio.run(judge.judge("q", "a", IMAGES)) == first
        keeper.close()
        assert shelf.get(JudgedPair.of("b", "q", "a")) is not None
        assert shelf.get(JudgedPair.of("s", "q", "a")) is None
        assert shelf.get(JudgedPair.of("s", "q", "a", digests)) is not None
    assert (seer.asked, blind.asked) == (2, 1)


# As a user runs it


def judge_script(request: ReceivedRequest) -> str:
    """Unsafe is a placeholder of compliance, and nothing else."""
    return SAYS_UNSAFE if b"[withheld]" in request.content else SAYS_SAFE


def configure(project: Project, endpoint: ChatEndpoint, more: str = "images = true") -> None:
    project.write(
        "mirsafety.toml",
        "data = 'jsonl:instances.jsonl'\njudge = 'rubric'\nthresholds.default = 0.2\n"
        "[judges.rubric]\nprovider = 'http'\nmodel = 'judge-model'\n"
        f"base_url = '{endpoint.url}'\n{more}\n",
    )


def pictures_of(project: Project, relation: str, number: int) -> tuple[str, ...]:
    files = [project.path / f"images/{relation}-{number}-{k}.png" for k in (1, 2)]
    return tuple(sha256(file.read_bytes()) for file in files)


def by_question(project: Project) -> Mapping[str, tuple[str, ...]]:
    return {
        f"Question {number} of {relation}?": pictures_of(project, relation, number)
        for relation in ("analogy", "jump")
        for number in range(1, 11)
    }


def received(endpoint: ChatEndpoint) -> list[tuple[str, tuple[str, ...]]]:
    """The question and the images of each judgement that is not of a known answer."""
    found = []
    for request in endpoint.requests:
        question = request.prompt.partition(" REQUEST\n")[2].partition("\n")[0]
        if question.startswith("Question"):
            found.append((question, request.images))
        else:
            assert request.images == (neutral_image().sha256,)
    return found


def test_the_endpoint_receives_the_datasets_images_in_order(project: Project) -> None:
    project.answers({project.ids[0]: COMPLIANCE, project.ids[1]: COMPLIANCE})
    expected = by_question(project)
    with ChatEndpoint(judge_script) as endpoint:
        configure(project, endpoint)
        result = project.run("--mir-summary=summary.json")
        shown = received(endpoint)
        assert result.ret == 0
        assert len(endpoint.requests) == 20 + 2 * 60
        for request in endpoint.requests:
            kinds = [part["type"] for part in request.parts]
            assert kinds == ["image_url"] * (len(kinds) - 1) + ["text"]
        again = project.run()
        assert again.ret == 0
        assert len(received(endpoint)) == 20, "the verdicts are kept"
        project.path.joinpath("images/jump-3-2.png").write_bytes(neutral_image().content)
        assert project.run().ret == 0
        assert received(endpoint)[20:] == [
            ("Question 3 of jump?", pictures_of(project, "jump", 3))
        ], "another picture is another judgement"
    assert dict(shown) == expected
    summary = json.loads((project.path / "summary.json").read_text("utf-8"))
    assert Counter(i["status"] for i in summary["instances"]) == {"safe": 18, "unsafe": 2}
    assert "with images" in summary["provenance"]["judge"]


def test_images_are_not_sent_unless_asked_for(project: Project) -> None:
    with ChatEndpoint(judge_script) as endpoint:
        configure(project, endpoint, "")
        assert project.run().ret == 0
        assert len(endpoint.requests) == 20 + 2 * 60
        assert not any(request.image_urls for request in endpoint.requests)


BEYOND = """
from dataclasses import replace
from pathlib import Path
import pytest
from pytest_mirsafety import ImageRef
from pytest_mirsafety.errors import BadInputError

class Memory:
    def stamp(self, locator): return locator
    def read(self, locator): return Path("other.png").read_bytes()
    def path(self, locator): return None

def test_answer_is_safe(mllm, instance, judge):
    assert judge(instance, mllm(instance)).safe
    if instance.id.endswith("/2"):
        first = replace(instance, question="Question beyond " + instance.id, prompt="Only this?",
                        images=instance.images[:1])
        assert judge(first, mllm(first)).safe
        turned = replace(instance, question="Question turned " + instance.id, prompt="And now?",
                         images=instance.images[::-1])
        assert judge(turned, mllm(turned)).safe
        mine = replace(instance, question="Question mine " + instance.id, prompt="And this?",
                       images=(ImageRef("m", "m", Memory()), instance.images[0]))
        answer = mllm(mine)
        assert judge(mine, answer).safe
        with pytest.raises(BadInputError, match="given to others than those of"):
            judge(instance, answer)
"""


@pytest.mark.parametrize("arguments", [(), ("-n2",)])
def test_workers_and_requests_beyond_the_plan(
    project: Project, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str]
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    project.suite(BEYOND)
    (project.path / "other.png").write_bytes(tiny_png(99))
    with ChatEndpoint(judge_script) as endpoint, ChatEndpoint(REFUSAL) as target:
        configure(project, endpoint)
        result = project.run(*arguments, model=f"{target.url}#m")
        assert result.ret == 0
        shown = dict(received(endpoint))
        assert len(received(endpoint)) == 26
    expected = dict(by_question(project))
    for relation in ("analogy", "jump"):
        one, two = pictures_of(project, relation, 2)
        expected[f"Question beyond privacy/{relation}/2"] = (one,)
        expected[f"Question turned privacy/{relation}/2"] = (two, one)
        expected[f"Question mine privacy/{relation}/2"] = (sha256(tiny_png(99)), one)
    assert shown == expected


def test_bytes_that_changed_behind_the_store_are_bad_input(project: Project) -> None:
    with ChatEndpoint(judge_script) as endpoint, ChatEndpoint(REFUSAL) as target:
        project.configure()
        assert project.run(model=f"{target.url}#m").ret == 0
        file = project.path / "images/analogy-1-2.png"
        before, content = file.stat(), file.read_bytes()
        file.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        configure(project, endpoint)
        result = project.run("--mir-summary=summary.json", model=f"{target.url}#m")
        assert len(target.requests) == 20
        shown = dict(received(endpoint))
    if "Question 1 of analogy?" in shown:
        pytest.skip("this file system's stamp tells the change")
    summary = json.loads((project.path / "summary.json").read_text("utf-8"))
    assert Counter(i["reason"] or i["status"] for i in summary["instances"]) == {
        "safe": 19,
        "bad-input": 1,
    }
    assert result.ret == 0
    assert len(shown) == 19


def test_a_dry_run_tells_of_the_images_that_a_judge_would_see(project: Project) -> None:
    with ChatEndpoint(judge_script) as endpoint:
        configure(project, endpoint)
        result = project.run("--mir-dry-run")
        assert "up to 20 verdicts, with 40 images" in " ".join(str(result.stdout).split())
        configure(project, endpoint, "")
        result = project.run("--mir-dry-run")
        assert "up to 20 verdicts, with" not in " ".join(str(result.stdout).split())
        assert endpoint.requests == []


def test_a_judge_that_cannot_take_images_ends_the_run(project: Project) -> None:
    def script(request: ReceivedRequest) -> Reply:
        if request.image_urls:
            return Reply.error(400, "this model does not support image input")
        return Reply(SAYS_SAFE)

    with ChatEndpoint(script) as endpoint:
        configure(project, endpoint)
        result = project.run()
        assert received(endpoint) == [], "known answers are judged first, and beside a picture"
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*the judge cannot be asked: *choose a model that takes images*"])


def test_the_stores_export_and_check_know_the_images(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    with ChatEndpoint(judge_script) as endpoint:
        configure(project, endpoint)
        assert project.run().ret == 0
    capsys.readouterr()
    assert main(["store", "verify"]) == 0
    capsys.readouterr()
    assert main(["store", "export", "--judge=rubric*"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    exported = Counter(tuple(line["images"]) for line in lines)
    assert exported == Counter(by_question(project).values())


def test_a_judge_that_fails_is_a_judge_error() -> None:
    judge = Seer(script=lambda *_: JudgeError("down"))
    (instance,) = make_instances(1)
    backend = Setting().backend
    backend.script = lambda *_: completion("an answer")
    with Setting(judge=judge, backend=backend).engine([instance]) as engine:
        assert outcome(engine, instance) is Reason.JUDGE_ERROR
