"""Makes hostile text fit for files that other programs read, without losing what it says."""

from __future__ import annotations

import unicodedata
from typing import Final

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001
"""How a cell begins that a spreadsheet takes for a formula (OWASP, CSV injection)."""


def whole(text: str) -> str:
    """The text with every half of a surrogate pair replaced: UTF-8 has no form for one."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def cell(text: str) -> str:
    """The text for a spreadsheet: what would be a formula is text, and nothing controls anything.

    Line ends stay; other characters that control, format or separate lines become spaces.
    """
    text = whole(text).replace("\r\n", "\n")
    if not text.isprintable():
        text = "".join(" " if c != "\n" and _controls(c) else c for c in text)
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def _controls(character: str) -> bool:
    kind = unicodedata.category(character)
    return kind[0] == "C" or kind in ("Zl", "Zp")
