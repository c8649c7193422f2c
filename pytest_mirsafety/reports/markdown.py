"""A run as Markdown, for a pull request or a step summary: numbers and ids, never an answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from ..breakdown import break_down
from ..circumstances import Circumstances
from ..printable import in_markdown
from ..results import RunResult
from ..taxonomy import Status
from . import arm_tables, tables, words
from .tables import Table

MAX_LISTED: Final = 50
"""Unsafe instances that are named."""

_LEADING: Final = re.compile(r"^(\d*)([-+.)])")
_UNLISTED: Final = r"\1\\\2"


def render(
    result: RunResult,
    *,
    exit_code: int,
    page: str | None = None,
    circumstances: Circumstances | None = None,
) -> str:
    """The report of a run; `page` is the address of report.html beside it, if there is one.

    What a model, a judge or a dataset has written is on one line each, and means nothing to
    Markdown nor to HTML.
    """
    parts = (
        _decision(result, exit_code, page),
        _gates(result),
        _arms(result),
        _breakdown(result),
        _findings(result),
        _challenge(result),
        _section("Cost and time", _facts(tables.cost(result), code=False)),
        _section("Notes", map(_item, _notes(result))),
        _section("Provenance", _facts(_provenance(result, circumstances), code=True)),
    )
    text = "\n".join(line for part in parts for line in part)
    return re.sub(r"\n{3,}", "\n\n", text)


def _item(text: str) -> str:
    """An item of a list, which would be a list or a number itself if it began like one."""
    return f"- {_LEADING.sub(_UNLISTED, in_markdown(text, 1000))}"


def _decision(result: RunResult, exit_code: int, page: str | None) -> Iterator[str]:
    provenance = result.provenance
    yield f"# {in_markdown(words.sentence(result))}"
    yield ""
    asked, population = result.overall.planned, result.overall.population
    trials = result.design.trials
    yield (
        f"Model {_code(provenance.model_name)}, {tables.size(asked, population)} "
        f"{'answers' if trials.counted > 1 else 'instances'} of "
        f"{_code(provenance.data_source)}, judged by {_code(words.shortened(provenance.judge))}, "
        f"{words.date(provenance.started)}. {words.exit_in_words(result, exit_code)}"
    )
    yield ""
    if page is not None:
        yield f"Every instance is in [{in_markdown(page)}]({_address(page)})."
        yield ""


def _gates(result: RunResult) -> Iterator[str]:
    if result.design.shard is not None:
        return
    yield "## Gates"
    yield ""
    if not result.gates:
        yield "No gate is configured."
        yield ""
    for on_modes in (False, True):
        table = tables.gates(result, on_modes=on_modes)
        if table.rows:
            yield from grid(table)
    if against := tables.against(result):
        yield from (in_markdown(against), "")
        yield from grid(tables.increases(result))
    for decision, labels, why, step in tables.explanations(result):
        named = f"**{in_markdown(decision.upper())}** {in_markdown(labels)}"
        what = f"- {named}: {in_markdown(why, 1000)}."
        yield f"{what} *Next: {in_markdown(step)}.*" if step else what
    yield ""


def _arms(result: RunResult) -> Iterator[str]:
    """What came of each other way of asking, what it buys, and what it costs."""
    given = (
        arm_tables.rates(result),
        arm_tables.false_refusals(result),
        arm_tables.bargains(result),
        arm_tables.usage(result),
    )
    lines = [line for one in given if one is not None for line in grid(one)]
    unasked = arm_tables.unasked(result)
    yield from _section("Arms", [*lines, *([f"{in_markdown(unasked)}."] if unasked else [])])
    if (found := arm_tables.by_relation(result)) is not None:
        yield from _section("Arms by relation", grid(found))


def _breakdown(result: RunResult) -> Iterator[str]:
    breakdown = break_down(result)
    counted = "answers" if result.design.trials.counted > 1 else "instances"
    yield from _section(
        "Attack success rate by relation",
        [*grid(tables.rates(breakdown)), tables.interval_in_words(result)],
    )
    about = f"Unsafe of scored {counted}; blank is what the data does not have."
    yield from _section(
        "Attack success rate by relation and category",
        [*grid(tables.heatmap(breakdown)), about],
    )
    if (found := tables.safe_modes(result)) is not None:
        yield from _section("How safe answers are safe", grid(found))
    if (found := tables.unscored(breakdown)) is not None:
        yield from _section("Unscored by reason", grid(found))


def _findings(result: RunResult) -> Iterator[str]:
    """The ids of the unsafe, up to a limit."""
    found = [e.instance_id for e in result.outcomes if e.outcome.status is Status.UNSAFE]
    lines = [f"- {_code(name)}" for name in found[:MAX_LISTED]]
    if len(found) > MAX_LISTED:
        lines.append(f"- and {len(found) - MAX_LISTED:,} more")
    yield from _section(f"Unsafe ({len(found):,})", lines)


def _challenge(result: RunResult) -> Iterator[str]:
    if (found := tables.challenge(result)) is not None:
        yield from _section("Trial of the judge by known answers", grid(found))


def _provenance(result: RunResult, told: Circumstances | None) -> Mapping[str, str]:
    known = {} if told is None else tables.circumstances(told)
    return {**tables.provenance(result), **known}


def _notes(result: RunResult) -> list[str]:
    return [*result.notes, *words.left_out(result)]


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    """A heading and its lines; nothing if there are none."""
    body = list(lines)
    if body:
        yield from (f"## {title}", "", *body, "")


def grid(table: Table) -> Iterator[str]:
    """A table with its remarks below it as a list; an empty line ends each."""
    yield _row(table.headings)
    last = range(1, len(table.headings))
    yield _row(["---", *("---" if place in table.words else "---:" for place in last)], raw=True)
    for row in table.rows:
        yield _row(row)
    yield ""
    for remark in table.remarks:
        yield _item(remark)
    if table.remarks:
        yield ""


def _row(cells: Iterable[str], *, raw: bool = False) -> str:
    return f"| {' | '.join(cells if raw else map(in_markdown, cells))} |"


def _facts(rows: Mapping[str, str], *, code: bool) -> Iterator[str]:
    yield "| | |"
    yield "| --- | --- |"
    for name, value in rows.items():
        yield f"| {in_markdown(name)} | {_code(value) if code else in_markdown(value)} |"


def _code(text: str) -> str:
    """A name or a value: in <code>, where nobody is mentioned and no number is an issue's."""
    return f"<code>{in_markdown(text) or ' '}</code>"


def _address(page: str) -> str:
    from urllib.parse import quote

    return quote(page)
