"""Judges pairs of question and answer, with images where the judge looks at them: each once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from ..digests import digest
from ..errors import BadInputError, JudgeError, UnscoredError
from ..records import Verdict
from .asks import NO_PICTURES, Judging
from .calling import Caller
from .pictures import Pictures


class JudgingStage:
    """Gets verdicts from the judge; `ended` is told of each judging that has its end."""

    name = "the judge"
    failure: type[UnscoredError] = JudgeError
    allowed: tuple[type[UnscoredError], ...] = (BadInputError,)

    def __init__(
        self, caller: Caller, pictures: Pictures, ended: Callable[[Judging], None]
    ) -> None:
        self._caller = caller
        self._pictures = pictures
        self._ended = ended

    async def attempt(self, job: Judging) -> Verdict:
        """Read the images that the judge looks at, if any, and ask it once."""
        images = await self._pictures.read(job.pictured)
        try:
            judge = None if job.by is None else job.by.judge
            return await self._caller.verdict(job.question, job.answer, images, judge)
        except BadInputError as error:  # what is wrong with the data is not the judge's to say
            raise JudgeError(error.detail) from None

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
        job.pictured = NO_PICTURES
        self._ended(job)


def pair_key(question: str, answer: str, images: Sequence[str] = ()) -> str:
    """Digest of a question and an answer, and of the digests of images that belong to them."""
    pair = f"{len(question)} {question}{answer}"
    key = hashlib.sha256(pair.encode("utf-8", "surrogatepass")).hexdigest()
    return digest([key, *images]) if images else key
