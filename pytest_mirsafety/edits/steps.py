"""An edit is a sequence of steps, each with a strength; small enough that no meaning changes.

The bounds are those within which a person reads the same question and sees the same pictures:

- brightness and contrast move each value by 40% at most and clip none, so that any two shades that
  differ still do, by 60% or more of what they did;
- JPEG quality is 60 or more, and a side is 60% of its length or more: small print stays legible;
- 4% at most is cut off each side, a turn is by 4 degrees at most and cuts nothing off, and a border
  is 8% of the longer side at most;
- a text keeps its words and their order, whatever else changes.

Of each family (`Family`) an edit has one step at most: nothing is done twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from itertools import combinations
from typing import Final, Self, TypeAlias, TypeVar

from ..digests import canonical_json

T = TypeVar("T")


class Family(StrEnum):
    """What a step changes: of each family an edit has one step at most."""

    SHAPE = "shape"
    TONE = "tone"
    ENCODING = "encoding"
    ORDER = "order"
    CASE = "case"
    SPACING = "spacing"
    PUNCTUATION = "punctuation"
    FRAMING = "framing"


class ImageKind(StrEnum):
    """What may be done to the pictures of an instance, to all of them alike."""

    RESIZE = "resize"
    BORDER = "border"
    CROP = "crop"
    ROTATE_LEFT = "rotate-left"
    ROTATE_RIGHT = "rotate-right"
    BRIGHTER = "brighter"
    DARKER = "darker"
    MORE_CONTRAST = "more-contrast"
    LESS_CONTRAST = "less-contrast"
    PNG = "png"
    JPEG = "jpeg"

    @property
    def family(self) -> Family:
        """Shape, tone or encoding."""
        if self in _SHAPES:
            return Family.SHAPE
        return Family.ENCODING if self in (ImageKind.PNG, ImageKind.JPEG) else Family.TONE

    @property
    def levels(self) -> int:
        """How strong it can be, counted from 1."""
        return 1 if self is ImageKind.PNG else LEVELS


class TextKind(StrEnum):
    """What may be done to a prompt; its words stay."""

    CASE = "case"
    SPACING = "spacing"
    PUNCTUATION = "punctuation"
    POLITE = "polite"

    @property
    def family(self) -> Family:
        """A family of its own."""
        return _TEXT_FAMILIES[self]

    @property
    def levels(self) -> int:
        """How strong it can be, counted from 1."""
        return len(_TEXT_WORDS[self])


LEVELS: Final = 8
"""The strengths of most changes to pictures: an eighth each of the largest one."""

_SHAPES: Final = frozenset(
    {
        *(ImageKind.RESIZE, ImageKind.BORDER, ImageKind.CROP),
        *(ImageKind.ROTATE_LEFT, ImageKind.ROTATE_RIGHT),
    }
)

_IMAGE_WORDS: Final[Mapping[ImageKind, str]] = {  # {0} is a share, {1} a plain number
    ImageKind.RESIZE: "pictures {0} smaller",
    ImageKind.BORDER: "pictures with a border of {0}",
    ImageKind.CROP: "pictures with {0} cut off each side",
    ImageKind.ROTATE_LEFT: "pictures turned {1} degrees to the left",
    ImageKind.ROTATE_RIGHT: "pictures turned {1} degrees to the right",
    ImageKind.BRIGHTER: "pictures {0} brighter",
    ImageKind.DARKER: "pictures {0} darker",
    ImageKind.MORE_CONTRAST: "pictures with {0} more contrast",
    ImageKind.LESS_CONTRAST: "pictures with {0} less contrast",
    ImageKind.PNG: "pictures encoded again as PNG",
    ImageKind.JPEG: "pictures as JPEG of quality {1}",
}

_TEXT_FAMILIES: Final[Mapping[TextKind, Family]] = {
    TextKind.CASE: Family.CASE,
    TextKind.SPACING: Family.SPACING,
    TextKind.PUNCTUATION: Family.PUNCTUATION,
    TextKind.POLITE: Family.FRAMING,
}

_TEXT_WORDS: Final[Mapping[TextKind, tuple[str, ...]]] = {
    TextKind.CASE: ("first letter in the other case", "all in small letters", "all in capitals"),
    TextKind.SPACING: ("space around it", "each sentence on a line", "two spaces between words"),
    TextKind.PUNCTUATION: ("closing mark changed", "closing mark and quotation marks changed"),
    TextKind.POLITE: ("thanks after it", "greeting and thanks", "longer greeting and thanks"),
}


@dataclass(frozen=True, slots=True)
class ImageStep:
    """A change to each picture, `level` of `kind.levels` strong.

    Raises:
        ValueError: no such level.
    """

    kind: ImageKind
    level: int

    def __post_init__(self) -> None:
        _check_level(self.kind, self.level, self.kind.levels)

    @property
    def family(self) -> Family:
        """What it changes."""
        return self.kind.family

    @property
    def strength(self) -> Fraction:
        """From an eighth to 1, the largest that changes no meaning."""
        return Fraction(self.level, LEVELS)

    @property
    def amount(self) -> Fraction:
        """The level in the kind's own measure.

        Degrees of a turn; JPEG's quality; else the share of a side, or of a value, that changes.
        """
        match self.kind:
            case ImageKind.ROTATE_LEFT | ImageKind.ROTATE_RIGHT:
                return Fraction(self.level, 2)
            case ImageKind.JPEG:
                return Fraction(100 - 5 * self.level)
            case ImageKind.CROP:
                return Fraction(self.level, 200)
            case ImageKind.BORDER:
                return Fraction(self.level, 100)
            case ImageKind.PNG:
                return Fraction(0)
        return Fraction(5 * self.level, 100)

    def describe(self) -> str:
        """The step in plain words, such as `pictures 15% brighter`."""
        amount = float(self.amount)
        return _IMAGE_WORDS[self.kind].format(f"{100 * amount:g}%", f"{amount:g}")


@dataclass(frozen=True, slots=True)
class TextStep:
    """A change to the prompt, `level` of `kind.levels` strong.

    Raises:
        ValueError: no such level.
    """

    kind: TextKind
    level: int

    def __post_init__(self) -> None:
        _check_level(self.kind, self.level, self.kind.levels)

    @property
    def family(self) -> Family:
        """What it changes."""
        return self.kind.family

    @property
    def strength(self) -> Fraction:
        """The level's share of the strongest, which is 1."""
        return Fraction(self.level, self.kind.levels)

    def describe(self) -> str:
        """The step in plain words, such as `prompt: all in capitals`."""
        return f"prompt: {_TEXT_WORDS[self.kind][self.level - 1]}"


