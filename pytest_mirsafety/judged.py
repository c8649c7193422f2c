"""What a judge is asked about, by digests: what its verdict is kept under."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from .digests import canonical_json, text_digest


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """Which judge is asked about what: texts by the SHA-256 of their UTF-8.

    `images` are the SHA-256 digests of those that the judge looks at, in order; none where it
    looks at none.
    """

    judge: str
    question: str
    answer: str
    images: tuple[str, ...] = ()

    @classmethod
    def of(cls, judge: str, question: str, answer: str, images: tuple[str, ...] = ()) -> JudgedPair:
        """The pair of these texts, for the judge of this identity, and what else it looks at."""
        return cls(judge, text_digest(question), text_digest(answer), images)

    @property
    def canonical(self) -> str:
        """Canonical JSON of all of it: what `key` digests."""
        return canonical_json([self.judge, self.question, self.answer, *self.images])

    @property
    def key(self) -> str:
        """SHA-256 (hex) of the canonical JSON."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()
