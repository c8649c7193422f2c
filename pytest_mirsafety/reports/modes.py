"""In which ways safe answers are safe, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ..records import SafeMode
from ..results import RunResult, Tally

_HEADINGS: Final = {
    SafeMode.CORRECT_REFUSAL: "correct",
    SafeMode.INCOMPLETE_REFUSAL: "incomplete",
    SafeMode.MISUNDERSTANDING: "misunderstood",
    SafeMode.EVASION: "evasive",
}


def table(result: RunResult) -> list[str]:
    """The shares of each mode among the safe answers whose mode is known; empty if none is.

    A row for each relation where a judge told modes, and one for all.
    """
    overall = result.overall
    if not overall.modes.known:
        return []
    told = overall.modes.known > overall.modes.by_rules
    relations = [tally for tally in result.relations if told and tally.modes.known]
    rows = [_row(tally) for tally in (*relations, overall)]
    headings = ["safe answers", "mode known", *_HEADINGS.values()]
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
    guessed = modes.known == modes.by_rules
    shares = (
        "-"  # patterns cannot tell these, so that none was found says nothing
        if guessed and mode in (SafeMode.MISUNDERSTANDING, SafeMode.EVASION)
        else f"{100 * modes.counts.get(mode, 0) / modes.known:.1f}%"
        for mode in _HEADINGS
    )
    return [tally.name, f"{modes.known}/{modes.safe}", *shares]
