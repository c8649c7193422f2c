"""Makes hostile text fit for a terminal, a log, an XML attribute or Markdown."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_ELLIPSIS = "…"
_SPECIAL: Final = re.compile(r"([\\`*_\[\]|~$#])")
_BROKEN: Final = (
    *(("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")),
    *(("://", "&#58;//"), ("www.", "www&#46;"), ("@", "&#64;")),
)


def one_line(text: str, limit: int = 200) -> str:
    """The text on one line of at most `limit` characters, with nothing that controls a terminal.

    Control, format, surrogate and private-use characters become spaces; runs of spaces become one.
    """
    visible = text[: limit * 4]
    if not visible.isprintable():
        visible = "".join(" " if unicodedata.category(c)[0] == "C" else c for c in visible)
    line = " ".join(visible.split())
    if len(line) > limit:
        return line[: limit - 1] + _ELLIPSIS
    return text if line == text else line  # no copy: a run keeps such lines for each instance


def in_markdown(text: str, limit: int = 400) -> str:
    """The text on one line, such that Markdown and the HTML in it show it as it is.

    No link, no mention, no table's end comes of it. A list may: see to what a line begins with.
    """
    line = _SPECIAL.sub(r"\\\1", one_line(text, limit))
    for told, shown in _BROKEN:
        line = line.replace(told, shown)
    return line
