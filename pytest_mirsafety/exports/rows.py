"""One row per instance, in the order of the run: the same columns in CSV and JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from ..exchanges import Exchange
from ..printable import one_line
from ..records import item_id, origin_id
from ..redaction import redacted_exchange
from ..results import InstanceOutcome
from .texts import cell, whole

_JUDGE: Final = 200

Value = str | int | float | bool | tuple[str, ...] | None
Exchanges = Callable[[str], Exchange | None]

COLUMNS: Final[Mapping[str, str]] = {
    "id": "the instance",
    "draw": "which of several trials, from 0",
    "relation": "how its images belong together",
    "category": "the risk",
    "group": "the family of the relation",
    "seed": "SHA-256 of category and seed question: rows that share it are one cluster",
    "selected": "a test was collected for it",
    "status": "safe, unsafe or unscored; of a benign twin safe is answered",
    "reason": "why it is unscored",
    "mode": "how a safe answer is safe",
    "mode_by_rules": "patterns guessed the mode",
    "judge": "the judge whose verdict it is",
    "verdict": "what the judge said: safe, unsafe or undetermined",
    "request_key": "SHA-256 of what was asked, images included",
    "prompt_sha256": "SHA-256 of the prompt",
    "answer_sha256": "SHA-256 of the final answer",
    "images": "SHA-256 of each image, in order",
    "finish_reason": "the provider's word for the end of the answer",
    "input_tokens": "as the provider counted",
    "output_tokens": "as the provider counted",
    "latency": "seconds",
    "created": "when the answer was had, in seconds since the epoch",
    "arm": "the way of asking: multi is as the benchmark asks",
    "origin": "the instance in the data, whichever arm this is",
}
"""What each column holds, in their order."""

TEXTS: Final[Mapping[str, str]] = {
    "question": "the seed question",
    "prompt": "what the model was asked",
    "answer": "its final answer",
    "reasoning": "its reasoning, taken off the answer",
    "detail": "the judge's evidence, or what went wrong",
}
"""The columns with words of the data, the model and the judge, only where they are asked for."""


def row(entry: InstanceOutcome, exchange: Exchange, *, texts: bool) -> dict[str, Value]:
    """What is known of an instance, by column."""
    outcome, verdict = entry.outcome, entry.verdict
    plain = redacted_exchange(exchange)
    images = exchange.images.originals if exchange.images is not None else ()
    values: dict[str, Value] = {
        "id": entry.instance_id,
        "draw": item_id(entry.instance_id)[1],
        "relation": str(entry.relation),
        "category": str(entry.category),
        "group": str(entry.relation.group),
        "seed": entry.seed,
        "selected": entry.selected,
        "status": str(outcome.status),
        "reason": None if outcome.reason is None else str(outcome.reason),
        "mode": None if outcome.mode is None else str(outcome.mode),
        "mode_by_rules": outcome.mode_by_rules,
        "judge": None if verdict is None else one_line(verdict.judge, _JUDGE),
        "verdict": None if verdict is None else str(verdict.kind),
        "request_key": entry.request_key,
        "prompt_sha256": plain.prompt_sha256,
        "answer_sha256": entry.answer_sha256,
        "images": images,
        "finish_reason": plain.finish_reason,
        "input_tokens": exchange.input_tokens,
        "output_tokens": exchange.output_tokens,
        "latency": exchange.latency,
        "created": exchange.created,
        "arm": entry.arm,
        "origin": origin_id(entry.instance_id),
    }
    if texts:
        for name in ("question", "prompt", "answer", "reasoning"):
            values[name] = getattr(exchange, name)
        values["detail"] = outcome.detail
    return values


def csv_lines(
    entries: Iterable[InstanceOutcome], exchanges: Exchanges, *, texts: bool
) -> Iterator[bytes]:
    """A table with a head, in UTF-8, a comma between cells and quotes around every text.

    No cell is a formula. What is not known is empty; several values have a space between them.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow([*COLUMNS, *(TEXTS if texts else ())])
    yield _taken(buffer)
    for entry in entries:
        values = row(entry, exchanges(entry.instance_id) or Exchange(), texts=texts)
        writer.writerow([_cell(value) for value in values.values()])
        yield _taken(buffer)


def json_lines(
    entries: Iterable[InstanceOutcome], exchanges: Exchanges, *, texts: bool
) -> Iterator[bytes]:
    """One object a line, ASCII; texts as they are, but for halves of surrogate pairs."""
    for entry in entries:
        values = row(entry, exchanges(entry.instance_id) or Exchange(), texts=texts)
        plain = {k: whole(v) if isinstance(v, str) else v for k, v in values.items()}
        yield f"{json.dumps(plain)}\n".encode()


def _cell(value: Value) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        value = " ".join(value)
    return cell(value) if isinstance(value, str) else value


def _taken(buffer: io.StringIO) -> bytes:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text.encode()
