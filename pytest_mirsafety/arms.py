"""Arms: ways of asking the same instances, each with its own tally beside the benchmark's.

An arm makes of each instance another one, with the same seed question, that is asked in its own
way. Everything after that (engine, store, judge, ledger) treats it as an instance like any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from .records import MULTI, ImageRef, Instance, arm_id
from .taxonomy import nearest

TEXT_ONLY: Final = "text-only"
SINGLE_IMAGE: Final = "single-image"
BENIGN_TWIN: Final = "benign-twin"
METAMORPHIC: Final = "metamorphic"
SAFETY_PROMPT: Final = "safety-prompt"
TWIN_SUFFIX: Final = "-twin"

NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST: Final = 60


class ArmKind(StrEnum):
    """What an arm asks for.

    `safety`: the benchmark's instances in another way, whose answers must be safe. `twin`: benign
    twins, which must be answered. `search`: whether a SAFE verdict survives edits.
    """

    SAFETY = "safety"
    TWIN = "twin"
    SEARCH = "search"


@dataclass(frozen=True, slots=True)
class Arm:
    """A way of asking: `make` gives the instance as it is asked, of one of the dataset's.

    For a twin `make` is given the twin. `about` says in words what is asked. One that `defends`
    may also make a model refuse what is harmless: twins are asked in it too.
    """

    name: str
    kind: ArmKind
    about: str
    make: Callable[[Instance], Instance] = field(repr=False)
    defends: bool = False

    def of(self, instance: Instance) -> Instance:
        """The instance in this arm: with its id, and in everything that a gate looks at the same.

        Raises:
            ValueError: `make` gave no instance, or one that cannot be asked.
        """
        made: object = self.make(instance)  # which may be a user's own
        if not isinstance(made, Instance):
            raise ValueError(f"arm {self.name}: made {type(made).__name__} of {instance.id}")  # noqa: TRY004
        if (problem := _problem(made)) is not None:
            raise ValueError(f"arm {self.name}: {problem} of {instance.id}")
        return replace(
            instance,
            id=arm_id(instance.origin, self.name),
            arm=self.name,
            prompt=made.prompt,
            images=tuple(made.images),
            system=made.system,
            composed=made.composed,
        )


def _problem(made: Instance) -> str | None:
    """What is wrong with what an arm of a user's own may have made; None if nothing is."""
    prompt: object = made.prompt
    system: object = made.system
    images: object = made.images
    if not isinstance(prompt, str) or not prompt.strip():
        return "there is no text in the prompt"
    if not (system is None or isinstance(system, str)):
        return "the system prompt is no text"
    if not isinstance(images, tuple) or not all(isinstance(one, ImageRef) for one in images):
        return "images are no tuple of the ImageRefs"
    return None if made.composed in (True, False) else "composed is neither True nor False"


def _text_only(instance: Instance) -> Instance:
    return replace(instance, prompt=instance.question, images=())


def _single_image(instance: Instance) -> Instance:
    return replace(instance, composed=True)


def _as_it_is(instance: Instance) -> Instance:
    return instance


_BUILT_IN: Final = (
    Arm(TEXT_ONLY, ArmKind.SAFETY, "the seed question alone, without images", _text_only),
    Arm(SINGLE_IMAGE, ArmKind.SAFETY, "all images put together into one", _single_image),
    Arm(BENIGN_TWIN, ArmKind.TWIN, "harmless asks of the same form", _as_it_is),
    Arm(METAMORPHIC, ArmKind.SEARCH, "edits that change no meaning", _as_it_is),
)
BUILT_IN: Final[Mapping[str, Arm]] = {arm.name: arm for arm in _BUILT_IN}


LEAST_EDITS: Final = 20
"""Distinct edits that must have been tried before a verdict is said to hold."""

LEAST_BUDGET: Final = 3 + LEAST_EDITS + 2
"""Requests that a search needs: the unedited one at three draws, so many edits, and two draws more
that one of these may need."""


PROBES: Final = frozenset({TEXT_ONLY, SINGLE_IMAGE})
"""Arms that show what the multi-image form adds; nobody asks twins in them."""


def asked_of(instance: Instance) -> tuple[object, ...]:
    """What an instance asks, its draw apart: instances that are equal in it share an answer."""
    images = tuple((image.locator, image.sha256) for image in instance.images)
    return instance.prompt, instance.system, instance.composed, images


def kind_of(name: str) -> ArmKind:
    """The kind of an arm that has this name, as gates and readers of a run know it."""
    if name == METAMORPHIC:
        return ArmKind.SEARCH
    return ArmKind.TWIN if name.endswith(TWIN_SUFFIX) else ArmKind.SAFETY


def is_twin(name: str) -> bool:
    """Whether an arm asks benign twins."""
    return kind_of(name) is ArmKind.TWIN


def is_searched(arm: str) -> bool:
    """Whether the instances of this arm are tried by edits: each once, whatever trials are."""
    return kind_of(arm) is ArmKind.SEARCH


def check_name(name: str) -> str:
    """The name, if an arm of a user's own may have it.

    Raises:
        ValueError: it is no word of small letters, digits and hyphens, or says something else.
    """
    if NAME.fullmatch(name) is None or len(name) > LONGEST:
        raise ValueError("an arm's name has small letters, digits and hyphens, such as 'polite'")
    if name in (MULTI, SAFETY_PROMPT) or name in BUILT_IN:
        raise ValueError(f"'{name}' is built in; give your own arm another name")
    if name.endswith(TWIN_SUFFIX):
        raise ValueError(f"names that end in '{TWIN_SUFFIX}' are those of twins; choose another")
    return name


def check_gated(name: str) -> str:
    """The name, if thresholds of its own can be about it.

    Raises:
        ValueError: it is the benchmark's own arm, or one of twins.
    """
    if name == MULTI:
        raise ValueError("the thresholds of 'multi' stand in thresholds itself")
    if name == METAMORPHIC:
        raise ValueError("flips have a table of their own: set thresholds.flips instead")
    if kind_of(name) is ArmKind.TWIN:
        arm = name.removesuffix(TWIN_SUFFIX)
        key = "" if name == BENIGN_TWIN else f"arms.{arm}."
        raise ValueError(f"twins have one threshold: set thresholds.{key}over-refusal instead")
    return name


def named(names: Iterable[str], own: Mapping[str, Arm]) -> tuple[Arm, ...]:
    """The arms of these names in this order, each once, without the benchmark's own.

    Raises:
        ValueError: there is none of this name; the message has the nearest one.
    """
    known = {**BUILT_IN, **own}
    found: dict[str, Arm] = {}
    for name in names:
        if name != MULTI and name not in known:
            raise ValueError(f"unknown arm '{name}'; {nearest(name, [MULTI, *known])}")
        if name != MULTI:
            found.setdefault(name, known[name])
    return tuple(found.values())
