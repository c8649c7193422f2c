"""Arms as values: ids, the built-in ones, which are planned and asked, and what shares answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from decimal import Decimal
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import make_instance

from pytest_mirsafety import arms, data
from pytest_mirsafety.arm_planning import ArmPlan, choose, own_arms
from pytest_mirsafety.arms import BUILT_IN, METAMORPHIC, Arm, ArmKind, check_name, kind_of
from pytest_mirsafety.config import Settings, load_text
from pytest_mirsafety.data.files import FileImages
from pytest_mirsafety.errors import ConfigurationError
from pytest_mirsafety.evaluation import gather
from pytest_mirsafety.gates import (
    Criterion,
    Decision,
    Estimand,
    Rules,
    Scope,
    Thresholds,
    criteria,
    decide,
    exit_code,
)
from pytest_mirsafety.records import (
    MULTI,
    Dataset,
    ImageRef,
    Instance,
    Outcome,
    arm_id,
    item_id,
    origin_id,
)
from pytest_mirsafety.results import ArmDesign, GateDesign, InstanceOutcome, RunDesign
from pytest_mirsafety.stats import joined
from pytest_mirsafety.taxonomy import Category, Reason, Relation, Status
from pytest_mirsafety.trials import Trials, draws

NAMES = st.from_regex(arms.NAME, fullmatch=True).filter(lambda name: len(name) <= arms.LONGEST)
IDS = st.from_regex(r"[A-Za-z0-9._/-]{1,20}", fullmatch=True)


@pytest.fixture(scope="module")
def sample() -> tuple[Instance, ...]:
    return data.load("sample", base=Path()).instances


@given(origin=IDS, arm=st.just(MULTI) | NAMES, draw=st.integers(0, 20))
def test_an_id_tells_the_arm_the_draw_and_the_instance(origin: str, arm: str, draw: int) -> None:
    base = Instance(arm_id(origin, arm), Relation.JUMP, Category.PRIVACY, "q", "p", (), arm=arm)
    one = draws([base], Trials(21))[draw]
    assert (one.origin, one.draw, one.arm) == (origin, draw, arm)
    assert one.item == base.id == item_id(one.id)[0]
    assert origin_id(one.id) == origin
    assert (one.id == origin) is (arm == MULTI and not draw)


@given(name=NAMES)
def test_a_name_tells_the_kind_of_its_arm(name: str) -> None:
    try:
        assert check_name(name) == name
    except ValueError:
        assert name in (MULTI, *BUILT_IN) or kind_of(name) is ArmKind.TWIN
    else:
        assert kind_of(name) is ArmKind.SAFETY


def test_the_built_in_arms_are_of_their_kinds(sample: tuple[Instance, ...]) -> None:
    assert {name: arm.kind for name, arm in BUILT_IN.items()} == {n: kind_of(n) for n in BUILT_IN}
    one = sample[0]
    text_only = BUILT_IN["text-only"].of(one)
    assert (text_only.prompt, text_only.images) == (one.question, ())
    single = BUILT_IN["single-image"].of(one)
    assert (single.prompt, single.images, single.composed) == (one.prompt, one.images, True)


@given(
    prompt=st.text(min_size=1).filter(str.strip),
    system=st.none() | st.text(),
    composed=st.booleans(),
    reverse=st.booleans(),
)
def test_an_arm_changes_what_is_asked_and_nothing_that_a_gate_looks_at(
    prompt: str, system: str | None, composed: bool, reverse: bool
) -> None:
    one = Instance("a/b", Relation.JUMP, Category.PRIVACY, "q", "p", ())

    def make(instance: Instance) -> Instance:
        other = replace(instance, relation=Relation.ANALOGY, question="?", id="x", draw=7)
        return replace(other, prompt=prompt, system=system, composed=composed)

    made = Arm("mine", ArmKind.SAFETY, "", make).of(one)
    assert made == replace(
        one, id="a/b@mine", arm="mine", prompt=prompt, system=system, composed=composed
    )
    assert made.seed == one.seed


def test_a_template_may_hold_braces_and_so_may_a_prompt() -> None:
    settings = load_text(
        "[arms.mine]\nprompt = '{prompt} {question} {other} {'\nimages = 'reversed'", "x"
    )
    one = Instance("a", Relation.JUMP, Category.PRIVACY, "{prompt}?", "{question}!", ())
    (arm,) = own_arms(settings.arms, lambda _: pytest.fail("no function")).values()
    assert arm.of(one).prompt == "{question}! {prompt}? {other} {"
    assert not arm.defends


def chosen(
    option: str | None = None,
    configured: list[str] | None = None,
    of_model: list[str] | None = None,
    **thresholds: object,
) -> tuple[list[str], set[str]]:
    settings = Settings(arm=configured)
    own = {
        "warned": Arm("warned", ArmKind.SAFETY, "", lambda one: one, defends=True),
        "kind": Arm("kind", ArmKind.SAFETY, "", lambda one: one),
    }
    plan = choose(option, settings, of_model, Thresholds(**thresholds), own)  # type: ignore[arg-type]
    return [arm.name for arm in plan.planned], set(plan.asked)


def dataset_of(instances: Iterable[Instance]) -> Dataset:
    return Dataset("", None, "", tuple(instances))


def test_what_an_arm_makes_of_an_instance_is_made_once(sample: tuple[Instance, ...]) -> None:
    made = count()

    def odd(one: Instance) -> Instance:
        return replace(one, prompt=f"{one.prompt} {next(made)}")

    some = sample[:3]
    plan = ArmPlan((Arm("odd", ArmKind.SAFETY, "", odd),))
    first = plan.of(some, (), ())
    (design,) = plan.designs(dataset_of(some))
    later = replace(plan, asked=frozenset({"odd"}))
    assert later.of(some, (), ()) == first
    assert later.designs(dataset_of(some)) == (design,)
    assert next(made) == len(some)
    # Another instance of the same id is another one.
    other = replace(some[0], prompt="Another.")
    assert later.of([other], (), ())[1].prompt.startswith("Another. ")


@pytest.fixture
def pictured(tmp_path: Path) -> Callable[[str], Instance]:
    """An instance whose images are files, in this folder; a folder `twice` has others."""

    def make(folder: str) -> Instance:
        (tmp_path / folder / "more").mkdir(parents=True)
        for name in ("1.png", "2.png", "more/1.png"):
            text = name if folder != "twice" else f"another {name}"
            (tmp_path / folder / name).write_text(text, encoding="utf-8")
        source = FileImages(tmp_path / folder)
        images = tuple(ImageRef(name, name, source) for name in ("1.png", "2.png"))
        return replace(make_instance("a"), images=images)

    return make


def identity(one: Instance, change: Callable[[ImageRef], ImageRef]) -> str:
    def make(of: Instance) -> Instance:
        return replace(of, images=tuple(map(change, of.images)))

    plan = ArmPlan((Arm("mine", ArmKind.SAFETY, "", make),))
    return plan.designs(dataset_of([one]))[0].identity


def test_other_images_make_another_arm(pictured: Callable[[str], Instance], tmp_path: Path) -> None:
    one, again, twice = map(pictured, ("once", "again", "twice"))

    def at(folder: str) -> Callable[[ImageRef], ImageRef]:
        return lambda image: replace(image, locator=str(tmp_path / folder / "1.png"))

    def outside(folder: str) -> Callable[[ImageRef], ImageRef]:
        source = FileImages(tmp_path / folder)
        return lambda image: replace(image, source=source)

    def declared(digit: str) -> Callable[[ImageRef], ImageRef]:
        return lambda image: replace(image, sha256=digit * 64)

    def more(image: ImageRef) -> ImageRef:
        return replace(image, locator=f"more/{image.name}")

    def lost(image: ImageRef) -> ImageRef:
        return replace(image, locator=str(tmp_path / "nowhere.png"))

    plain = identity(one, lambda image: image)
    # The same data elsewhere are the same arm.
    for change in (lambda image: image, more, declared("a"), lost):
        assert identity(one, change) == identity(again, change)
    assert identity(one, at("once")) == identity(again, at("again"))
    assert identity(one, outside("again")) == identity(again, outside("once"))
    assert identity(one, outside("again")) != identity(one, outside("twice"))
    assert identity(one, at("once")) != identity(twice, at("twice"))
    ways = [more, declared("a"), declared("b"), lost, at("once"), outside("twice")]
    assert len({plain, *(identity(one, way) for way in ways)}) == 1 + len(ways)


LIMIT = Decimal("0.1")


def test_which_arms_are_planned_and_which_are_asked() -> None:
    assert chosen() == ([], {"multi"})
    assert chosen(configured=["multi", "kind"]) == (["kind"], {"multi", "kind"})
    assert chosen(of_model=["multi", "text-only"]) == (["text-only"], {"multi", "text-only"})
    assert chosen(configured=["multi"], of_model=["text-only"]) == ([], {"multi"})
    # What a threshold names is asked, unless somebody said what is.
    assert chosen(over_refusal=LIMIT) == (["benign-twin"], {"multi", "benign-twin"})
    assert chosen(configured=["multi"], over_refusal=LIMIT) == (["benign-twin"], {"multi"})
    # The option asks these and leaves the others planned.
    assert chosen("text-only", ["multi", "kind"]) == (["kind", "text-only"], {"text-only"})
    # A defence is asked about what is harmless too.
    both = chosen("multi, warned ,benign-twin")
    assert both == (
        ["warned", "benign-twin", "warned-twin"],
        {"multi", "warned", "benign-twin", "warned-twin"},
    )
    assert chosen("warned") == (["warned"], {"warned"})
    gated = chosen(arms={"warned": Thresholds(over_refusal=LIMIT)})
    assert gated[0] == ["warned", "benign-twin", "warned-twin"]


@pytest.mark.parametrize("option", ["", ",", "warned-twin", "Kind", "multi;kind"])
def test_an_arm_that_is_none_is_refused(option: str) -> None:
    with pytest.raises(ConfigurationError, match="--mir-arm: unknown arm"):
        chosen(option)


def test_gates_of_arms_cover_their_arm_alone() -> None:
    thresholds = Thresholds(
        default=LIMIT,
        over_refusal=LIMIT,
        arms={"warned": Thresholds(overall=LIMIT, over_refusal=LIMIT)},
    )
    gates = {one.label: one for one in criteria(thresholds)}
    assert list(gates)[9:] == ["over-refusal", "overall@warned", "over-refusal@warned-twin"]
    for arm in ("multi", "warned", "benign-twin", "warned-twin"):
        like = Instance("x", Relation.JUMP, Category.PRIVACY, "q", "p", (), arm=arm)
        covering = [label for label, one in gates.items() if one.covers(like)]
        expected = {"multi": "jump", "warned": "overall@warned", "benign-twin": "over-refusal"}
        assert covering == [expected.get(arm, "over-refusal@warned-twin")]


@pytest.mark.parametrize(
    ("scope", "name", "arm"),
    [
        (Scope.OVER_REFUSAL, "over-refusal", "multi"),
        (Scope.OVERALL, "overall", "benign-twin"),
        (Scope.MODE, "correct-refusal", "text-only"),
    ],
)
def test_a_gate_that_no_arm_has_cannot_be(scope: Scope, name: str, arm: str) -> None:
    with pytest.raises(ValueError, match="arm"):
        Criterion(scope, name, LIMIT, arm)


def test_answers_that_an_arm_shares_are_one_cluster_for_each_seed() -> None:
    rules = Rules(Estimand.MODEL)
    one = ArmDesign("text-only", ArmKind.SAFETY, "", "", dict.fromkeys(Relation, 1), shared=True)
    other = replace(one, name="single-image", shared=False)
    design = RunDesign((), rules, {}, arms=(one, other))
    members = [("a", "s", "1"), ("b", "s", "2"), ("c", "t", "3"), ("d", "u", "3"), ("e", "v", "4")]
    assert sorted(design.clusters(members, "text-only")) == [1, 2, 2]
    assert design.clusters(members, "single-image") == ()
    assert design.clusters(members) == ()
    exact = replace(design, rules=Rules(Estimand.ANSWERS))
    assert exact.clusters(members, "text-only") == ()


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(10, 16)), max_size=20))
def test_groups_are_joined_whatever_the_order(marks: list[tuple[int, int]]) -> None:
    sizes = sorted(joined(marks))
    assert sorted(joined(reversed(marks))) == sizes
    assert sum(sizes) == len(marks)
    assert len(sizes) <= min(len({a for a, _ in marks}), len({b for _, b in marks}))


def test_gates_on_twins_alone_give_no_zero() -> None:
    assert exit_code([], require_all=False, tests_failed=False) == 10


@pytest.mark.parametrize("estimand", Estimand)
def test_searches_of_one_seed_question_are_one_cluster(estimand: Estimand) -> None:
    arm = ArmDesign(METAMORPHIC, ArmKind.SEARCH, "", "", {Relation.JUMP: 40})
    criterion = Criterion(Scope.OVERALL, "overall", Decimal("0.1"), METAMORPHIC)
    gate = GateDesign(criterion, 40)
    design = RunDesign((gate,), Rules(estimand), {Relation.JUMP: 40}, arms=(arm,))
    held, before = Outcome(Status.SAFE), Outcome(Status.UNSCORED, Reason.UNSAFE_BEFORE)

    def found(questions: int) -> Decision:
        entries = [
            InstanceOutcome(
                f"jump/{n}@{METAMORPHIC}",
                Relation.JUMP,
                Category.PRIVACY,
                f"seed {n % questions}",
                before if n < 4 else held,
                arm=METAMORPHIC,
            )
            for n in range(40)
        ]
        return decide(gather(gate, entries, design), design.rules).decision

    assert found(40) is Decision.PASS
    assert found(4) is Decision.INCONCLUSIVE
