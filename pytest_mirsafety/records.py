"""The values that flow from a dataset to a gate: frozen, and free of behaviour."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from .digests import canonical_json, digest, text_digest
from .taxonomy import Category, Group, Reason, Relation, Status

if TYPE_CHECKING:
    from pathlib import Path

    from .protocols import ImageSource

Scalar = str | int | float | bool | None

MULTI: Final = "multi"
"""The benchmark's own way of asking: all images, in order, then the prompt."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Where one image of an instance is, not its bytes: those are read at send time.

    `sha256` is what the dataset declares, if it declares it; the bytes must agree.
    """

    name: str
    locator: str
    source: ImageSource = field(repr=False, compare=False)
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """One benchmark item: seed question, prompt, ordered images, relation, category, id.

    `question` is the seed question, which a judge sees; `prompt` is what the model is asked. `draw`
    numbers repeated asks of the same instance from 0; the id of one after the first says so.
    `arm` is the way of asking, which the id of another than the benchmark's own says too:
    `ORIGIN@ARM`, and `ORIGIN@ARM#2` of its second draw. A `system` prompt is sent in place of the
    model's own; `composed` images are put together into one.
    """

    id: str
    relation: Relation
    category: Category
    question: str
    prompt: str
    images: tuple[ImageRef, ...]
    draw: int = 0
    arm: str = MULTI
    system: str | None = None
    composed: bool = False

    @property
    def item(self) -> str:
        """The id of the instance in its arm, whichever draw this is."""
        return item_id(self.id)[0] if self.draw else self.id

    @property
    def origin(self) -> str:
        """The id of the dataset's instance that this is one way of asking."""
        return self.item if self.arm == MULTI else origin_id(self.item)

    @property
    def group(self) -> Group:
        """The family of the relation."""
        return self.relation.group

    @property
    def seed(self) -> str:
        """Digest of category and seed question: instances that share it are one cluster."""
        return _seed(self.category, self.question)


def item_id(instance_id: str) -> tuple[str, int]:
    """The id of an instance and the number of the draw, from the id of a draw."""
    item, _, number = instance_id.rpartition("#")
    return (item, int(number) - 1) if item and number.isdecimal() else (instance_id, 0)


def arm_id(origin: str, arm: str) -> str:
    """The id of an instance in an arm; in the benchmark's own it is the dataset's."""
    return origin if arm == MULTI else f"{origin}@{arm}"


def origin_id(instance_id: str) -> str:
    """The id that the dataset has of an instance, from the id of any arm and any draw of it."""
    return item_id(instance_id)[0].partition("@")[0]


@lru_cache(maxsize=4096)  # of the same text few are needed: one seed has many instances
def _seed(category: Category, question: str) -> str:
    return digest([category, question])


@dataclass(frozen=True, slots=True)
class Dataset:
    """A benchmark as loaded: what the gates' populations are counted on.

    `identity` is the SHA-256 of every instance's id, relation, category, texts and number of
    images, in id order: the same data in another layout has the same identity.
    `name` is the benchmark's name where the source has one (`mir-safetybench`, `sample`).
    """

    source: str
    name: str | None
    identity: str
    instances: tuple[Instance, ...]
    revision: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, weakref_slot=True)
class LoadedImage:
    """One image as it will be sent: original bytes, their digest, and its file if it has one.

    Of one that was composed of others, `parts` are their digests, in order.
    """

    sha256: str
    media_type: str
    content: bytes = field(repr=False)
    path: Path | None = None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model answers; part of every request's key."""

    provider: str
    model: str
    endpoint: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        name = f"{self.provider}:{self.model}"
        name += f"@{self.revision}" if self.revision else ""
        return f"{name} ({self.endpoint})" if self.endpoint else name


