"""Which arms a run plans, which of them it asks, and what each of them is."""

from __future__ import annotations

import hashlib
import ntpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from . import arms as ways
from .arms import BENIGN_TWIN, TWIN_SUFFIX, Arm, ArmKind, asked_of, kind_of
from .digests import digest
from .errors import ConfigurationError
from .gates import Thresholds
from .printable import one_line
from .records import MULTI, Dataset, ImageRef, Instance, arm_id
from .results import ArmDesign
from .setting_sections import ArmSettings, MetamorphicSettings
from .taxonomy import Relation

if TYPE_CHECKING:
    from .config import Settings
    from .data.twins import Twins
    from .engine.asks import ArmDefence
    from .protocols import Judge

_PLACES: Final = re.compile(r"\{(prompt|question)\}")


@dataclass(frozen=True, slots=True)
class ArmPlan:
    """The arms of a run beside `multi`: all that are planned, and which arms are `asked`.

    What is planned and not asked is not-run, as is what `-m` leaves out. `twins` are the benign
    ones, if any are planned; `judges` are those of arms that have one of their own, and `defences`
    what stands between users and the model in an arm. `searched` are the instances of the dataset
    that are tried by edits, and `search` tells how. What an arm makes of an instance it makes once,
    and plans that are made of this one share it: one that draws lots is asked as it is described.
    """

    planned: tuple[Arm, ...] = ()
    asked: frozenset[str] = frozenset({MULTI})
    twins: Twins | None = None
    judges: Mapping[str, Judge] = field(default_factory=dict)
    defences: Mapping[str, ArmDefence] = field(default_factory=dict)
    searched: tuple[Instance, ...] = ()
    search: MetamorphicSettings = field(default_factory=MetamorphicSettings)
    _memory: dict[tuple[str, str], tuple[Instance, Instance]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def of(
        self,
        items: Sequence[Instance],
        twins: Sequence[Instance],
        searched: Sequence[Instance],
    ) -> tuple[Instance, ...]:
        """These instances of the dataset and these twins in every arm, `multi` first.

        In the arm of searches there are those to be searched alone.

        Raises:
            ConfigurationError: an arm of the user's own makes no instance of one of them.
        """
        of = {ArmKind.SAFETY: items, ArmKind.TWIN: twins, ArmKind.SEARCH: searched}
        others = (self._made(arm, instance) for arm in self.planned for instance in of[arm.kind])
        return (*items, *others) if self.planned else tuple(items)

    @property
    def twin_instances(self) -> tuple[Instance, ...]:
        """The twins as they were loaded."""
        return () if self.twins is None else self.twins.dataset.instances

    def undefended(self, dataset: Dataset) -> dict[str, Instance]:
        """What is asked where no defence stands, by id; nothing where none stands anywhere."""
        if not self.defences:
            return {}
        found = {instance.id: instance for instance in dataset.instances}
        twins = self.twin_instances
        return found | {arm_id(twin.origin, BENIGN_TWIN): twin for twin in twins}

    def judged(self, otherwise: Judge | None) -> ArmPlan:
        """The same with the judge of its twins; `otherwise` decides what terms leave open."""
        if self.twins is None:
            return self
        from .judges.answered import AnsweredJudge

        judge = AnsweredJudge(self.twins.terms_by_question, otherwise)
        named = [arm.name for arm in self.planned if arm.kind is ArmKind.TWIN]
        return replace(self, judges={**self.judges, **dict.fromkeys(named, judge)})

    def designs(self, dataset: Dataset) -> tuple[ArmDesign, ...]:
        """What the result tells of each, counted over the whole dataset."""
        return tuple(self._design(arm, dataset) for arm in self.planned)

    def _made(self, arm: Arm, instance: Instance) -> Instance:
        key = arm.name, instance.id
        of, made = self._memory.get(key, (None, instance))
        if of is None or not of.is_from(instance):
            made = _made(arm, instance)
            self._memory[key] = instance, made
        return made

    def _design(self, arm: Arm, dataset: Dataset) -> ArmDesign:
        of, terms = dataset.instances, ""
        if arm.kind is ArmKind.TWIN and self.twins is not None:
            of, terms = self.twin_instances, self.twins.identity
        elif arm.kind is ArmKind.SEARCH:
            of, terms = self.searched, f"{self.search.budget} {self.search.seed}"
        own = self.defences.get(arm.name)
        defence = [] if own is None else [own.defence.identity]
        made = [self._made(arm, instance) for instance in of]
        counts = Counter(instance.relation for instance in made)
        asked = Counter(map(asked_of, made))
        return ArmDesign(
            name=arm.name,
            kind=arm.kind,
            about=one_line(arm.about, 200),
            identity=digest([terms, *defence, *map(_told, made, of)]),
            populations={relation: counts[relation] for relation in Relation},
            shared=any(number > 1 for number in asked.values()),
            ships=arm.defends and kind_of(arm.name) is ArmKind.SAFETY and _as_benchmark(of, made),
        )


def choose(
    option: str | None,
    settings: Settings,
    of_model: Sequence[str] | None,
    thresholds: Thresholds,
    own: Mapping[str, Arm],
) -> ArmPlan:
    """The arms that options, configuration, the model's table and thresholds name.

    Without the option those of the configuration are asked, else those of the model, else `multi`
    and those that thresholds name.

    Raises:
        ConfigurationError: there is no arm of a name, or none that such a threshold can be about.
    """
    gated = _gated(thresholds)
    configured = settings.arm or of_model or [MULTI, *gated]
    asked = configured if option is None else [name.strip() for name in option.split(",")]
    _named("--mir-arm" if option is not None else "arm", asked, own)
    _named("thresholds.arms", gated, own)
    planned = _named("arm", [*configured, *asked, *gated], own)
    with_twins = any(arm.name == BENIGN_TWIN for arm in planned)
    defences = [arm for arm in planned if arm.defends]
    if with_twins:
        planned += tuple(_twin_of(arm) for arm in defences)
    names = {*asked, *(f"{a.name}{TWIN_SUFFIX}" for a in defences if a.name in asked)}
    if BENIGN_TWIN not in asked:
        names = {name for name in names if not name.endswith(TWIN_SUFFIX)}
    return ArmPlan(planned, frozenset(names))


def _gated(thresholds: Thresholds) -> list[str]:
    """The arms that thresholds name, those of twins with them."""
    refusals = (thresholds, *thresholds.arms.values())
    twins = [BENIGN_TWIN] if any(one.over_refusal is not None for one in refusals) else []
    return [*thresholds.arms, *twins]


def _named(place: str, names: Iterable[str], own: Mapping[str, Arm]) -> tuple[Arm, ...]:
    try:
        return ways.named(names, own)
    except ValueError as error:
        raise ConfigurationError(one_line(f"{place}: {error}", 400)) from None


def _twin_of(arm: Arm) -> Arm:
    about = f"harmless asks under {arm.name}"
    return replace(arm, name=f"{arm.name}{TWIN_SUFFIX}", kind=ArmKind.TWIN, about=about)


def own_arms(
    settings: Mapping[str, ArmSettings],
    load: Callable[[str], Callable[[Instance], Instance]],
    system: str | None = None,
) -> dict[str, Arm]:
    """The arms of the configuration; `load` gives the function that `module:attr` names.

    `system` is the model's own system prompt.

    Raises:
        ConfigurationError: such a function cannot be loaded.
    """
    return {name: _own(name, one, load, system) for name, one in settings.items()}


def safety_prompt(system: str | None) -> Arm:
    """The arm whose defence is a safety prompt, after the model's own system prompt."""
    settings = ArmSettings(about="with a safety system prompt", safety_prompt=True)
    make = _by_template(settings, system)
    return Arm(ways.SAFETY_PROMPT, ArmKind.SAFETY, settings.about or "", make, defends=True)


def _own(
    name: str,
    settings: ArmSettings,
    load: Callable[[str], Callable[[Instance], Instance]],
    system: str | None,
) -> Arm:
    about = settings.about or _in_words(settings)
    make = _by_template(settings, system) if settings.make is None else load(settings.make)
    return Arm(name, ArmKind.SAFETY, about, make, defends=settings.defends)


def _in_words(settings: ArmSettings) -> str:
    parts = {
        f"as {settings.make} makes it": settings.make,
        "another prompt": settings.prompt,
        f"images {settings.images}": settings.images,
        "another system prompt": settings.system,
        "a safety system prompt": settings.safety_prompt,
        f"guard {settings.before} before the model": settings.before,
        f"guard {settings.after} after the model": settings.after,
        f"defence {settings.defence}": settings.defence,
    }
    return ", ".join(name for name, given in parts.items() if given) or "as the benchmark asks"


def _by_template(settings: ArmSettings, own: str | None) -> Callable[[Instance], Instance]:
    system = settings.system
    if settings.safety_prompt:
        from .defences.safety_prompt import joined

        system = joined(own if system is None else system)

    def make(instance: Instance) -> Instance:
        texts = {"prompt": instance.prompt, "question": instance.question}
        images = instance.images
        if settings.images == "reversed":
            images = images[::-1]
        # Not str.format: a template holds braces of its own, and so may a prompt.
        template = settings.prompt or "{prompt}"
        return replace(
            instance,
            prompt=_PLACES.sub(lambda place: texts[place[1]], template),
            images=() if settings.images == "none" else images,
            system=system,
            composed=settings.images == "one",
        )

    return make


def _made(arm: Arm, instance: Instance) -> Instance:
    try:
        return arm.of(instance)
    except ValueError as error:
        raise ConfigurationError(one_line(str(error), 400)) from None
    except Exception as error:
        problem = f"arm {arm.name}: {type(error).__name__} on {instance.id}: {error}"
        raise ConfigurationError(one_line(problem, 400)) from error


def _as_benchmark(of: Iterable[Instance], made: Iterable[Instance]) -> bool:
    """Whether the same is asked as without the arm, but for the system prompt."""
    return all(
        (one.prompt, one.images, one.composed) == (other.prompt, other.images, False)
        for other, one in zip(of, made, strict=True)
    )


def _told(made: Instance, of: Instance) -> list[object]:
    images = [_picture(image, of.images) for image in made.images]
    return [made.id, made.prompt, made.system, made.composed, images]


def _picture(image: ImageRef, own: Sequence[ImageRef]) -> str | list[str]:
    """What tells an image apart, the same on each machine that has the same data.

    An image of the instance's own has its name. Another has its digest, or its place in the data:
    where neither says what it is, its bytes are read.
    """
    if any(image == one and image.source is one.source for one in own):
        return image.name
    if image.sha256 is not None:
        return [image.name, image.sha256]
    if any(image.source is one.source for one in own) and not _is_absolute(image.locator):
        return [image.name, image.locator]
    try:
        return [image.name, hashlib.sha256(image.source.read(image.locator)).hexdigest()]
    except Exception:  # noqa: BLE001 - a user's own may raise anything; it is found when it is sent
        return [image.name, "unread"]


def _is_absolute(path: str) -> bool:
    return path.startswith(("/", "\\")) or bool(ntpath.splitdrive(path)[0])
