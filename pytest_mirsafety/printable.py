"""Makes hostile text fit for a terminal, a log or an XML attribute."""

from __future__ import annotations

import unicodedata

_ELLIPSIS = "…"


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
