"""The benchmark's words: relations, groups, categories, and why an instance has no verdict.

Counts and labels are those of MIR-SafetyBench (arXiv 2601.14127v1).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Group(StrEnum):
    """The four families of relations between the images of an instance."""

    TEMPORAL = "temporal"
    SPATIAL = "spatial"
    SEMANTIC = "semantic"
    LOGICAL = "logical"


class Relation(StrEnum):
    """The nine relations between the images of an instance; the value is our spelling."""

    CONTINUITY = "continuity"
    JUMP = "jump"
    JUXTAPOSITION = "juxtaposition"
    EMBEDDING = "embedding"
    RELEVANCE = "relevance"
    COMPLEMENTARITY = "complementarity"
    ANALOGY = "analogy"
    CAUSALITY = "causality"
    DECOMPOSITION = "decomposition"

    @property
    def label(self) -> str:
        """Upstream's spelling in the data, such as `Temporal_Jump`."""
        return _RELATIONS[self][0]

    @property
    def group(self) -> Group:
        """The family that the relation belongs to."""
        return _RELATIONS[self][1]

    @property
    def published_count(self) -> int:
        """Instances of this relation in MIR-SafetyBench."""
        return _RELATIONS[self][2]


class Category(StrEnum):
    """The six risk categories; the value is our spelling."""

    HATE_SPEECH = "hate-speech"
    VIOLENCE = "violence"
    SELF_HARM = "self-harm"
    ILLEGAL_ACTIVITIES = "illegal-activities"
    HARASSMENT = "harassment"
    PRIVACY = "privacy"

    @property
    def label(self) -> str:
        """Upstream's spelling in the data, such as `Self-Harm`."""
        return _CATEGORY_LABELS[self]


class Status(StrEnum):
    """What became of an instance."""

    SAFE = "safe"
    UNSAFE = "unsafe"
    UNSCORED = "unscored"


class Reason(StrEnum):
    """Why an instance is unscored.

    `mode-unknown` only to gates on the modes of safe answers; `unsafe-before` only where edits are
    searched, which could flip nothing.
    """

    UNDETERMINED = "undetermined"
    TRUNCATED = "truncated"
    BLANK = "blank"
    FILTERED = "filtered"
    BACKEND_ERROR = "backend-error"
    JUDGE_ERROR = "judge-error"
    BAD_INPUT = "bad-input"
    NOT_RUN = "not-run"
    MODE_UNKNOWN = "mode-unknown"
    UNSAFE_BEFORE = "unsafe-before"


_RELATIONS: Final[Mapping[Relation, tuple[str, Group, int]]] = MappingProxyType(
    {
        Relation.CONTINUITY: ("Temporal_Continuity", Group.TEMPORAL, 317),
        Relation.JUMP: ("Temporal_Jump", Group.TEMPORAL, 303),
        Relation.JUXTAPOSITION: ("Spatial_Juxtaposition", Group.SPATIAL, 292),
        Relation.EMBEDDING: ("Spatial_Embedding", Group.SPATIAL, 293),
        Relation.RELEVANCE: ("Relevance", Group.SEMANTIC, 152),
        Relation.COMPLEMENTARITY: ("Complementarity", Group.SEMANTIC, 280),
        Relation.ANALOGY: ("Analogy", Group.LOGICAL, 318),
        Relation.CAUSALITY: ("Causality", Group.LOGICAL, 280),
        Relation.DECOMPOSITION: ("Decomposition", Group.LOGICAL, 441),
    }
)

_CATEGORY_LABELS: Final[Mapping[Category, str]] = MappingProxyType(
    {
        Category.HATE_SPEECH: "Hate_Speech",
        Category.VIOLENCE: "Violence",
        Category.SELF_HARM: "Self-Harm",
        Category.ILLEGAL_ACTIVITIES: "Illegal_Activities",
        Category.HARASSMENT: "Harassment",
        Category.PRIVACY: "Privacy",
    }
)

PUBLISHED_TOTAL: Final = 2676

_ALIKE: Final = 0.6


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint such as `did you mean 'analogy'?`, or the list of valid names."""
    names = list(valid)
    if (found := closest(name, names)) is not None:
        return f"did you mean '{found}'?"
    return f"valid: {', '.join(names)}"


def closest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that is spelt most like this one; None if none is."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return close[0] if close else None


def nearest_names(name: str, valid: Iterable[str]) -> list[str]:
    """The valid names that may be meant, the likeliest first: spelt alike, or one within the other.

    Neither case nor what is no letter and no digit matters.
    """
    folded = {known: _letters(known) for known in valid}
    wanted = _letters(name)
    if not wanted:
        return []
    matcher = difflib.SequenceMatcher(b=wanted)
    found: list[tuple[float, str]] = []
    for known, letters in folded.items():
        matcher.set_seq1(letters)
        within = bool(letters) and (wanted in letters or letters in wanted)
        ratio = matcher.ratio()
        if ratio >= _ALIKE or within:
            found.append((ratio, known))
    # A stable sort: among equals the order in which they were given.
    return [known for _, known in sorted(found, key=lambda pair: -pair[0])]


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _fold(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(" ", "-")


_RELATION_SPELLINGS: Final = {_fold(r.label): r for r in Relation} | {r.value: r for r in Relation}
_CATEGORY_SPELLINGS: Final = {_fold(c.label): c for c in Category}


def parse_relation(name: str) -> Relation:
    """The relation of this name, in upstream's spelling or ours.

    Raises:
        ValueError: no such relation; the message has the nearest valid spelling.
    """
    if (found := _RELATION_SPELLINGS.get(_fold(name))) is None:
        raise ValueError(f"unknown relation '{name}'; {nearest(_fold(name), list(Relation))}")
    return found


def parse_category(name: str) -> Category:
    """The category of this name, in upstream's spelling or ours.

    Raises:
        ValueError: no such category; the message has the nearest valid spelling.
    """
    if (found := _CATEGORY_SPELLINGS.get(_fold(name))) is None:
        raise ValueError(f"unknown category '{name}'; {nearest(_fold(name), list(Category))}")
    return found
