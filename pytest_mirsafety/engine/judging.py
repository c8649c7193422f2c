"""Judges pairs of question and answer: each pair once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from ..errors import JudgeError, UnscoredError
from ..records import Verdict
from .asks import Judging
from .calling import Caller


class JudgingStage:
    """Gets verdicts from the judge; `ended` is told of each judging that has its end."""

    name = "the judge"
    failure: type[UnscoredError] = JudgeError
    allowed: tuple[type[UnscoredError], ...] = ()

    def __init__(self, caller: Caller, ended: Callable[[Judging], None]) -> None:
        self._caller = caller
        self._ended = ended

    async def attempt(self, job: Judging) -> Verdict:
        """Ask the judge once."""
        return await self._caller.verdict(job.question, job.answer)

    def used(self, result: Verdict) -> tuple[int | None, int | None]:  # noqa: ARG002 - part of the protocol
        """Not known: a judge does not tell."""
        return None, None

    async def succeed(self, job: Judging, result: Verdict) -> None:
        """End with this verdict."""
        job.verdict = result
        self._end(job)

    def fail(self, job: Judging, failure: UnscoredError) -> None:
        """End without a verdict."""
        job.failure = failure
        self._end(job)

    def _end(self, job: Judging) -> None:
        job.question = job.answer = ""  # its key has them; the text need not stay
        self._ended(job)


def pair_key(question: str, answer: str) -> str:
    """Digest of a question and an answer."""
    pair = f"{len(question)} {question}{answer}"
    return hashlib.sha256(pair.encode("utf-8", "surrogatepass")).hexdigest()
