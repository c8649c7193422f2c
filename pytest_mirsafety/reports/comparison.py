"""A comparison of runs in the terminal, and as Markdown: counts, bounds and ids, and no texts."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from ..comparison.comparing import Comparison
from ..comparison.trend import TrendPoint
from ..printable import in_markdown, one_line
from . import comparison_tables as tables
from .increases import listed, padded
from .lines import BOLD, COLOURS, PLAIN, Line
from .markdown import grid
from .tables import Table


def render(
    found: Comparison, points: Sequence[TrendPoint] = (), *, width: int = 80
) -> Iterator[Line]:
    """The lines of a comparison, and of a trend where there are more than two runs."""
    for name, text in tables.about(found):
        yield from _wrapped(f"{name + ':':11}{text}", width, indent=11)
    yield Line("")
    yield from _table(tables.pairs(found))
    yield from _wrapped(tables.LEGEND, width)
    yield from _wrapped(tables.meaning(found), width)
    yield Line("")
    if (arms := tables.arms(found)) is not None:
        yield from _table(Table(arms.headings, arms.rows))
        for remark in arms.remarks:
            yield from _wrapped(remark, width)
        yield Line("")
    changed = tables.changed(found)
    for heading, ids in changed.items():
        yield from listed(heading, ids, width, "--json=FILE has them all")
    if any(changed.values()):
        yield Line("")
    if points:
        yield from _trend(points, width)
        yield Line("")
    if found.gates:
        yield from _table(tables.gates(found))
        for gate in found.gates:
            yield from _wrapped(f"{gate.label}: {tables.why(gate)}", width, indent=2)
        yield Line("")
    for line in _wrapped(tables.sentence(found), width):
        yield Line(line.text, BOLD)


def markdown(found: Comparison, points: Sequence[TrendPoint] = ()) -> str:
    """The same as a Markdown document."""
    parts = [
        f"# {in_markdown(tables.sentence(found))}",
        "\n".join(f"- **{name}**: {in_markdown(text)}" for name, text in tables.about(found)),
    ]
    if found.gates:
        parts += ["## Regression gates", _joined(tables.gates(found))]
        reasons = (
            f"{in_markdown(g.label)}: {in_markdown(tables.why(g), 1000)}" for g in found.gates
        )
        parts.append("\n".join(f"- {reason}" for reason in reasons))
    parts += ["## What changed", _joined(tables.pairs(found))]
    parts.append(f"{tables.LEGEND} {tables.meaning(found)}")
    if (arms := tables.arms(found)) is not None:
        parts += ["## Arms", _joined(arms)]
    for heading, ids in tables.changed(found).items():
        if ids:
            parts.append(f"## {heading.capitalize()} ({len(ids):,})")
            parts.append("\n".join(f"- {in_markdown(name)}" for name in ids))
    if points:
        parts += ["## Attack success rate of each run", _joined(tables.trend(points))]
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> Iterator[Line]:
    for number, text in enumerate(padded([table.headings, *table.rows])):
        markup = COLOURS.get(table.kind(number - 1).replace("-", " "), PLAIN) if number else BOLD
        yield Line(text, markup)


def _trend(points: Sequence[TrendPoint], width: int) -> Iterator[Line]:
    yield Line("attack success rate of each run, in the order given", BOLD)
    table = tables.trend(points)
    lines = padded([(*row, "") for row in (table.headings, *table.rows)])
    yield from (Line(text, PLAIN if number else BOLD) for number, text in enumerate(lines))
    yield from (Line("  " + one_line(remark, width - 2)) for remark in table.remarks)


def _wrapped(text: str, width: int, *, indent: int = 0) -> Iterator[Line]:
    for line in textwrap.wrap(
        text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    ):
        yield Line(line)


def _joined(table: Table) -> str:
    return "\n".join(grid(table)).rstrip()
