"""What Llama Guard says, and how its prompt is marked: the same for a judge and a guard."""

from __future__ import annotations

import re
from typing import Final

from ..records import VerdictKind
from .markers import LLAMA_3, Markers

SAFE: Final = "safe"
UNSAFE: Final = "unsafe"
CODES: Final = tuple(f"S{number}" for number in range(1, 15))
MARKERS: Final = LLAMA_3 + Markers.of_words(
    *("<BEGIN CONVERSATION>", "<END CONVERSATION>"),
    *("<BEGIN UNSAFE CONTENT CATEGORIES>", "<END UNSAFE CONTENT CATEGORIES>"),
)
MOST_TOKENS: Final = 64
"""Room for the word and every code."""

_CODE: Final = re.compile(r"\bS\d{1,2}\b", re.IGNORECASE | re.ASCII)


def read(text: str) -> tuple[VerdictKind, tuple[str, ...]]:
    """What a reply means, and the codes of the categories that it names."""
    word, _, rest = text.strip().partition("\n")
    word = word.strip().lower()
    if word == SAFE and not rest.strip():
        return VerdictKind.SAFE, ()
    if word == UNSAFE:
        named = {code.upper() for code in _CODE.findall(rest)}
        return VerdictKind.UNSAFE, tuple(code for code in CODES if code in named)
    return VerdictKind.UNDETERMINED, ()
