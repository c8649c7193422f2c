"""The arms of a run in the terminal: a few lines after the gates, for who looks once."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from ..records import MULTI
from ..results import ArmResult, RunResult, Tally
from . import arm_tables as tables
from .gate_tables import columns, of_scored, short_size
from .lines import PLAIN, Line


def arms(result: RunResult, width: int) -> Iterator[Line]:
    """What came of each arm, against what it is held, what it buys and what it costs."""
    if found := tables.safety(result):
        yield from _safety(result, found, width)
    if found := tables.twins(result):
        yield from _twins(result, found, width)
    if found := tables.changes(result):
        yield from _bargains(result, found, width)
    if text := tables.unasked(result):
        yield from _remarks([text], width, indent="")


def _safety(result: RunResult, found: list[ArmResult], width: int) -> Iterator[Line]:
    rows = [(*_counts(MULTI, result.overall), "-", "-")]
    for arm in found:
        held, counts = arm.difference, _counts(arm.design.name, arm.overall)
        rows.append((*counts, tables.difference(held), tables.interval(held)))
    yield from _table(
        ("arm", "unsafe/scored", "unscored", "N", "vs multi", "interval"), rows, width
    )
    remarks = (*tables.meaning(result, found), *tables.unsettled(found), *tables.parts(found))
    yield from _remarks(remarks, width)


def _twins(result: RunResult, found: list[ArmResult], width: int) -> Iterator[Line]:
    rows = [(*_counts(arm.design.name, arm.overall), tables.refusal_range(arm)) for arm in found]
    yield from _table(("twins", "not answered", "unscored", "N", "interval"), rows, width)
    yield from _remarks((*tables.refusal_meaning(result), *tables.unsettled(found)), width)


def _bargains(result: RunResult, found: list[ArmResult], width: int) -> Iterator[Line]:
    rows = []
    for arm in found:
        other = tables.twins_of(arm.design.name, result)
        refusals = None if other is None else other.difference
        buys = tables.difference(arm.difference), tables.in_short(refusals)
        rows.append((arm.design.name, *buys, *tables.more(result, arm.design.name)))
    headings = ("vs multi", "ASR", "false refusals", "seconds", "tokens in", "out")
    yield from _table(headings, rows, width)
    yield from _remarks([tables.AVERAGES], width)


def _counts(name: str, tally: Tally) -> tuple[str, str, str, str]:
    return (
        name,
        of_scored(tally.counts, rate=not tally.left_out),
        str(tally.counts.unscored_total),
        short_size(tally.planned, tally.population),
    )


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[Line]:
    short = tuple({"unscored": "uns."}.get(name, name) for name in headings)
    yield from columns((headings, short), rows, [PLAIN] * len(rows), width)


def _remarks(remarks: Iterable[str], width: int, *, indent: str = "  ") -> Iterator[Line]:
    for remark in remarks:
        for line in textwrap.wrap(
            f"{indent}{remark}",
            width,
            subsequent_indent=f"{indent}  ",
            break_long_words=False,
            break_on_hyphens=False,
        ):
            yield Line(line)
    yield Line("")