@dataclass(frozen=True)
class Request:
    """Exactly what is sent: images first, in order, then the prompt, in one user turn.

    `images` are SHA-256 digests; `decoding` holds only what is sent; `draw` numbers repeated
    asks of the same thing. With a `layout` the images are sent as one, put together as it says;
    `images` are then still the originals. A `defence`, by its identity, may answer instead. `key`
    identifies all of it.
    """

    model: ModelIdentity
    prompt: str
    images: tuple[str, ...]
    system: str | None = None
    decoding: Mapping[str, Scalar] = field(default_factory=dict)
    draw: int = 0
    layout: str = ""
    defence: str = ""

    @property
    def images_sent(self) -> int:
        """How many images arrive: one, where they are put together."""
        return 1 if self.layout else len(self.images)

    @property
    def canonical(self) -> str:
        """Canonical JSON of everything that is sent, images by digest: what `key` digests.

        Not of a composed image's bytes, which another version of a library may write otherwise.
        """
        model = self.model
        sent: dict[str, object] = {
            "model": [model.provider, model.model, model.endpoint, model.revision],
            "system": self.system,
            "images": self.images,
            "prompt": self.prompt,
            "decoding": dict(self.decoding),
            "draw": self.draw,
        }
        if self.layout:  # only then: the keys of all other requests stay what they were
            sent["layout"] = self.layout
        if self.defence:
            sent["defence"] = self.defence
        return canonical_json(sent)

    @cached_property
    def key(self) -> str:
        """SHA-256 (hex) of the request's canonical JSON."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Completion:
    """A completed reply as the backend returned it; this is what the store keeps.

    `finish_reason` is the provider's own word. A provider's `refusal` field is answer text and
    is already part of `text`. `latency` is in seconds, `created` in seconds since the epoch.
    `composed` is the SHA-256 of the one image that was sent for all, if one was, and `blocked` says
    why a defence answered in the model's place, if one did; the engine puts both in.

    Raises:
        TypeError: a field of another type, such as a text that is None.
    """

    text: str
    finish_reason: str
    reasoning: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    latency: float = 0.0
    created: float = 0.0
    composed: str | None = None
    blocked: str | None = None

    def __post_init__(self) -> None:
        for name, kinds in _COMPLETION_TYPES.items():
            if not isinstance(value := getattr(self, name), kinds):
                raise TypeError(f"a completion's {name} cannot be {type(value).__name__}")


_COMPLETION_TYPES: Final[Mapping[str, tuple[type, ...]]] = MappingProxyType(
    {
        "text": (str,),
        "finish_reason": (str,),
        "reasoning": (str, type(None)),
        "input_tokens": (int, type(None)),
        "output_tokens": (int, type(None)),
        "latency": (float, int),
        "created": (float, int),
        "composed": (str, type(None)),
        "blocked": (str, type(None)),
    }
)


@dataclass(frozen=True, slots=True)
class Response:
    """A completion with reasoning and final answer apart.

    `reasoning_closed` is False when the reasoning never ended, so that nothing after it can be
    taken for an answer. `cached` tells that the store had it.
    """

    request_key: str
    completion: Completion
    answer: str
    reasoning: str | None = None
    reasoning_closed: bool = True
    cached: bool = False

    @property
    def text(self) -> str:
        """The reply as returned."""
        return self.completion.text


@dataclass(frozen=True, slots=True)
class SentImages:
    """The images of an answered request by SHA-256: the data's, in order, and the one of them all.

    `composed` is None where each was sent by itself.
    """

    originals: tuple[str, ...]
    composed: str | None = None


class VerdictKind(StrEnum):
    """What a judge can say."""

    SAFE = "safe"
    UNSAFE = "unsafe"
    UNDETERMINED = "undetermined"


class SafeMode(StrEnum):
    """In which way an answer is safe (MIR-SafetyBench, arXiv 2601.14127, section on safe modes).

    A correct refusal names the harm; an incomplete one is short and generic. A harmless
    misunderstanding missed the intent; a clever evasion understood it, and is of no use.
    """

    CORRECT_REFUSAL = "correct-refusal"
    INCOMPLETE_REFUSAL = "incomplete-refusal"
    MISUNDERSTANDING = "harmless-misunderstanding"
    EVASION = "clever-evasion"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's word on one answer, with the judge's identity and its evidence.

    Neither `safe` nor `unsafe` is true when the judge could not tell. `mode` is the way in which a
    SAFE answer is safe, where the judge tells it. `flags` say what was done to the answer before
    it was judged, such as `clipped 700 to 512 tokens`. `scores` are the judge's own numbers, by
    name, such as log-probabilities. `members` are the verdicts that this one was made of.

    Raises:
        TypeError: `kind` is no VerdictKind; a word that merely looks like one decides nothing.
        ValueError: a mode of an answer that is not SAFE.
    """

    kind: VerdictKind
    judge: str
    evidence: str = ""
    mode: SafeMode | None = None
    flags: tuple[str, ...] = ()
    scores: tuple[tuple[str, float], ...] = ()
    members: tuple[Verdict, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.kind, VerdictKind):
            raise TypeError(f"a verdict's kind is a VerdictKind, not {self.kind!r}")
        if self.mode is not None and self.kind is not VerdictKind.SAFE:
            raise ValueError(f"only a SAFE answer has a mode, not one that is {self.kind}")

    @property
    def safe(self) -> bool:
        """The judge said SAFE."""
        return self.kind is VerdictKind.SAFE

    @property
    def answered(self) -> bool:
        """Of a benign twin, where SAFE stands for it: the judge found a real answer."""
        return self.kind is VerdictKind.SAFE

    @property
    def unsafe(self) -> bool:
        """The judge said UNSAFE."""
        return self.kind is VerdictKind.UNSAFE


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """Which judge is asked about what: texts by the SHA-256 of their UTF-8.

    `images` are the SHA-256 digests of those that the judge looks at, in order; none where it
    looks at none.
    """

    judge: str
    question: str
    answer: str
    images: tuple[str, ...] = ()

    @classmethod
    def of(cls, judge: str, question: str, answer: str, images: tuple[str, ...] = ()) -> JudgedPair:
        """The pair of these texts, for the judge of this identity, and what else it looks at."""
        return cls(judge, text_digest(question), text_digest(answer), images)

    @property
    def canonical(self) -> str:
        """Canonical JSON of all of it: what `key` digests."""
        return canonical_json([self.judge, self.question, self.answer, *self.images])

    @property
    def key(self) -> str:
        """SHA-256 (hex) of the canonical JSON."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an instance: SAFE, UNSAFE, or unscored with exactly one reason.

    `mode` is the way in which a SAFE one is safe, if it is known; `mode_by_rules` that patterns
    guessed it, where the judge did not tell. `mode_open` of an UNSAFE one says that it was not
    found so throughout: whether it has a mode after all, and which, is not known.

    Raises:
        ValueError: an unscored outcome without a reason, or a scored one with a reason; or a mode
            of one that is not SAFE, or an open one of one that is not UNSAFE.
    """

    status: Status
    reason: Reason | None = None
    detail: str = ""
    mode: SafeMode | None = None
    mode_by_rules: bool = False
    mode_open: bool = False

    def __post_init__(self) -> None:
        if (self.mode is not None and self.status is not Status.SAFE) or (
            self.mode_by_rules and self.mode is None
        ):
            raise ValueError("only a SAFE outcome has a mode")
        if self.mode_open and self.status is not Status.UNSAFE:
            raise ValueError("only an UNSAFE outcome has an open mode")
        if (self.status is Status.UNSCORED) != (self.reason is not None):
            raise ValueError("an outcome has a reason exactly when it is unscored")
