"""A line of results.jsonl: one instance, what it was asked, what became of it, and why."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final, cast

from pydantic import ValidationError

from ..arms import ArmKind, kind_of
from ..digests import text_digest
from ..exchanges import Exchange
from ..printable import one_line
from ..records import (
    MULTI,
    Instance,
    Outcome,
    SentImages,
    Verdict,
    VerdictKind,
    arm_id,
    item_id,
    origin_id,
)
from ..results import InstanceOutcome, RunDesign
from ..taxonomy import Category, Reason, Relation, Status
from .forms import (
    DETAIL_LIMIT,
    FLAG_LIMIT,
    LINES,
    MOST,
    SCHEMA_VERSION,
    TEXTS,
    WHOLE_LINES,
    WORDS_LIMIT,
    LineForm,
    LineForm2,
    LineForm3,
    malformed,
    validated,
)

ANSWER_LIMIT: Final = 64 * 2**20
"""Characters that an answer may take as JSON; of a longer one only the digest is kept."""

TEXT_LIMIT: Final = 2**20
"""Characters that a question, prompt or reasoning may take as JSON; a longer one is not kept."""

_TEXTS: Final = TEXTS[SCHEMA_VERSION]
LINE_LIMIT: Final = ANSWER_LIMIT + len(_TEXTS) * TEXT_LIMIT + 2**20
"""Bytes of the longest line that is written or read."""

_DEPTH: Final = 4  # members of members
_Texts = Mapping[str, str | None]


def to_bytes(entry: InstanceOutcome, exchange: Exchange) -> bytes:
    """The line of an instance with its texts and the images of its request, and its end.

    Of an answer that is longer than any model's, only the digest is kept. What of the images is
    not known, or is not, has no key.
    """
    answer_sha256 = _digest(exchange.answer, exchange.answer_sha256)
    images = exchange.images
    record: dict[str, object] = {
        "id": entry.instance_id,
        **({"draw": draw} if (draw := item_id(entry.instance_id)[1]) else {}),
        "relation": entry.relation,
        "category": entry.category,
        "seed": entry.seed,
        "gates": entry.gates,
        "selected": entry.selected,
        "status": entry.outcome.status,
        "reason": entry.outcome.reason,
        "detail": one_line(entry.outcome.detail, DETAIL_LIMIT),
        "request_key": entry.request_key,
        "mode": entry.outcome.mode,
        "mode_by_rules": entry.outcome.mode_by_rules,
        **({"mode_open": True} if entry.outcome.mode_open else {}),
        "verdict": None if entry.verdict is None else _plain(entry.verdict, _DEPTH),
        "answer_sha256": answer_sha256 or entry.answer_sha256,
        "prompt_sha256": _digest(exchange.prompt, exchange.prompt_sha256),
        "arm": entry.arm,
        "finish_reason": _bounded(exchange.finish_reason),
        "input_tokens": exchange.input_tokens,
        "output_tokens": exchange.output_tokens,
        "latency": exchange.latency,
        "created": exchange.created,
    }
    if exchange.blocked is not None:
        record["blocked"] = one_line(exchange.blocked, DETAIL_LIMIT)
    if images is not None and images.originals:
        record["images"] = images.originals
        if images.composed is not None:
            record["composed"] = images.composed
    texts = {name: _text(name, getattr(exchange, name)) for name in _TEXTS}
    told = ", ".join(f'"{name}": {text}' for name, text in texts.items())
    return f"{json.dumps(record, ensure_ascii=True)[:-1]}, {told}}}\n".encode()


def _text(name: str, text: str | None) -> str:
    """A text as JSON, if it is one that is kept."""
    written = "null" if text is None else json.dumps(text, ensure_ascii=True)
    return written if len(written) <= (ANSWER_LIMIT if name == "answer" else TEXT_LIMIT) else "null"


def _digest(text: str | None, known: str | None) -> str | None:
    return known if text is None else text_digest(text)


def _bounded(word: str | None) -> str | None:
    return None if word is None else one_line(word, FLAG_LIMIT)


def _record(line: bytes, place: str, version: int) -> tuple[LineForm, _Texts]:
    """A line as its version's form, and its texts.

    Raises:
        DataError: it is none.
    """
    try:  # what nearly every line is, read once
        record = WHOLE_LINES[version].model_validate_json(line)
    except ValidationError:  # what is wrong is told in our words; or it has half a surrogate pair
        fields, texts = _parts(line, place, version)
        return validated(LINES[version], fields, place), texts
    return record, {name: getattr(record, name) for name in TEXTS[version]}


def _parts(line: bytes, place: str, version: int) -> tuple[bytes, _Texts]:
    """A line's fields without the texts of its version, as JSON, and the texts.

    Raises:
        DataError: it is no object, or one of its texts is none.
    """
    # Apart from the rest: pydantic takes no text with half a surrogate pair, which a model can say.
    try:
        document = json.loads(line)
        known = document if isinstance(document, dict) else {}
        texts = {name: known.pop(name, None) for name in TEXTS[version]}
        rest = json.dumps(document, ensure_ascii=True).encode()
    except (ValueError, RecursionError):
        raise malformed(place, "is not JSON") from None
    for name, text in texts.items():
        if not isinstance(text, str | None):
            raise malformed(place, f"{name}: is no text")
    return rest, texts


def exchange_of(line: bytes, place: str) -> Exchange:
    """What a line tells of what was asked and what came back.

    Raises:
        DataError: it is no line of a run.
    """
    found, texts = _record(line, place, SCHEMA_VERSION)  # which has all that others have
    record = cast("LineForm3", found)
    return Exchange(
        **texts,
        finish_reason=record.finish_reason,
        input_tokens=record.input_tokens,
        output_tokens=record.output_tokens,
        latency=record.latency,
        created=record.created,
        images=None if record.images is None else SentImages(record.images, record.composed),
        prompt_sha256=record.prompt_sha256,
        answer_sha256=record.answer_sha256,
        blocked=record.blocked,
    )


class LineCheck:
    """What a record must agree with: version, design, and the records before it."""

    def __init__(
        self, design: RunDesign, version: int = SCHEMA_VERSION, *, redacted: bool = False
    ) -> None:
        self._design = design
        self._version = version
        self._redacted = redacted
        self._ids: set[str] = set()
        self._arms = {MULTI: None, **{arm.name: arm for arm in design.arms}}
        self._cells: dict[tuple[str, Relation, Category], tuple[str, ...]] = {}

    def entry(self, line: bytes, place: str) -> InstanceOutcome:
        """The record as an outcome.

        Raises:
            DataError: it is malformed, or cannot be in a run of this design.
        """
        record, texts = _record(line, place, self._version)
        if record.id in self._ids:
            raise malformed(place, f"the instance {record.id} is there twice")
        self._ids.add(record.id)
        if not 0 <= item_id(record.id)[1] < self._design.trials.count:
            raise malformed(place, f"{record.id} is no trial of this run's {self._design.trials}")
        arm = record.arm if isinstance(record, LineForm2) else MULTI
        if arm not in self._arms or record.id != self._own_id(record.id, arm):
            raise malformed(place, f"arm: {record.id} is of no arm of this run")
        covering = self._covering(arm, record.relation, record.category)
        drawn = tuple(label for label in covering if label in record.gates)
        sampled = self._design.sampled and kind_of(arm) is ArmKind.SAFETY
        if record.gates != (drawn if sampled else covering):
            raise malformed(place, f"gates: it counts for {', '.join(covering) or 'none'}")
        try:
            outcome = Outcome(
                record.status,
                record.reason,
                record.detail,
                record.mode,
                record.mode_by_rules,
                record.mode_open,
            )
            verdict = None if record.verdict is None else record.verdict.verdict()
        except ValueError as error:
            raise malformed(place, str(error)) from None
        if (problem := _contradiction(record, outcome, verdict, texts)) is not None:
            raise malformed(place, problem)
        if self._redacted and any(text is not None for text in texts.values()):
            raise malformed(place, "a redacted run holds no text")
        return InstanceOutcome(
            instance_id=record.id,
            relation=record.relation,
            category=record.category,
            seed=record.seed,
            outcome=outcome,
            gates=covering if record.gates == covering else drawn,
            selected=record.selected,
            request_key=record.request_key,
            verdict=verdict,
            answer_sha256=record.answer_sha256,
            arm=arm,
        )

    @staticmethod
    def _own_id(instance_id: str, arm: str) -> str:
        """The id that such an instance has in this arm."""
        _, mark, draw = instance_id.partition("#")
        return f"{arm_id(origin_id(instance_id), arm)}{mark}{draw}"

    def _covering(self, arm: str, relation: Relation, category: Category) -> tuple[str, ...]:
        """The gates whose population has such instances."""
        cell = arm, relation, category
        if (known := self._cells.get(cell)) is None:
            like = Instance("", relation, category, "", "", (), arm=arm)
            criteria = (gate.criterion for gate in self._design.gates)
            known = tuple(c.label for c in criteria if c.covers(like))
            self._cells[cell] = known
        return known


def _contradiction(
    record: LineForm, outcome: Outcome, verdict: Verdict | None, texts: _Texts
) -> str | None:
    """What of a record denies the rest of it; None if nothing does."""
    if not record.selected and outcome.reason is not Reason.NOT_RUN:
        return "an instance that was not selected is not-run"
    if record.composed is not None and (record.images is None or len(record.images) == 1):
        return "composed: there are no images that it is made of"
    for name, kept in _kept_digests(record).items():
        if (text := texts.get(name)) is not None and text_digest(text) != kept:
            return f"{name}: is not the one whose digest it has"
    if verdict is not None:
        opposite = {Status.SAFE: VerdictKind.UNSAFE, Status.UNSAFE: VerdictKind.SAFE}
        if verdict.kind is opposite.get(outcome.status):
            return f"verdict: {verdict.kind} of an instance that is {outcome.status}"
        if record.answer_sha256 is None:
            return "verdict: there is no answer that it is on"
    return None


def _kept_digests(record: LineForm) -> _Texts:
    found = {"answer": record.answer_sha256}
    return {**found, "prompt": record.prompt_sha256} if isinstance(record, LineForm2) else found


def _plain(verdict: Verdict, depth: int) -> dict[str, Any]:
    """A verdict in JSON's own types, bounded: a judge may be a user's own."""
    members = verdict.members[:MOST] if depth else ()
    return {
        "kind": verdict.kind,
        "judge": one_line(verdict.judge, WORDS_LIMIT),
        "evidence": one_line(verdict.evidence, WORDS_LIMIT),
        "mode": verdict.mode,
        "flags": [one_line(flag, FLAG_LIMIT) for flag in verdict.flags[:MOST]],
        "scores": [
            (one_line(name, FLAG_LIMIT), value if math.isfinite(value) else str(float(value)))
            for name, value in verdict.scores[:MOST]
        ],
        "members": [_plain(member, depth - 1) for member in members],
    }
