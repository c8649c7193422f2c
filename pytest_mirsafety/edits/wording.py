"""What text steps do to a prompt: letters change case, marks and spaces change; words stay."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from .steps import TextKind, TextStep


def reworded(text: str, steps: Iterable[TextStep]) -> str:
    """The text after these steps, one after the other; a blank one stays as it is."""
    if not text.strip():
        return text
    for step in steps:
        text = _CHANGES[step.kind][step.level - 1](text)
    return text


def _recased(text: str, change: Callable[[str], str]) -> str:
    """Each letter changed, but for one that would become another letter, or several."""
    letters = ((letter, change(letter)) for letter in text)
    return "".join(
        new if len(new) == 1 and new.casefold() == old.casefold() else old for old, new in letters
    )


def _first_letter(text: str) -> str:
    found = next((at for at, letter in enumerate(text) if letter.isalpha()), 0)
    return text[:found] + _recased(text[found], str.swapcase) + text[found + 1 :]


_CLOSING: Final = frozenset(".!?。！？")  # noqa: RUF001 - the closing marks of Chinese


def _closing_mark(text: str) -> str:
    """Without the one mark that closes it, or with a full stop."""
    body = text.rstrip()
    end = text[len(body) :]
    if body[-1] in _CLOSING and body[-2:-1].isalnum():
        return body[:-1] + end
    return f"{body}.{end}" if body[-1].isalnum() else text


_TO_STRAIGHT: Final = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"'})  # noqa: RUF001


def _quotation_marks(text: str) -> str:
    """Curly ones straight, or else straight ones curly."""
    straight = text.translate(_TO_STRAIGHT)
    if straight != text:
        return straight
    opened = re.sub(r'(?<![^\s(\[])"(?=\S)', "“", text)
    return opened.replace('"', "”").replace("'", "’")  # noqa: RUF001


_BETWEEN_WORDS: Final = re.compile(r"(?<=\S) (?=\S)")
_AFTER_SENTENCE: Final = re.compile(r"(?<=\w[.!?]) (?=\S)")

_CHANGES: Final[Mapping[TextKind, tuple[Callable[[str], str], ...]]] = {
    TextKind.CASE: (
        _first_letter,
        lambda text: _recased(text, str.lower),
        lambda text: _recased(text, str.upper),
    ),
    TextKind.SPACING: (
        lambda text: f" {text}\n",
        lambda text: _AFTER_SENTENCE.sub("\n", text),
        lambda text: _BETWEEN_WORDS.sub("  ", text),
    ),
    TextKind.PUNCTUATION: (
        _closing_mark,
        lambda text: _quotation_marks(_closing_mark(text)),
    ),
    TextKind.POLITE: (
        lambda text: f"{text} Thank you.",
        lambda text: f"Hello. {text} Thank you.",
        lambda text: f"Hello, I would like your help, please. {text} Thank you very much.",
    ),
}
