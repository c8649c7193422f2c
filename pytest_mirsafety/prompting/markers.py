"""Takes a judge's control markers out of a text, so that an answer cannot speak as the template.

A marker is found in any case, with spaces or invisible characters within, and in full-width or
look-alike brackets. What is left of it is readable, and no marker: `[/INST]` becomes `(/INST)`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from ..printable import one_line

_LOOKALIKES: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys("\u3014\u3010\u3016\u2045\u27e6\u2772", "["),
        **dict.fromkeys("\u3015\u3011\u3017\u2046\u27e7\u2773", "]"),
        **dict.fromkeys("\u2039\u3008\u27e8\u276e\u2770\u02c2", "<"),
        **dict.fromkeys("\u203a\u3009\u27e9\u276f\u2771\u02c3", ">"),
        **dict.fromkeys("\u00ab\u300a\u226a\u27ea", "<<"),
        **dict.fromkeys("\u00bb\u300b\u226b\u27eb", ">>"),
        **dict.fromkeys("\u2223\u01c0\u2758\u00a6\u2502", "|"),
        **dict.fromkeys("\u2215\u2044\u29f8", "/"),
    }
)
"""Brackets, bars and slashes of other scripts and of mathematics, by code point."""

_HARMLESS: Final = str.maketrans({"[": "(", "<": "(", "]": ")", ">": ")", "|": ":"})
_MOST_SHOWN: Final = 4


@dataclass(frozen=True, slots=True)
class Markers:
    """Regular expressions of markers, written in lower case and without spaces."""

    patterns: tuple[str, ...]

    @classmethod
    def of_words(cls, *words: str) -> Markers:
        """Markers that are these words."""
        return cls(tuple(re.escape(_skeleton(word)[0]) for word in words))

    def __add__(self, other: Markers) -> Markers:
        return Markers(self.patterns + other.patterns)

    def neutralise(self, text: str) -> tuple[str, Counter[str]]:
        """The text without markers, and those that it had, as often as it had them."""
        found: Counter[str] = Counter()
        while passed := self._pass(text):  # each has fewer brackets than the one before
            text, markers = passed
            found += markers
        return text, found

    def _pass(self, text: str) -> tuple[str, Counter[str]] | None:
        skeleton, places = _skeleton(text)
        found: Counter[str] = Counter()
        pieces, position = [], 0
        for match in _compiled(self.patterns).finditer(skeleton):
            start, end = places[match.start()], places[match.end() - 1] + 1
            if start < position:  # one character stands for the end of this and that of another
                continue
            pieces += [text[position:start], match.group().translate(_HARMLESS)]
            position = end
            found[match.group()] += 1
        return ("".join((*pieces, text[position:])), found) if found else None


def flag(found: Counter[str], where: str) -> tuple[str, ...]:
    """What a verdict says of the markers in a text; nothing of none."""
    if not found:
        return ()
    shown = [
        f"{one_line(marker, 40)}{f' x{count}' if count > 1 else ''}"
        for marker, count in sorted(found.items())[:_MOST_SHOWN]
    ]
    more = ["..."] if len(found) > _MOST_SHOWN else []
    return (f"control markers in the {where}, made harmless: {', '.join(shown + more)}",)


def brackets_in(template: str) -> Markers:
    """The headings that a template itself has in brackets, such as `[BEHAVIOR]`: also markers."""
    words = re.findall(r"\[/?[^\[\]{}\n]{1,40}\]|<{1,2}/?[^<>{}\n]{1,60}>{1,2}", template)
    return Markers.of_words(*sorted(set(words)))


def _skeleton(text: str) -> tuple[str, list[int]]:
    """What a reader who overlooks case, width and gaps sees, and where each character is from."""
    characters: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        plain = _plain(character)
        characters.append(plain)
        places += [place] * len(plain)
    return "".join(characters), places


@lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    if character.isascii():
        return "" if character.isspace() or character < " " else character.lower()
    character = _LOOKALIKES.get(character, character)
    folded = unicodedata.normalize("NFKD", character).casefold()
    return "".join(
        _LOOKALIKES.get(c, c)
        for c in folded
        if unicodedata.category(c) not in _UNSEEN and not c.isspace()
    )


_UNSEEN: Final = frozenset({"Cc", "Cf", "Mn", "Me", "Zs", "Zl", "Zp", "Co", "Cn"})


@lru_cache(maxsize=32)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(sorted(patterns, key=len, reverse=True)) or r"(?!)")


LLAMA_2: Final = Markers.of_words(
    "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<s>", "</s>", "<unk>", "<pad>"
)
LLAMA_3: Final = Markers((r"<\|[^|<>]{1,40}\|>",))
CHAT: Final = (
    LLAMA_2 + LLAMA_3 + Markers.of_words("<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>")
)
"""Of the chat templates in use: a model behind an endpoint may have any of them."""
