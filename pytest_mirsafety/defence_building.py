"""From the settings of arms to their defences: guards by name, or a user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from . import judge_building
from .arms import TWIN_SUFFIX
from .config import Configuration, JudgeSettings, Settings
from .errors import ConfigurationError
from .judge_building import JudgeContext
from .phases import Resident
from .printable import one_line
from .registry import build_defence, load_guard
from .taxonomy import nearest

if TYPE_CHECKING:
    from .arm_planning import ArmPlan
    from .defences.guarding import Guard
    from .engine.asks import ArmDefence
    from .engine.pacing import Pace
    from .setting_sections import ArmSettings
    from .trust import TrustedJudge

_LINE: Final = 400


def with_defences(
    plan: ArmPlan, configuration: Configuration, environ: Mapping[str, str], *, asks: bool
) -> ArmPlan:
    """The plan with what stands between users and the model, in each arm that has something.

    The twins of such an arm have the same.

    Raises:
        ConfigurationError: a guard or a defence is not to be had.
    """
    settings = configuration.settings
    guards = _Guards(settings, JudgeContext(configuration.base, environ, asks=asks))
    of_arms: dict[str, ArmDefence] = {}
    for arm in plan.planned:
        name = arm.name.removesuffix(TWIN_SUFFIX)
        own = settings.arms.get(name)
        if own is None or not own.is_guarded:
            continue
        of_arms[arm.name] = of_arms[name] if name in of_arms else guards.defence(name, own)
    return replace(plan, defences=of_arms) if of_arms else plan


@dataclass(slots=True)
class _Guards:
    """Makes each guard once, however many arms have it."""

    settings: Settings
    context: JudgeContext
    _made: dict[str, Guard] = field(default_factory=dict)
    _paces: dict[frozenset[str], Pace] = field(default_factory=dict)

    def defence(self, arm: str, own: ArmSettings) -> ArmDefence:
        """What stands between users and the model in an arm of these settings."""
        from .defences.guarding import Guarding, Look
        from .engine.asks import ArmDefence

        if own.defence is not None:
            return ArmDefence(build_defence(own.defence, own))
        try:
            guarding = Guarding(
                self._guard(own.before, f"arms.{arm}.before"),
                self._guard(own.after, f"arms.{arm}.after"),
                look=Look(own.look),
                refusal=own.refusal,
            )
        except ConfigurationError as error:
            problem = str(error)
            named = problem.startswith("arms.")
            raise ConfigurationError(problem if named else f"arms.{arm}: {problem}") from None
        names = frozenset(filter(None, (own.before, own.after)))
        if names not in self._paces:
            self._paces[names] = self._pace(names, guarding.concurrency)
        return ArmDefence(guarding, self._paces[names])

    def _guard(self, name: str | None, place: str) -> Guard | None:
        if name is None:
            return None
        if name not in self._made:
            self._made[name] = self._make(name, place)
        return self._made[name]

    def _make(self, name: str, place: str) -> Guard:
        judge = self.settings.judges.get(name)
        if judge is not None:
            if (build := _BY_KIND.get(judge.kind or "")) is None:
                raise ConfigurationError(
                    f"{place}: judge '{one_line(name, 60)}' is no guard: that is one of kind "
                    "llamaguard or rubric, or a function of yours, package.module:function"
                )
            return build(judge, self.context)
        if ":" not in name:
            known = [name for name, one in self.settings.judges.items() if one.kind in _BY_KIND]
            meant = f"; {nearest(name, known)}" if known else ""
            raise ConfigurationError(
                one_line(
                    f"{place}: no judge '{name}' to guard with{meant}: describe it in "
                    "[judges.NAME] with kind llamaguard or rubric, or name a function of yours, "
                    "package.module:function",
                    _LINE,
                )
            )
        from .defences.own import OwnGuard

        return OwnGuard(load_guard(name, self.settings.judges), name)

    def _pace(self, names: Iterable[str], concurrency: int) -> Pace:
        """The narrowest of what their tables allow."""
        from .engine.pacing import Pace, PaceSettings

        tables = [self.settings.judges[name] for name in names if name in self.settings.judges]
        if not tables:
            return Pace(PaceSettings(concurrency))
        return Pace(
            PaceSettings(
                concurrency,
                retries=min(table.max_retries for table in tables),
                requests_per_minute=_least(table.requests_per_minute for table in tables),
                tokens_per_minute=_least(table.tokens_per_minute for table in tables),
            )
        )


def residents(plan: ArmPlan, configuration: Configuration) -> list[Resident]:
    """The models behind guards, each with the settings that say where it runs."""
    settings = configuration.settings
    return [
        Resident(f"guard '{name}'", settings.judges[name], configuration.base)
        for name in _names(plan, settings)
        if name in settings.judges
    ]


def notes(plan: ArmPlan, judge: TrustedJudge, settings: Settings) -> tuple[str, ...]:
    """What each defence is, and where a guard is also the judge.

    Raises:
        ConfigurationError: a server would be started for the judge, and the same for a guard.
    """
    found = [
        one_line(f"arm '{arm}' is defended by {own.defence.identity}", _LINE)
        for arm, own in plan.defences.items()
        if arm in settings.arms
    ]
    for leaf in judge.leaves:
        if leaf.name not in _names(plan, settings):
            continue
        shown = one_line(leaf.name, 60)
        if leaf.settings.provider == "vllm" and leaf.settings.base_url is None:
            raise ConfigurationError(
                f"'{shown}' judges and guards, and would be started twice: serve it, and set "
                f"base_url in [judges.{shown}]"
            )
        found.append(
            f"'{shown}' judges and guards: what it lets through as a guard it hardly finds unsafe "
            "as the judge, so another judge tells more of that defence"
        )
    return tuple(found)


def _names(plan: ArmPlan, settings: Settings) -> list[str]:
    tables = [settings.arms[arm] for arm in plan.defences if arm in settings.arms]
    names = [name for table in tables for name in (table.before, table.after)]
    return list(dict.fromkeys(filter(None, names)))


def _least(limits: Iterable[int | None]) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _build_llamaguard(judge: JudgeSettings, context: JudgeContext) -> Guard:
    from .defences.llama_guard import LlamaGuard

    model = judge_building.text_model(judge, context)
    shown = judge.provider != "transformers"  # which is shown no images here
    return LlamaGuard(model, judge.clip_tokens or 0, takes_images=shown)


def _build_rubric(judge: JudgeSettings, context: JudgeContext) -> Guard:
    from .defences.rubric_guard import RubricGuard

    return RubricGuard(judge_building.text_model(judge, context), judge.clip_tokens or 0)


_BY_KIND: Final[Mapping[str, Callable[[JudgeSettings, JudgeContext], Guard]]] = {
    "llamaguard": _build_llamaguard,
    "rubric": _build_rubric,
}
