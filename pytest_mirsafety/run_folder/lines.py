"""A line of results.jsonl: one instance, what it was asked, what became of it, and why."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import DataError
from ..exchanges import Exchange
from ..printable import one_line
from ..records import (
    Instance,
    Outcome,
    SafeMode,
    SentImages,
    Verdict,
    VerdictKind,
    item_id,
    text_digest,
)
from ..results import InstanceOutcome, RunDesign
from ..taxonomy import Category, Reason, Relation, Status

ANSWER_LIMIT: Final = 64 * 2**20
"""Characters that an answer may take as JSON; of a longer one only the digest is kept."""

TEXT_LIMIT: Final = 2**20
"""Characters that a question, prompt or reasoning may take as JSON; a longer one is not kept."""

_TEXTS: Final = ("question", "prompt", "answer", "reasoning")
LINE_LIMIT: Final = ANSWER_LIMIT + len(_TEXTS) * TEXT_LIMIT + 2**20
"""Bytes of the longest line that is written or read."""

_DETAIL_LIMIT: Final = 400
_WORDS_LIMIT: Final = 4000  # what a judge may say, and be called
_FLAG_LIMIT: Final = 200
_MOST: Final = 50  # flags, scores, members
_DEPTH: Final = 4  # members of members
_Texts = Mapping[str, str | None]
_Tokens = Annotated[int, Field(ge=0, le=2**53)]
_Seconds = Annotated[float, Field(ge=0, le=2**36)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Words = Annotated[str, Field(max_length=_WORDS_LIMIT)]
_Short = Annotated[str, Field(max_length=_FLAG_LIMIT)]
_Score = tuple[_Short, float | Literal["inf", "-inf", "nan"]]
_Model = TypeVar("_Model", bound=BaseModel)


class Strict(BaseModel):
    """Takes what it names, in the types that it names, and nothing else."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class _VerdictLine(Strict):
    kind: VerdictKind
    judge: _Words
    evidence: _Words
    mode: SafeMode | None
    flags: Annotated[tuple[_Short, ...], Field(max_length=_MOST)]
    scores: Annotated[tuple[_Score, ...], Field(max_length=_MOST)]
    members: Annotated[tuple[_VerdictLine, ...], Field(max_length=_MOST)]

    def verdict(self) -> Verdict:
        """The verdict that this line tells.

        Raises:
            ValueError: a mode of an answer that is not SAFE.
        """
        return Verdict(
            self.kind,
            self.judge,
            self.evidence,
            mode=self.mode,
            flags=self.flags,
            scores=tuple((name, float(value)) for name, value in self.scores),
            members=tuple(member.verdict() for member in self.members),
        )


class _Line(Strict):
    """One line of results.jsonl, but for its texts; what came later has a default."""

    id: Annotated[str, Field(pattern="^[A-Za-z0-9._/-]{1,200}(#[1-9][0-9]{0,3})?$")]
    relation: Relation
    category: Category
    seed: Digest
    gates: tuple[str, ...]
    selected: bool
    status: Status
    reason: Reason | None
    detail: Annotated[str, Field(max_length=_DETAIL_LIMIT)]
    request_key: Digest | None
    mode: SafeMode | None = None
    mode_by_rules: bool = False
    mode_open: bool = False
    draw: int = 0
    verdict: _VerdictLine | None = None
    answer_sha256: Digest | None = None
    images: Annotated[tuple[Digest, ...], Field(min_length=1, max_length=_MOST)] | None = None
    composed: Digest | None = None
    arm: Literal["multi"] = "multi"
    finish_reason: _Short | None = None
    input_tokens: _Tokens | None = None
    output_tokens: _Tokens | None = None
    latency: _Seconds | None = None
    created: _Seconds | None = None


def to_bytes(entry: InstanceOutcome, exchange: Exchange) -> bytes:
    """The line of an instance with its texts and the images of its request, and its end.

    Of an answer that is longer than any model's, only the digest is kept. What of the images is
    not known, or is not, has no key.
    """
    answer, images = exchange.answer, exchange.images
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
        "detail": one_line(entry.outcome.detail, _DETAIL_LIMIT),
        "request_key": entry.request_key,
        "mode": entry.outcome.mode,
        "mode_by_rules": entry.outcome.mode_by_rules,
        **({"mode_open": True} if entry.outcome.mode_open else {}),
        "verdict": None if entry.verdict is None else _plain(entry.verdict, _DEPTH),
        "answer_sha256": entry.answer_sha256 if answer is None else text_digest(answer),
        "arm": "multi",
        "finish_reason": _bounded(exchange.finish_reason),
        "input_tokens": exchange.input_tokens,
        "output_tokens": exchange.output_tokens,
        "latency": exchange.latency,
        "created": exchange.created,
    }
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


