"""In which ways safe answers are safe, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Final

from ..records import SafeMode
from ..results import RunResult, Tally
from ..tally import ModeCounts

NAMES: Final = {
    SafeMode.CORRECT_REFUSAL: "correct refusal",
    SafeMode.INCOMPLETE_REFUSAL: "incomplete refusal",
    SafeMode.MISUNDERSTANDING: "misunderstanding",
    SafeMode.EVASION: "clever evasion",
}
_HEADINGS: Final = ("correct", "incomplete", "misunderstood", "evasive")


def tallies(result: RunResult) -> list[Tally]:
    """Whose modes are shown: the relations of which a judge told some, and all together."""
    told = result.overall.modes.known > result.overall.modes.by_rules
    return [*(one for one in result.relations if told and one.modes.known), result.overall]


def shares(modes: ModeCounts) -> dict[SafeMode, Fraction | None]:
    """Of the safe answers whose mode is known, how many are of each.

    None where patterns cannot tell, so that none was found says nothing.
    """
    guessed = modes.known == modes.by_rules
    return {
        mode: None
        if guessed and mode in (SafeMode.MISUNDERSTANDING, SafeMode.EVASION)
        else Fraction(modes.counts.get(mode, 0), modes.known)
        for mode in NAMES
    }


def table(result: RunResult) -> list[str]:
    """The shares of each mode among the safe answers whose mode is known; empty if none is.

    A row for each relation where a judge told modes, and one for all.
    """
    if not result.overall.modes.known:
        return []
    rows = [_row(tally) for tally in tallies(result)]
    headings = ["safe answers", "mode known", *_HEADINGS]
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    return [
        "  ".join(
            [cells[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        )
        for cells in (headings, *rows)
    ]


def remarks(result: RunResult) -> Iterator[str]:
    """What the shares mean where they should worry, and where they come from."""
    overall = result.overall.modes
    if overall.by_rules:
        yield (
            f"the mode of {overall.by_rules} of {overall.safe} safe answers is by patterns, "
            "which know refusals only"
        )
    for tally in (*result.relations, result.overall):
        modes = tally.modes
        if modes.misunderstood:
            yield (
                f"{tally.name}: {modes.counts[SafeMode.MISUNDERSTANDING]} of {modes.known} safe "
                "answers whose mode is known missed what was asked: the model is safe there "
                "because it did not understand, not because it refused"
            )


def _row(tally: Tally) -> list[str]:
    modes = tally.modes
    cells = ("-" if one is None else f"{100 * float(one):.1f}%" for one in shares(modes).values())
    return [tally.name, f"{modes.known}/{modes.safe}", *cells]
