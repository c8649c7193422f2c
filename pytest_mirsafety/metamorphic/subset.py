"""Which instances are searched: some of each relation, drawn by a seed, and always the same."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from ..digests import digest
from ..records import Instance
from ..taxonomy import Relation

_WRITTEN: Final = re.compile(r"(\d+) of each relation, (\d+) requests each, seed ([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class SearchDesign:
    """Which instances are searched, and how far: so many of each relation, drawn by a seed.

    As text it has the seed's digest, which may be anybody's words.
    """

    per_relation: int
    budget: int
    seed: str

    @classmethod
    def of(cls, per_relation: int, budget: int, seed: str) -> Self:
        """The design by these settings."""
        return cls(per_relation, budget, digest(seed))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The design that was written so; None if it is none."""
        found = _WRITTEN.fullmatch(text)
        return None if found is None else cls(int(found[1]), int(found[2]), found[3])

    def __str__(self) -> str:
        return (
            f"{self.per_relation} of each relation, {self.budget} requests each, seed {self.seed}"
        )

    def holds(self, other: SearchDesign) -> bool:
        """All that the other searches is searched by this one, as far or farther."""
        enough = self.per_relation >= other.per_relation and self.budget >= other.budget
        return enough and self.seed == other.seed


def is_spent(mine: SearchDesign, earlier: Iterable[str]) -> bool:
    """Whether one of these looked at what this does not: to choose among looks is to hunt."""
    found = (SearchDesign.parse(text) for text in earlier)
    return any(other is None or not mine.holds(other) for other in found)


def subset(
    instances: Iterable[Instance], per_relation: int, *, identity: str, seed: str = ""
) -> tuple[Instance, ...]:
    """Up to so many instances of each relation, in the order of their relations.

    The order is that of SHA-256(data identity, seed, instance id). Of each seed question one
    instance comes before a second of any: what a model makes of one tells of the other too.
    """
    found: dict[Relation, list[Instance]] = defaultdict(list)
    for instance in instances:
        found[instance.relation].append(instance)
    chosen: list[Instance] = []
    for relation in Relation:
        ranked = sorted(found[relation], key=lambda one: digest([identity, seed, one.id]))
        chosen += _distinct_first(ranked)[:per_relation]
    return tuple(chosen)


def _distinct_first(ranked: Iterable[Instance]) -> list[Instance]:
    rounds: dict[str, int] = defaultdict(int)
    placed = []
    for instance in ranked:
        placed.append((rounds[instance.seed], instance))
        rounds[instance.seed] += 1
    return [instance for _, instance in sorted(placed, key=lambda pair: pair[0])]