@dataclass(frozen=True, slots=True)
class Reorder:
    """The images in another order: the first of them is that of index `order[0]`.

    Raises:
        ValueError: it is no permutation, or changes nothing.
    """

    order: tuple[int, ...]

    def __post_init__(self) -> None:
        if sorted(self.order) != list(range(len(self.order))):
            raise ValueError(f"an order has each of its images once, not {list(self.order)}")
        if self.order == identity_order(len(self.order)):
            raise ValueError("an order that changes nothing is no step")

    @property
    def family(self) -> Family:
        """What it changes."""
        return Family.ORDER

    @property
    def strength(self) -> Fraction:
        """The share of the pairs of images that are the other way round (Kendall 1938)."""
        pairs = list(combinations(self.order, 2))
        return Fraction(sum(first > second for first, second in pairs), len(pairs))

    def describe(self) -> str:
        """The step in plain words, such as `images in the order 2, 1, 3`."""
        return f"images in the order {', '.join(str(index + 1) for index in self.order)}"


Step: TypeAlias = ImageStep | TextStep | Reorder


def identity_order(count: int) -> tuple[int, ...]:
    """The order of so many images that changes nothing."""
    return tuple(range(count))


@dataclass(frozen=True, slots=True)
class Edit:
    """Steps that are made one after the other; without any it is the identity.

    Raises:
        ValueError: two steps of one family.
    """

    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        families = [step.family for step in self.steps]
        for family in families:
            if families.count(family) > 1:
                raise ValueError(f"an edit changes the {family} once at most")

    @property
    def identity(self) -> bool:
        """It changes nothing."""
        return not self.steps

    @property
    def strength(self) -> Fraction:
        """The sum of the steps' strengths; 0 of the identity."""
        return sum((step.strength for step in self.steps), Fraction(0))

    @property
    def size(self) -> tuple[int, Fraction, str]:
        """By which edits are compared: fewer steps first, then less strength."""
        return len(self.steps), self.strength, self.canonical

    @property
    def image_steps(self) -> tuple[ImageStep, ...]:
        """Those that change pictures."""
        return tuple(step for step in self.steps if isinstance(step, ImageStep))

    @property
    def text_steps(self) -> tuple[TextStep, ...]:
        """Those that change the prompt."""
        return tuple(step for step in self.steps if isinstance(step, TextStep))

    @property
    def orders(self) -> tuple[Reorder, ...]:
        """The one that changes the order of the images, if there is one."""
        return tuple(step for step in self.steps if isinstance(step, Reorder))

    @property
    def reorders(self) -> bool:
        """It changes the order of the images."""
        return bool(self.orders)

    @property
    def canonical(self) -> str:
        """Canonical JSON of all steps: equal edits have equal text."""
        return canonical_json(self.plain())

    def plain(self) -> list[list[object]]:
        """The steps as JSON: `[["brighter", 3], ["order", [1, 0]]]`."""
        return [
            ["order", list(step.order)] if isinstance(step, Reorder) else [step.kind, step.level]
            for step in self.steps
        ]

    @classmethod
    def from_plain(cls, plain: object) -> Self:
        """The edit that `plain` gave.

        Raises:
            ValueError: it is none; the message says what is wrong with it.
        """
        if not isinstance(plain, list):
            raise ValueError("an edit is a list of steps")  # noqa: TRY004 - as for all that it says
        return cls(tuple(map(_step_from, plain)))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The edit of this JSON.

        Raises:
            ValueError: it is none.
        """
        return cls.from_plain(json.loads(text))

    def then(self, other: Edit) -> Edit:
        """This edit and then the other one.

        Raises:
            ValueError: both change the same.
        """
        return Edit((*self.steps, *other.steps))

    def ordered(self, images: Sequence[T]) -> tuple[T, ...]:
        """These images in the edit's order.

        Raises:
            ValueError: it orders another number of images.
        """
        for step in self.orders:
            if len(step.order) != len(images):
                raise ValueError(f"an order of {len(step.order)} images for {len(images)}")
            return tuple(images[index] for index in step.order)
        return tuple(images)

    def describe(self) -> str:
        """All steps in plain words, such as `pictures 15% brighter; images in the order 2, 1`."""
        return "; ".join(step.describe() for step in self.steps) or "unchanged"

    def __str__(self) -> str:
        return self.describe()


def _check_level(kind: str, level: object, levels: int) -> None:
    if type(level) is not int or not 1 <= level <= levels:
        raise ValueError(f"'{kind}' has the levels 1 to {levels}, not {level!r}")


def _step_from(plain: object) -> Step:
    match plain:
        case ["order", list(order)] if all(type(index) is int for index in order):
            return Reorder(tuple(order))
        case [str(name), int(level)] if name in _IMAGE_KINDS:
            return ImageStep(ImageKind(name), level)
        case [str(name), int(level)] if name in _TEXT_KINDS:
            return TextStep(TextKind(name), level)
    raise ValueError(f"no step of an edit: {canonical_json(plain)[:80]}")


_IMAGE_KINDS: Final = frozenset(map(str, ImageKind))
_TEXT_KINDS: Final = frozenset(map(str, TextKind))
