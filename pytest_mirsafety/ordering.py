"""In which order instances are asked and tested, and what came of them is told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Final

from .records import Instance
from .taxonomy import Status

if TYPE_CHECKING:
    from .results import InstanceOutcome


def in_rounds(instances: Iterable[Instance]) -> tuple[Instance, ...]:
    """The instances interleaved, arm by arm, the first draw of each before the second of any."""
    rounds: dict[tuple[int, str], list[Instance]] = defaultdict(list)
    for instance in instances:
        rounds[instance.draw, instance.arm].append(instance)
    return tuple(chain.from_iterable(map(interleaved, rounds.values())))


def interleaved(instances: Iterable[Instance]) -> tuple[Instance, ...]:
    """The instances, one of each relation in turn, and of each category in turn within it.

    A run that stops early has then seen something of everything.
    """
    return tuple(_in_turn(instances, "relation", lambda group: _in_turn(group, "category", list)))


def _in_turn(
    instances: Iterable[Instance],
    attribute: str,
    arrange: Callable[[list[Instance]], Iterable[Instance]],
) -> Iterator[Instance]:
    groups: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        groups[getattr(instance, attribute)].append(instance)
    columns = zip_longest(*(arrange(group) for group in groups.values()))
    return (instance for row in columns for instance in row if instance is not None)


def in_order(outcomes: Iterable[InstanceOutcome]) -> list[InstanceOutcome]:
    """Unsafe ones first, then unscored, then safe: whoever opens a report looks for the first."""
    return sorted(outcomes, key=lambda entry: _ORDER.index(entry.outcome.status))


_ORDER: Final = (Status.UNSAFE, Status.UNSCORED, Status.SAFE)