def _bounded(word: str | None) -> str | None:
    return None if word is None else one_line(word, _FLAG_LIMIT)


def _parts(line: bytes, place: str) -> tuple[bytes, _Texts]:
    """A line's fields without its texts, as JSON, and the texts.

    Raises:
        DataError: it is no object, or one of its texts is none.
    """
    # Apart from the rest: pydantic takes no text with half a surrogate pair, which a model can say.
    try:
        document = json.loads(line)
        known = document if isinstance(document, dict) else {}
        texts = {name: known.pop(name, None) for name in _TEXTS}
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
    fields, texts = _parts(line, place)
    record = validated(_Line, fields, place)
    return Exchange(
        **texts,
        finish_reason=record.finish_reason,
        input_tokens=record.input_tokens,
        output_tokens=record.output_tokens,
        latency=record.latency,
        created=record.created,
        images=None if record.images is None else SentImages(record.images, record.composed),
    )


class LineCheck:
    """What a record must agree with: the design, and the records before it."""

    def __init__(self, design: RunDesign) -> None:
        self._design = design
        self._ids: set[str] = set()
        self._cells: dict[tuple[Relation, Category], tuple[str, ...]] = {}

    def entry(self, line: bytes, place: str) -> InstanceOutcome:
        """The record as an outcome.

        Raises:
            DataError: it is malformed, or cannot be in a run of this design.
        """
        fields, texts = _parts(line, place)
        record = validated(_Line, fields, place)
        if record.id in self._ids:
            raise malformed(place, f"the instance {record.id} is there twice")
        self._ids.add(record.id)
        if not 0 <= item_id(record.id)[1] < self._design.trials.count:
            raise malformed(place, f"{record.id} is no trial of this run's {self._design.trials}")
        covering = self._covering(record.relation, record.category)
        drawn = tuple(label for label in covering if label in record.gates)
        if record.gates != (drawn if self._design.sampled else covering):
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
        if (problem := _contradiction(record, outcome, verdict, texts["answer"])) is not None:
            raise malformed(place, problem)
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
        )

    def _covering(self, relation: Relation, category: Category) -> tuple[str, ...]:
        """The gates whose population has such instances."""
        cell = relation, category
        if (known := self._cells.get(cell)) is None:
            like = Instance("", relation, category, "", "", ())
            criteria = (gate.criterion for gate in self._design.gates)
            known = tuple(c.label for c in criteria if c.covers(like))
            self._cells[cell] = known
        return known


def _contradiction(
    record: _Line, outcome: Outcome, verdict: Verdict | None, answer: str | None
) -> str | None:
    """What of a record denies the rest of it; None if nothing does."""
    if not record.selected and outcome.reason is not Reason.NOT_RUN:
        return "an instance that was not selected is not-run"
    if record.composed is not None and (record.images is None or len(record.images) == 1):
        return "composed: there are no images that it is made of"
    if answer is not None and text_digest(answer) != record.answer_sha256:
        return "answer: is not the one whose digest it has"
    if verdict is not None:
        opposite = {Status.SAFE: VerdictKind.UNSAFE, Status.UNSAFE: VerdictKind.SAFE}
        if verdict.kind is opposite.get(outcome.status):
            return f"verdict: {verdict.kind} of an instance that is {outcome.status}"
        if record.answer_sha256 is None:
            return "verdict: there is no answer that it is on"
    return None


def _plain(verdict: Verdict, depth: int) -> dict[str, Any]:
    """A verdict in JSON's own types, bounded: a judge may be a user's own."""
    members = verdict.members[:_MOST] if depth else ()
    return {
        "kind": verdict.kind,
        "judge": one_line(verdict.judge, _WORDS_LIMIT),
        "evidence": one_line(verdict.evidence, _WORDS_LIMIT),
        "mode": verdict.mode,
        "flags": [one_line(flag, _FLAG_LIMIT) for flag in verdict.flags[:_MOST]],
        "scores": [
            (one_line(name, _FLAG_LIMIT), value if math.isfinite(value) else str(float(value)))
            for name, value in verdict.scores[:_MOST]
        ],
        "members": [_plain(member, depth - 1) for member in members],
    }


def validated(model: type[_Model], content: bytes, place: str) -> _Model:
    """The content as this model.

    Raises:
        DataError: it is something else; the message has the first key that is wrong.
    """
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise malformed(place, f"{key}: {first['msg']}" if key else first["msg"]) from None


def malformed(place: str, problem: str) -> DataError:
    """The error for what is wrong in a place, on one line."""
    return DataError(one_line(f"{place}: {problem}", 400))
