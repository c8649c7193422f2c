"""The outcomes of two runs, instance by instance: what changed, what did not, what nobody knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ..taxonomy import Reason, Status
from .sides import ItemOutcome, Side

SAFE, UNSAFE, UNSCORED = Status.SAFE, Status.UNSAFE, Status.UNSCORED


@dataclass(frozen=True, slots=True)
class Pair:
    """An instance in both runs; `base` is None where the base has nothing of it."""

    base: ItemOutcome | None
    candidate: ItemOutcome

    @property
    def statuses(self) -> tuple[Status, Status]:
        """Of the base, and of the candidate.

        What is undetermined may be declared to count as unsafe, against a model. In the base it
        would count for the candidate, and so it is unscored there.
        """
        base = self.base
        before = UNSCORED if base is None or base.undetermined else base.status
        return before, self.candidate.status


@dataclass(frozen=True, slots=True)
class PairCounts:
    """How many pairs are of each kind: the base's status, and the candidate's.

    An unscored answer could have been judged either way. `most_newly_unsafe` and
    `most_newly_safe` count the pairs that could be, with those that are.
    """

    counts: Mapping[tuple[Status, Status], int] = field(default_factory=dict)

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> PairCounts:
        """Those of these pairs."""
        found = Counter(pair.statuses for pair in pairs)
        return cls({kind: found[kind] for kind in KINDS if found[kind]})

    def number(self, base: Status, candidate: Status) -> int:
        """Pairs of this kind."""
        return self.counts.get((base, candidate), 0)

    @property
    def unsafe_twice(self) -> int:
        """Unsafe in both."""
        return self.number(UNSAFE, UNSAFE)

    @property
    def newly_unsafe(self) -> int:
        """Safe in the base, unsafe in the candidate."""
        return self.number(SAFE, UNSAFE)

    @property
    def newly_safe(self) -> int:
        """Unsafe in the base, safe in the candidate."""
        return self.number(UNSAFE, SAFE)

    @property
    def safe_twice(self) -> int:
        """Safe in both."""
        return self.number(SAFE, SAFE)

    @property
    def scored(self) -> int:
        """Pairs with two verdicts."""
        return self.unsafe_twice + self.newly_unsafe + self.newly_safe + self.safe_twice

    @property
    def total(self) -> int:
        """All pairs."""
        return sum(self.counts.values())

    @property
    def unscored(self) -> int:
        """Pairs that lack a verdict, or both."""
        return self.total - self.scored

    @property
    def most_newly_unsafe(self) -> int:
        """Newly unsafe, if everything unknown is against the candidate."""
        return self.newly_unsafe + self.open_by_candidate + self.open_by_base

    @property
    def open_by_candidate(self) -> int:
        """Not known to be newly unsafe for want of the candidate's verdict alone."""
        return self.number(SAFE, UNSCORED)

    @property
    def open_by_base(self) -> int:
        """Not known to be newly unsafe for want of the base's verdict."""
        return self.number(UNSCORED, UNSAFE) + self.number(UNSCORED, UNSCORED)

    @property
    def most_newly_safe(self) -> int:
        """Newly safe, if everything unknown is for the candidate."""
        return (
            self.newly_safe
            + self.number(UNSAFE, UNSCORED)
            + self.number(UNSCORED, SAFE)
            + self.number(UNSCORED, UNSCORED)
        )

    @property
    def best_table(self) -> tuple[int, int, int, int]:
        """Unsafe twice, newly unsafe, newly safe, safe twice: all unknown for the candidate."""
        return (
            self.unsafe_twice + self.number(UNSCORED, UNSAFE),
            self.newly_unsafe,
            self.most_newly_safe,
            self.safe_twice + self.number(SAFE, UNSCORED),
        )

    @property
    def candidate_safe(self) -> int:
        """Answers of the candidate that were found safe, whatever the base's."""
        return sum(self.number(base, SAFE) for base in Status)


KINDS: Final = tuple((base, candidate) for base in Status for candidate in Status)
"""Every kind of pair: the base's status, and the candidate's."""


def paired(candidate: Iterable[ItemOutcome], base: Side) -> list[Pair]:
    """The candidate's instances, each with what the base has of it.

    What a base without a sample lacks is a pair with one side; what a sample did not draw is none.
    An id that stands for another question there is not the same instance.
    """
    known = base.by_item()
    found = []
    for one in candidate:
        other = known.get(one.item)
        if other is not None and other.same_item != one.same_item:
            other = None
        if other is not None or not base.terms.sampled:
            found.append(Pair(other, one))
    return found


def not_run(pairs: Iterable[Pair]) -> int:
    """How many of the pairs lack the candidate's verdict because it never ran."""
    return sum(pair.candidate.reason is Reason.NOT_RUN for pair in pairs)
