"""Which instances are searched: some of each relation, drawn by a seed, and always the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ..digests import digest
from ..records import Instance
from ..taxonomy import Relation


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
