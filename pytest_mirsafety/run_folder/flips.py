"""flips.jsonl of a run folder: what became of each instance that was tried by edits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from ..edits import Edit
from ..metamorphic import Finding, SearchResult
from ..metamorphic.plain import plain_result, result_from
from ..printable import one_line
from ..results import InstanceOutcome
from ..taxonomy import Reason, Relation, Status
from .forms import DETAIL_LIMIT, MOST, Digest, ResultsForm, Strict, malformed, validated

FLIPS: Final = "flips.jsonl"

TEXT_LIMIT: Final = 2**20
"""Characters of a prompt or an answer that are kept; of a longer one there is the digest."""

_LINE_LIMIT: Final = 32 * TEXT_LIMIT

_Count = Annotated[int, Field(ge=0, le=1_000_000)]
_Text = Annotated[str, Field(max_length=TEXT_LIMIT)]


class FlipOutcomeForm(Strict):
    """What became of one request."""

    status: Status
    reason: Reason | None
    detail: Annotated[str, Field(max_length=DETAIL_LIMIT)]


class FlipAnswerForm(Strict):
    """One of the answers that were UNSAFE after an edit, by digests."""

    request_key: Digest | None
    answer_sha256: Digest | None


class FlipForm(Strict):
    """An edit that flips a verdict: in words, how strong it is, what was asked and answered."""

    edit: Annotated[list[list[Any]], Field(max_length=MOST)]
    in_words: Annotated[str, Field(max_length=2000)]
    strength: float
    answers: Annotated[tuple[FlipAnswerForm, ...], Field(max_length=MOST)]
    images: Annotated[tuple[Digest, ...], Field(max_length=MOST)]
    prompt: _Text | None
    answer: _Text | None


class FlipLineForm(Strict):
    """One line of flips.jsonl."""

    id: Annotated[str, Field(max_length=300)]
    relation: Relation
    finding: Finding
    asked: _Count
    tried: _Count
    unrepeated: _Count
    unedited: Annotated[tuple[FlipOutcomeForm, ...], Field(max_length=MOST)]
    unscored: FlipOutcomeForm | None
    flip: FlipForm | None
    order: FlipForm | None


def to_lines(results: Sequence[SearchResult]) -> Iterator[bytes]:
    """The file, a line for each instance that was searched."""
    for result in results:
        plain = plain_result(result)
        for outcome in (*plain["unedited"], *filter(None, [plain["unscored"]])):
            outcome["detail"] = one_line(outcome["detail"], DETAIL_LIMIT)
        for flip in filter(None, (plain["flip"], plain["order"])):
            flip |= {name: _kept(flip[name]) for name in ("prompt", "answer")}
        yield json.dumps(plain, ensure_ascii=True).encode() + b"\n"


def _kept(text: str | None) -> str | None:
    """The text, if it is not too long; half a surrogate pair is in no JSON that others read."""
    if text is None or len(text) > TEXT_LIMIT:
        return None
    return text.encode("utf-8", "replace").decode()


def read(
    path: Path,
    place: str,
    expected: ResultsForm,
    outcomes: Mapping[str, InstanceOutcome],
    *,
    redacted: bool,
) -> tuple[SearchResult, ...]:
    """What the searches of a run found, each held against its record in results.jsonl.

    Raises:
        DataError: the file is not as the run wrote it, or says otherwise than results.jsonl.
    """
    found: list[SearchResult] = []
    sha256 = hashlib.sha256()
    try:
        if path.exists() and not path.is_file():
            raise malformed(place, "is no regular file")
        with path.open("rb") as file:
            while line := file.readline(_LINE_LIMIT + 1):
                if len(line) > _LINE_LIMIT or len(found) >= expected.records:
                    raise malformed(place, "has more or longer records than the run wrote")
                sha256.update(line)
                at = f"{place}, line {len(found) + 1}"
                found.append(_result(line, at, outcomes, redacted=redacted))
    except OSError as error:
        raise malformed(place, f"cannot be read: {error.strerror or error}") from None
    if (len(found), sha256.hexdigest()) != (expected.records, expected.sha256):
        wrote = f"the {expected.records} records that the run wrote"
        raise malformed(place, f"does not hold {wrote}; run it again")
    if len({one.instance_id for one in found}) != len(found):
        raise malformed(place, "has an instance twice")
    return tuple(found)


def _result(
    line: bytes, place: str, outcomes: Mapping[str, InstanceOutcome], *, redacted: bool
) -> SearchResult:
    form = validated(FlipLineForm, line, place)
    flips = [flip for flip in (form.flip, form.order) if flip is not None]
    if redacted and any(flip.prompt is not None or flip.answer is not None for flip in flips):
        raise malformed(place, "has a text, in a run that is redacted")
    try:
        result = result_from(form.model_dump())
        worded = all(Edit.from_plain(f.edit).describe() == f.in_words for f in flips)
    except ValueError as error:
        raise malformed(place, one_line(str(error))) from None
    entry, outcome = outcomes.get(form.id), result.outcome
    if (
        entry is None
        or not worded
        or (entry.relation, entry.outcome.status, entry.outcome.reason)
        != (result.relation, outcome.status, outcome.reason)
    ):
        raise malformed(place, "says otherwise than results.jsonl")
    return result
