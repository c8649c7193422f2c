"""What is reviewed, and what a reviewer has said of it so far."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from ..labelling import Label, LabelKind
from ..records import ImageRef, Instance, LoadedImage, VerdictKind
from .drawing import Drawn


class Book(Protocol):
    """Where labels are kept; each is on disk when the call returns."""

    def standing(self) -> list[Label]:
        """The labels that count now, in the order in which they were given."""

    def append(self, label: Label) -> None:
        """Keep a label."""

    def retract(self, label: Label, when: float) -> None:
        """Take a label back."""


@dataclass(frozen=True, slots=True)
class Item:
    """One answer to be labelled, with what the model was asked.

    `answer` is None of one that was too long to be kept.
    """

    drawn: Drawn
    instance: Instance
    answer: str | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a reviewer is: the labels by the number of their item, the last one given last."""

    labels: dict[int, Label]
    total: int

    @property
    def counts(self) -> Counter[str]:
        """How many of each kind."""
        return Counter(label.kind.value for label in self.labels.values())

    def next_after(self, number: int) -> int | None:
        """The first item without a label after this one, from the start again at the end."""
        order = [*range(number + 1, self.total), *range(min(number + 1, self.total))]
        return next((n for n in order if n not in self.labels), None)


@dataclass(frozen=True, slots=True)
class Review:
    """A sample of a run's answers, and where its labels go.

    `run` is the digest of the run, `where` how people know it. `reviewer` is the one who labels;
    None asks on the first page. `image` reads an image of the dataset. `seed` is what the sample
    was drawn by, if somebody chose it.
    """

    run: str
    where: str
    judge: str
    items: tuple[Item, ...]
    book: Book
    image: Callable[[ImageRef], LoadedImage]
    labels: str
    reviewer: str | None = None
    blind: bool = False
    seed: str | None = None
    shown: set[tuple[str, int]] = field(default_factory=set)

    def standing(self, reviewer: str) -> Standing:
        """The labels of this reviewer that count for this sample.

        A label that was drawn with another chance is none: it belongs to another sample.
        """
        places = {self._subject(n): n for n in range(len(self.items))}
        found: dict[int, Label] = {}
        for label in self.book.standing():
            subject = (label.instance_id, label.request_key, label.answer, label.probability)
            number = places.get(subject) if label.run == self.run else None
            if number is not None and label.reviewer == reviewer:
                found[number] = label
        return Standing(found, len(self.items))

    def reviewers(self) -> list[str]:
        """Who has labelled answers of this run, by name."""
        return sorted({one.reviewer for one in self.book.standing() if one.run == self.run})

    def label(self, reviewer: str, number: int, kind: LabelKind) -> None:
        """Keep what a reviewer says of an answer; the same word again is kept once.

        Raises:
            RunError: it cannot be kept.
        """
        known = self.standing(reviewer).labels.get(number)
        if known is not None and known.kind is kind:
            return
        drawn = self.items[number].drawn
        entry, verdict = drawn.entry, drawn.entry.verdict
        self.book.append(
            Label(
                instance_id=entry.instance_id,
                request_key=entry.request_key or "",
                answer=entry.answer_sha256 or "",
                kind=kind,
                reviewer=reviewer,
                labelled=round(time.time(), 3),
                run=self.run,
                judge=self.judge,
                verdict=VerdictKind.UNDETERMINED if verdict is None else verdict.kind,
                probability=drawn.probability,
                blind=self.blind and (reviewer, number) not in self.shown,
                seed=self.seed,
            )
        )

    def undo(self, reviewer: str) -> int | None:
        """Take back the last label of a reviewer; gives the number of its item, None without one.

        Raises:
            RunError: it cannot be kept.
        """
        labels = self.standing(reviewer).labels
        if not labels:
            return None
        # The book gives them in the order in which they were given.
        number = next(reversed(labels))
        self.book.retract(labels[number], round(time.time(), 3))
        return number

    def shows_verdict(self, reviewer: str, number: int, *, labelled: bool) -> bool:
        """Whether the judge's word may be seen; it is remembered that it was."""
        if self.blind and not labelled:
            return False
        self.shown.add((reviewer, number))
        return True

    def _subject(self, number: int) -> tuple[str, str | None, str | None, float | None]:
        drawn = self.items[number].drawn
        entry = drawn.entry
        return entry.instance_id, entry.request_key, entry.answer_sha256, drawn.probability
