"""Terms in a text: as whole words, with the endings of regular plurals and verbs of English."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

from .rules import folded

_SPACELESS: Final = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD: Final = re.compile(rf"[{_SPACELESS}]|(?:(?![{_SPACELESS}])[^\W_])+(?:'[a-z]+)?")
_A_PLURAL: Final = 4
_HISSING: Final = ("s", "x", "z", "ch", "sh", "o")
_NO_PLURAL: Final = ("ss", "us", "is")
_Y: Final = re.compile(r"[^aeiou]y$")
_DOUBLED: Final = re.compile(r"[^aeiou][aeiou][^aeiouwxy]$")
_VOWELS: Final = re.compile(r"[aeiouy]+")

VERSION: Final = 1
"""Of how terms are found: to be raised with any change of it, so that the judge is another."""


@dataclass(frozen=True, slots=True)
class Term:
    """A term: its words but the last, and the forms that the last may have."""

    text: str
    before: tuple[str, ...]
    last: frozenset[str]

    @classmethod
    def of(cls, text: str) -> Self:
        """The term that is written so; one in which there is no word is found nowhere."""
        *before, last = words_of(text) or [""]
        return cls(text, tuple(before), frozenset(forms(last)) if last else frozenset())

    def stands_in(self, words: Sequence[str]) -> bool:
        """Whether the words hold the term, its words one after the other."""
        count = len(self.before)
        return any(
            word in self.last and tuple(words[place - count : place]) == self.before
            for place, word in enumerate(words)
            if place >= count
        )

    @property
    def words(self) -> frozenset[str]:
        """Every word that may be part of it."""
        return self.last.union(self.before)


def words_of(text: str) -> list[str]:
    """The words of a text, folded, without `'s`.

    Of a script that puts no spaces between words, each character is one.
    """
    return [word.removesuffix("'s") for word in _WORD.findall(folded(text))]


def forms(word: str) -> Iterator[str]:
    """A word as it may stand in a text: regular plurals and verbs, of itself and of its singular.

    `party` is also `parties`, `run` is `running`, `bake` is `baking` but no `baker`, and `tickets`
    is `ticket`. Irregular forms and other spellings are terms of their own.
    """
    yield from _inflected(word)
    if len(word) >= _A_PLURAL and word.endswith("s") and not word.endswith(_NO_PLURAL):
        yield from _inflected(f"{word[:-3]}y" if word.endswith("ies") else word[:-1])


def _inflected(word: str) -> Iterator[str]:
    yield word
    if not word.isascii() or not word.isalpha():
        return
    yield f"{word}s"
    if word.endswith(_HISSING):
        yield f"{word}es"
    if word.endswith("e"):
        yield from (f"{word}d", f"{word[:-1]}ing")
    elif _Y.search(word):
        yield from (f"{word[:-1]}ies", f"{word[:-1]}ied", f"{word}ing")
    else:
        yield from (f"{stem}{ending}" for stem in _stems(word) for ending in ("ed", "ing"))


def _stems(word: str) -> Iterator[str]:
    """Before `-ed` and `-ing`: `run` doubles, `water` does not, and `visit` might."""
    doubles = _DOUBLED.search(word) is not None
    if doubles:
        yield word + word[-1]
    if not doubles or len(_VOWELS.findall(word)) > 1:
        yield word
