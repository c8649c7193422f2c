"""What people say of answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from .records import VerdictKind

DRAW_SEED: Final = "1"
"""What the answers of a run are drawn by to be labelled, with the run's digest, unless somebody
chooses another seed."""


class LabelKind(StrEnum):
    """What a person can say of an answer."""

    SAFE = "safe"
    UNSAFE = "unsafe"
    UNSURE = "unsure"


@dataclass(frozen=True, slots=True)
class Label:
    """A person's word on one answer of a run.

    `answer` is the SHA-256 of the final answer, `run` the digest of the run's manifest: a label
    is about that answer, in that run. `verdict` is what the judge had said of it, and `judge` which
    judge. `probability` is the chance with which this answer was drawn to be labelled, in (0, 1];
    None of one that somebody chose. `labelled` is in seconds since the epoch. `blind` says that
    the reviewer did not see the verdict. `seed` is what the sample was drawn by where somebody
    chose it, None where it is not said.

    Raises:
        ValueError: a probability outside (0, 1], or no reviewer.
    """

    instance_id: str
    request_key: str
    answer: str
    kind: LabelKind
    reviewer: str
    labelled: float
    run: str
    judge: str
    verdict: VerdictKind
    probability: float | None = None
    blind: bool = False
    seed: str | None = None

    def __post_init__(self) -> None:
        if self.probability is not None and not 0 < self.probability <= 1:
            raise ValueError(f"a probability is above 0 and at most 1, not {self.probability}")
        if not self.reviewer.strip():
            raise ValueError("a label needs the name of its reviewer")
