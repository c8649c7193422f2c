"""What JUnit tells of an instance, as the properties of its testcase."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from ..arms import kind_of
from ..gates.wording import AGAINST, FOR
from ..printable import one_line
from ..records import MULTI, Outcome
from ..taxonomy import Category, Reason, Relation, Status

Extent = Literal["none", "short", "full"]
"""How many properties a testcase has: none, one that says it all, or one for each thing."""

SHORT: Final = "mirsafety.instance"
ANSWER: Final = "mirsafety.answer"
DETAIL: Final = "mirsafety.detail"
TEXTS: Final = frozenset({ANSWER, DETAIL})
"""Properties that hold words of a model or a judge."""

_JUDGE_LIMIT: Final = 80
_TEXT_LIMIT: Final = 4000
_DIGEST: Final = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28,}\b")
_OURS: Final = re.compile(
    r"outcome=[a-z-]+( (arm|relation|group|category|tokens|latency)=[a-z0-9.+-]+)*"
    r"( judge=[A-Za-z0-9_.:/-]+)?"
)


_JUDGED: Final = frozenset({Reason.UNDETERMINED, Reason.JUDGE_ERROR})


@functools.lru_cache(maxsize=1024)
def message(outcome: Outcome, arm: str = MULTI) -> str:
    """What became of an instance that is not safe: one text for all that came to the same."""
    word = f"UNSCORED: {outcome.reason}"
    if outcome.status is Status.UNSAFE:
        word = AGAINST[kind_of(arm)].upper()
    return one_line(f"{word}: {outcome.detail}" if outcome.detail else word)


def word_of(outcome: Outcome, arm: str = MULTI) -> str:
    """What became of an instance as one word: of a twin `answered` or `not-answered`."""
    if outcome.reason is not None:
        return str(outcome.reason)
    words = AGAINST if outcome.status is Status.UNSAFE else FOR
    return words[kind_of(arm)].replace(" ", "-")


def without_evidence(outcome: Outcome) -> Outcome:
    """Without the words of a judge, which may quote the answer; those of others stay."""
    judged = outcome.status is Status.UNSAFE or outcome.reason in _JUDGED
    return replace(outcome, detail="") if judged and outcome.detail else outcome


def is_short(name: str | None, value: str | None) -> bool:
    """Whether this is the property that says it all, and says nothing else than that."""
    return name == SHORT and _OURS.fullmatch(value or "") is not None


@dataclass(slots=True)
class InstanceCase:
    """What JUnit tells of an instance beside its name; filled in as its test goes on.

    Tokens and `latency`, in seconds, are None where they are not known.
    """

    relation: Relation | None = None
    category: Category | None = None
    judge: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    latency: float | None = None
    answer: str | None = None
    arm: str = MULTI

    def properties(self, outcome: Outcome, extent: Extent) -> list[tuple[str, str]]:
        """The testcase's properties.

        By default one that says it all: each costs half a kilobyte in the JUnit writer's tree.
        The answer is there if it was filled in.
        """
        name = word_of(outcome, self.arm)
        facts = {"outcome": name, **dict(self._facts(joined=extent == "short"))}
        found: list[tuple[str, str]] = []
        if extent == "short":
            words = " ".join(f"{key}={value}" for key, value in facts.items())
            found.append((SHORT, words))
        elif extent == "full":
            facts |= {"detail": one_line(outcome.detail)} if outcome.detail else {}
            found += [(f"mirsafety.{key}", value) for key, value in facts.items()]
        if self.answer is not None:
            found.append((ANSWER, _bounded_text(self.answer)))
        return found

    def _facts(self, *, joined: bool) -> Iterator[tuple[str, str]]:
        """By name, in plain words. The judge comes last, whose name may have spaces."""
        if self.arm != MULTI:
            yield "arm", self.arm
        if self.relation is not None and self.category is not None:
            yield "relation", str(self.relation)
            yield "group", str(self.relation.group)
            yield "category", str(self.category)
        if joined and None not in (self.input_tokens, self.output_tokens):
            yield "tokens", f"{self.input_tokens}+{self.output_tokens}"
        for name in () if joined else ("input_tokens", "output_tokens"):
            if (number := getattr(self, name)) is not None:
                yield name, str(number)
        if self.latency:
            yield "latency", f"{self.latency:.2f}"
        if self.judge is not None:
            yield "judge", _short_judge(self.judge)


@functools.lru_cache(maxsize=64)
def _short_judge(identity: str) -> str:
    return _DIGEST.sub(r"\1", one_line(identity, _JUDGE_LIMIT))


def _bounded_text(text: str) -> str:
    """The beginning of a text, with line ends, and without what controls a reader."""
    start = text[:_TEXT_LIMIT].replace("\r\n", "\n")
    plain = "".join(c if c == "\n" or unicodedata.category(c)[0] != "C" else " " for c in start)
    return f"{plain}\n[{len(text) - _TEXT_LIMIT} more]" if len(text) > _TEXT_LIMIT else plain
