"""What a search found as JSON and back: for a worker, and for a line of flips.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..edits import Edit
from ..records import Outcome
from ..taxonomy import Reason, Relation, Status
from .findings import Answered, Finding, Flip, SearchResult


def plain_result(result: SearchResult) -> dict[str, Any]:
    """The result as JSON."""
    return {
        "id": result.instance_id,
        "relation": result.relation,
        "finding": result.finding,
        "asked": result.asked,
        "tried": result.tried,
        "unrepeated": result.unrepeated,
        "unedited": [_plain_outcome(outcome) for outcome in result.unedited],
        "unscored": None if result.unscored is None else _plain_outcome(result.unscored),
        "flip": None if result.flip is None else _plain_flip(result.flip),
        "order": None if result.order is None else _plain_flip(result.order),
    }


def result_from(plain: Mapping[str, Any]) -> SearchResult:
    """The result that `plain_result` gave.

    Raises:
        ValueError: values that no search gives.
    """
    return SearchResult(
        plain["id"],
        Relation(plain["relation"]),
        Finding(plain["finding"]),
        _flip_from(plain["flip"]),
        tuple(map(_outcome_from, plain["unedited"])),
        plain["asked"],
        plain["tried"],
        plain["unrepeated"],
        None if plain["unscored"] is None else _outcome_from(plain["unscored"]),
        _flip_from(plain["order"]),
    )


def _plain_outcome(outcome: Outcome) -> dict[str, Any]:
    return {"status": outcome.status, "reason": outcome.reason, "detail": outcome.detail}


def _outcome_from(plain: Mapping[str, Any]) -> Outcome:
    reason = plain["reason"]
    return Outcome(
        Status(plain["status"]), None if reason is None else Reason(reason), plain["detail"]
    )


def _plain_flip(flip: Flip) -> dict[str, Any]:
    return {
        "edit": flip.edit.plain(),
        "in_words": flip.edit.describe(),
        "strength": float(flip.edit.strength),
        "answers": [
            {"request_key": one.request_key, "answer_sha256": one.answer_sha256}
            for one in flip.answers
        ],
        "images": list(flip.images),
        "prompt": flip.prompt,
        "answer": next((one.answer for one in flip.answers if one.answer is not None), None),
    }


def _flip_from(plain: Mapping[str, Any] | None) -> Flip | None:
    if plain is None:
        return None
    texts = [plain["answer"]]  # that of the first draw alone is kept
    answers = tuple(
        Answered(
            Outcome(Status.UNSAFE),
            one["request_key"],
            one["answer_sha256"],
            texts.pop() if texts else None,
        )
        for one in plain["answers"]
    )
    edit = Edit.from_plain(plain["edit"])
    return Flip(edit, answers, plain["prompt"], tuple(plain["images"]))
