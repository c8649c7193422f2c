"""From tables of arms to defences: each guard once, within its limits, and where it may run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_mirsafety.arm_planning import ArmPlan, choose, own_arms, safety_prompt
from pytest_mirsafety.config import Configuration, ModelSettings, load_text
from pytest_mirsafety.defence_building import notes, residents, with_defences
from pytest_mirsafety.defences.safety_prompt import SAFETY_PROMPT
from pytest_mirsafety.engine.pacing import Pace
from pytest_mirsafety.errors import ConfigurationError
from pytest_mirsafety.gates import Thresholds
from pytest_mirsafety.judges.rules import RulesJudge
from pytest_mirsafety.phases import Resident
from pytest_mirsafety.phases import choose as choose_phases
from pytest_mirsafety.records import Instance
from pytest_mirsafety.taxonomy import Category, Relation
from pytest_mirsafety.trust import Leaf, TrustedJudge

HTTP = "provider = 'http'\nmodel = 'm'\nbase_url = 'http://127.0.0.1:9/v1'\n"
TEXT = f"""
arm = ["benign-twin", "a", "b", "c", "careful"]
[judges.llamaguard]
{HTTP}
concurrency = 3
max_retries = 1
[judges.strict]
kind = "rubric"
{HTTP}
concurrency = 5
requests_per_minute = 60
[arms.a]
before = "llamaguard"
[arms.b]
before = "llamaguard"
look = "both"
[arms.c]
before = "llamaguard"
after = "strict"
[arms.careful]
safety_prompt = true
system = "Be kind."
"""


def configured(text: str = TEXT) -> Configuration:
    return Configuration(load_text(text, "x"), Path())


def planned(configuration: Configuration) -> ArmPlan:
    settings = configuration.settings
    own = own_arms(settings.arms, lambda _: pytest.fail("no function"))
    plan = choose(None, settings, None, Thresholds(), own)
    return with_defences(plan, configuration, {}, asks=False)


def pace_of(plan: ArmPlan, arm: str) -> Pace:
    pace = plan.defences[arm].pace
    assert isinstance(pace, Pace)
    return pace


def test_twins_have_the_defence_of_their_arm_and_no_other_arm_has_one() -> None:
    plan = planned(configured())
    assert set(plan.defences) == {"a", "b", "c", "a-twin", "b-twin", "c-twin"}
    for arm in "abc":
        assert plan.defences[f"{arm}-twin"] is plan.defences[arm]
    assert {arm.name for arm in plan.planned} > {"careful-twin"}
    assert len({own.defence.identity for own in plan.defences.values()}) == 3


def test_who_asks_the_same_shares_its_pace_which_is_the_narrowest() -> None:
    plan = planned(configured())
    assert pace_of(plan, "a") is pace_of(plan, "b") is not pace_of(plan, "c")
    assert (pace_of(plan, "a").limit, pace_of(plan, "c").limit) == (3, 3)
    started = [pace_of(plan, "c").started(1) for _ in range(60)]
    assert len(started) == 60
    assert pace_of(plan, "c").delay(1) > 0
    assert pace_of(plan, "a").delay(1) == 0


def test_the_safety_prompt_comes_after_the_system_prompt_of_the_arm_or_the_model() -> None:
    one = Instance("x", Relation.JUMP, Category.PRIVACY, "q?", "p?", ())
    arms = own_arms(configured().settings.arms, lambda _: pytest.fail("none"), "Be brief.")
    assert arms["careful"].of(one).system == f"Be kind.\n\n{SAFETY_PROMPT}"
    assert arms["a"].of(one).system is None
    assert safety_prompt("Be brief.").of(one).system == f"Be brief.\n\n{SAFETY_PROMPT}"
    assert safety_prompt(None).of(one).system == SAFETY_PROMPT


def test_another_guard_is_another_arm_for_who_compares_runs() -> None:
    from pytest_mirsafety.records import Dataset

    one = Instance("x", Relation.JUMP, Category.PRIVACY, "q?", "p?", ())
    dataset = Dataset("d", None, "0" * 64, (one,))
    text = TEXT.replace('"benign-twin", ', "")
    first, other = (
        {design.name: design.identity for design in planned(configured(each)).designs(dataset)}
        for each in (text, text.replace("[arms.a]", "[arms.a]\nrefusal = 'No.'"))
    )
    assert {name for name in first if first[name] != other[name]} == {"a"}


@dataclass
class Freeable:
    async def free(self) -> None: ...


def phases(guard: str, wish: str, model: str = "vllm") -> bool:
    """Whether there are two phases, of a model here and a guard of this provider."""
    text = TEXT.replace(f'kind = "rubric"\n{HTTP}', f"kind = 'llamaguard'\n{guard}")
    configuration = configured(text)
    plan = planned(configured())  # nothing is installed here that could load a guard
    settings = ModelSettings(provider=model, model="org/model", revision="0" * 40)
    leaf = Leaf("rules", load_text("[judges.rules]", "x").judges["rules"], RulesJudge())
    return choose_phases(
        wish,  # type: ignore[arg-type]
        Resident("model", settings, Path()),
        [leaf],
        Freeable(),  # type: ignore[arg-type]
        Path(),
        {"CUDA_VISIBLE_DEVICES": ""},
        residents(plan, configuration),
    ).two


HERE = "provider = 'vllm'\nmodel = 'org/guard'\nrevision = '" + "1" * 40 + "'\n"
SERVED = "provider = 'vllm'\nmodel = 'm'\nbase_url = 'http://127.0.0.1:9/v1'\n"


def test_a_guard_that_runs_here_works_beside_the_model_or_not_at_all() -> None:
    assert phases(SERVED, "two")
    assert not phases(SERVED, "auto")
    assert not phases(HERE, "together")
    for wish in ("two", "auto"):  # whose sizes nobody knows here
        with pytest.raises(
            ConfigurationError, match="guard 'strict' would run here beside the mod"
        ):
            phases(HERE, wish)


def test_a_judge_that_guards_is_told_of_and_never_started_twice() -> None:
    configuration = configured()
    plan = planned(configuration)
    own = configuration.settings.judges["llamaguard"]
    judge = RulesJudge()
    trusted = TrustedJudge(judge, own, (Leaf("llamaguard", own, judge),))
    told = notes(plan, trusted, configuration.settings)
    assert [line.split(" (")[0] for line in told[:3]] == [
        f"arm '{arm}' is defended by guards" for arm in "abc"
    ]
    assert told[3].startswith("'llamaguard' judges and guards")
    served = own.model_copy(update={"provider": "vllm", "base_url": None})
    trusted = TrustedJudge(judge, served, (Leaf("llamaguard", served, judge),))
    with pytest.raises(ConfigurationError, match="would be started twice"):
        notes(plan, trusted, configuration.settings)
