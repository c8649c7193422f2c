"""What a run would ask, as lines for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Final

from ..engine.estimates import GateAhead, Preview
from ..gates.wording import percent
from ..printable import one_line
from .lines import Line
from .words import usd

_INDENT: Final = 9
_UNITS: Final = ("bytes", "kB", "MB", "GB", "TB")
_THOUSAND: Final = 1000


def render(preview: Preview, *, width: int = 80) -> list[Line]:
    """The section's lines, none longer than the width unless one word is."""
    rows = {
        "model": preview.model,
        "data": _selection(preview),
        "store": _store(preview),
        "to ask": _asked(preview),
        "tokens": _tokens(preview),
        "cost": _cost(preview),
        "judge": _judge(preview),
    }
    lines = [Line("a dry run: nothing is asked or decided", {"bold": True})]
    for name, text in rows.items():
        if text:
            shown = f"{name + ':':{_INDENT}}{one_line(text, 400)}"
            lines += map(Line, _wrapped(shown, width, indent=_INDENT))
    lines.append(Line(""))
    lines += map(Line, _table(preview))
    for note in _notes(preview):
        lines += map(Line, _wrapped(f"note: {one_line(note, 1000)}", width, indent=6))
    return lines


def _selection(preview: Preview) -> str:
    chosen = preview.chosen
    own = chosen.selected - sum(chosen.arms.values())
    arms = "".join(f", {number:,} as {arm}" for arm, number in chosen.arms.items())
    if own == chosen.population:
        return f"{preview.data}, all {_number(chosen.population, 'instance')}{arms}"
    size = f"{own:,} of {_number(chosen.population, 'instance')}"
    planned = f" ({chosen.planned:,} planned)" if chosen.planned < chosen.population else ""
    return f"{preview.data}, {size}{planned}{arms}"


def _store(preview: Preview) -> str:
    if preview.recorded:
        return ""
    held, selected = preview.chosen.held, preview.chosen.selected
    return f"{preview.store} holds the answers of {held:,} of them" if selected else ""


def _asked(preview: Preview) -> str:
    if preview.recorded:
        return "nothing: the answers are recorded"
    asking, to_ask = preview.asking, preview.chosen.to_ask
    if not asking.requests:
        return "nothing"
    shared = f" for {_number(to_ask, 'instance')}" if asking.requests < to_ask else ""
    requests = f"{_number(asking.requests, 'request')}{shared}"
    if not asking.images:
        return requests
    sent = f"{_size(asking.base64_bytes)} as base64" if asking.base64_bytes else "not sent"
    images = f"{_number(asking.images, 'image')} of {_size(asking.image_bytes)}"
    return f"{requests}, {images} ({sent})"


def _tokens(preview: Preview) -> str:
    usage = preview.usage
    if not preview.asking.requests:
        return ""
    if usage.learned_from:
        basis = f"going by {_number(usage.learned_from, 'answer')} in the store"
    else:
        basis = (
            f"4 characters a token, {usage.image_tokens:,} an image, "
            f"{usage.output_tokens:,} an answer"
        )
    tokens = usage.tokens
    return f"about {tokens.input:,} of input and {tokens.output:,} of output ({basis})"


def _cost(preview: Preview) -> str:
    if not preview.asking.requests:
        return ""
    cost = preview.usage.cost
    if cost is None:
        return "no prices configured: input_price, output_price"
    return f"about {usd(cost)}"


def _judge(preview: Preview) -> str:
    judging = preview.judging
    images = f", with {_number(judging.images, 'image')}" if judging.images else ""
    return f"{judging.judge}, up to {_number(judging.calls, 'verdict')}{images}"


def _table(preview: Preview) -> Iterator[str]:
    if not preview.gates:
        return
    headings = ("gate", "limit", "N", "selected")
    rows = [headings, *map(_row, preview.gates)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *cells])
    yield ""


def _row(gate: GateAhead) -> tuple[str, str, str, str]:
    size = str(gate.population)
    if gate.planned != gate.population:
        size = f"{gate.planned}/{size}"
    return gate.label, f"{gate.sign}{percent(gate.threshold)}", size, str(gate.selected)


def _notes(preview: Preview) -> Iterator[str]:
    asks = preview.asking.requests > 0
    if unreadable := preview.chosen.unreadable:
        yield f"images of {_number(unreadable, 'instance')} cannot be read: bad input"
    if not preview.decides:
        yield "the run itself would decide nothing: it only reports, or is a shard"
    if preview.budget is not None and asks:
        relation = "less than" if preview.over_budget else "enough for"
        yield f"the budget of {preview.budget} is {relation} this estimate"
    if not preview.judging.local:
        yield "a judge's own calls are not priced"
    if asks:
        yield "attempts that fail and are repeated are not counted"
    yield from preview.notes


def _number(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _size(size: int) -> str:
    """Such as 812 bytes, 1.4 MB."""
    value, unit = float(size), 0
    while value >= _THOUSAND and unit < len(_UNITS) - 1:
        value, unit = value / _THOUSAND, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{size} bytes"


def _wrapped(text: str, width: int, *, indent: int) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
