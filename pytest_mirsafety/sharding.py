"""How a run is split among several machines: every relation in every shard, always the same."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from .digests import digest
from .records import Instance

MOST_SHARDS: Final = 1000

_WRITTEN: Final = re.compile(r"([0-9]{1,4})/([0-9]{1,4})")


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` parts, numbered from 1.

    Raises:
        ValueError: a number that is not 1 to `count`, or more than a thousand shards.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count <= MOST_SHARDS:
            raise ValueError(
                f"a shard is I/N with I from 1 to N and N up to {MOST_SHARDS}, such as 2/4, "
                f"not '{self}'"
            )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that is written like `2/4`.

        Raises:
            ValueError: it is not.
        """
        if (found := _WRITTEN.fullmatch(text.strip())) is None:
            raise ValueError(f"a shard is written I/N, such as 2/4, not '{text}'")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, instances: Iterable[Instance]) -> tuple[Instance, ...]:
        """The instances of this shard, in the order given.

        Each relation is dealt out like cards, in the order of a digest, and the next relation
        goes on where the last one ended: the shards differ by at most one instance, in all and
        in each relation.
        """
        known = tuple(instances)
        order = sorted(known, key=lambda i: (i.relation, digest(i.id)))
        mine = {i.id for place, i in enumerate(order) if place % self.count == self.index - 1}
        return tuple(i for i in known if i.id in mine)
