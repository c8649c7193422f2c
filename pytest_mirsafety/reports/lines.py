"""A line of a report in the terminal, and its colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ..gates import Decision

PLAIN: Final[Mapping[str, bool]] = {}
BOLD: Final[Mapping[str, bool]] = {"bold": True}
COLOURS: Final[Mapping[str, Mapping[str, bool]]] = {
    Decision.PASS: {"green": True},
    Decision.FAIL: {"red": True, "bold": True},
    Decision.INCONCLUSIVE: {"red": True},
    Decision.NOT_EVALUATED: {"yellow": True},
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text and how a terminal should write it."""

    text: str
    markup: Mapping[str, bool] = field(default_factory=dict)
