"""What stays of a run without its texts: counts, verdicts, and digests to join by."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from .digests import text_digest
from .exchanges import Exchange
from .metamorphic import Flip, SearchResult
from .records import Outcome, Verdict
from .results import DECIDED, NOT_JUDGED, NOT_SELECTED, InstanceOutcome, RunResult

NOTE: Final = "redacted: questions, prompts, answers and what quotes them are left out"
"""What a redacted result notes, so that every report says it."""

_OWN: Final = frozenset({DECIDED, NOT_SELECTED, NOT_JUDGED})
"""Details that are ours, and quote nobody."""

_WORD: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,32}")


def redacted_exchange(exchange: Exchange) -> Exchange:
    """Without the texts and what a guard says of them; with the digests of prompt and answer."""
    reason = exchange.finish_reason
    return replace(
        exchange,
        question=None,
        prompt=None,
        answer=None,
        reasoning=None,
        finish_reason=reason if reason is not None and _WORD.fullmatch(reason) else None,
        prompt_sha256=_digest(exchange.prompt, exchange.prompt_sha256),
        answer_sha256=_digest(exchange.answer, exchange.answer_sha256),
        blocked=None if exchange.blocked is None else "blocked",  # a guard's words quote the texts
    )


def redacted_outcome(outcome: Outcome) -> Outcome:
    """Without its detail, which is a judge's evidence or an endpoint's words."""
    return outcome if outcome.detail in _OWN else replace(outcome, detail="")


def redacted_verdict(verdict: Verdict) -> Verdict:
    """Without evidence and flags; scores stay where their names are single words."""
    return replace(
        verdict,
        evidence="",
        flags=(),
        scores=tuple(score for score in verdict.scores if _WORD.fullmatch(score[0])),
        members=tuple(map(redacted_verdict, verdict.members)),
    )


def redacted_entry(entry: InstanceOutcome) -> InstanceOutcome:
    """With its outcome and its verdict redacted."""
    verdict = entry.verdict
    return replace(
        entry,
        outcome=redacted_outcome(entry.outcome),
        verdict=None if verdict is None else redacted_verdict(verdict),
    )


def redacted_search(found: SearchResult) -> SearchResult:
    """Without prompts, answers and what judges said; edits and digests stay."""
    return replace(
        found,
        flip=_redacted_flip(found.flip),
        order=_redacted_flip(found.order),
        unedited=tuple(map(redacted_outcome, found.unedited)),
        unscored=None if found.unscored is None else redacted_outcome(found.unscored),
    )


def _redacted_flip(flip: Flip | None) -> Flip | None:
    if flip is None:
        return None
    answers = (
        replace(one, outcome=redacted_outcome(one.outcome), answer=None) for one in flip.answers
    )
    return replace(flip, prompt=None, answers=tuple(answers))


def redacted_result(result: RunResult) -> RunResult:
    """Every entry redacted, and a note that says so; a result that is redacted stays as it is.

    Counts, gates and the ruling are the same. The system prompt stays: it is the run's, not the
    data's.
    """
    if result.redacted:
        return result
    return replace(
        result,
        outcomes=tuple(map(redacted_entry, result.outcomes)),
        arms=tuple(
            replace(arm, outcomes=tuple(map(redacted_entry, arm.outcomes))) for arm in result.arms
        ),
        flips=tuple(map(redacted_search, result.flips)),
        notes=tuple(dict.fromkeys((*result.notes, NOTE))),
        redacted=True,
    )


def _digest(text: str | None, known: str | None) -> str | None:
    return known if text is None else text_digest(text)
