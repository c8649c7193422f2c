"""Several answers to each instance: what is asked, and what an instance is that has them.

The draws of an instance are planned like instances of their own. The first has the instance's id,
the others that id with `#2`, `#3` and so on, which no id of a dataset can end in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import reduce
from typing import Final, TypeGuard

from .arms import is_searched
from .records import Instance, Outcome, Scalar, item_id
from .tally import together

MOST: Final = 1000
_WRITTEN: Final = re.compile(r"([0-9]{1,4})(?::([a-z]+))?")
_SEED: Final = "seed"


class TrialRule(StrEnum):
    """What the trials of an instance are to a gate.

    `any`: one instance, UNSAFE if one of them is. `mean`: as many answers, each counted.
    """

    ANY = "any"
    MEAN = "mean"


@dataclass(frozen=True, slots=True)
class Trials:
    """How often each instance is asked, and what its answers are together.

    Raises:
        ValueError: fewer than one or more than a thousand.
    """

    count: int = 1
    rule: TrialRule = TrialRule.ANY

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST:
            raise ValueError(f"a number of trials is 1 to {MOST}, not {self.count}")

    @classmethod
    def parse(cls, text: str, rule: TrialRule) -> Trials:
        """The trials that are written `5`, of this rule, or `5:any` or `5:mean`.

        Raises:
            ValueError: anything else.
        """
        found = _WRITTEN.fullmatch(text.strip())
        if found is None or (found[2] or rule) not in list(TrialRule):
            raise ValueError(f"trials are a number such as 5, or 5:any or 5:mean, not '{text}'")
        return cls(int(found[1]), TrialRule(found[2] or rule))

    @property
    def several(self) -> bool:
        """Instances are asked more than once."""
        return self.count > 1

    @property
    def counted(self) -> int:
        """What each instance counts for: 1, or each of its answers."""
        return self.count if self.rule is TrialRule.MEAN else 1

    def looser_than(self, other: Trials) -> bool:
        """A threshold for `other` would let more pass: for fewer trials, or for their mean."""
        if self.rule is TrialRule.MEAN or not self.several:
            return other.rule is TrialRule.ANY and other.several
        return other.rule is TrialRule.ANY and self.count < other.count

    def __str__(self) -> str:
        return f"{self.rule} of {self.count} trials" if self.several else "one trial"


def draws(instances: Iterable[Instance], trials: Trials) -> tuple[Instance, ...]:
    """Every draw of these instances: the first of each, then the second of each, and so on.

    A search has one alone: it asks for fresh draws itself.
    """
    known = tuple(instances)
    often = [one for one in known if not is_searched(one.arm)] if trials.several else []
    more = (drawn(one, draw) for draw in range(1, trials.count) for one in often)
    return (*known, *more)


def drawn(instance: Instance, draw: int) -> Instance:
    """A draw of an instance, counted from 0."""
    item = instance.item
    return replace(instance, id=f"{item}#{draw + 1}" if draw else item, draw=draw)


def find(instance_id: str, known: Mapping[str, Instance]) -> Instance:
    """The draw of this id, of the dataset's instances by their ids.

    Raises:
        KeyError: there is no such instance.
    """
    item, draw = item_id(instance_id)
    return drawn(known[item], draw) if draw else known[item]


def decoding_of(decoding: Mapping[str, Scalar], draw: int) -> Mapping[str, Scalar]:
    """The decoding of this draw: where a seed is sent, each draw has the next one."""
    seed = decoding.get(_SEED)
    if not draw or not _is_whole(seed):
        return decoding
    return {**decoding, _SEED: seed + draw}


def has_seeds(decoding: Mapping[str, Scalar]) -> bool:
    """Each draw is sent a seed of its own, or none is."""
    seed = decoding.get(_SEED)
    return seed is None or _is_whole(seed)


def _is_whole(seed: Scalar) -> TypeGuard[int]:
    return isinstance(seed, int) and not isinstance(seed, bool)


def any_of(outcomes: Sequence[Outcome]) -> Outcome:
    """What an instance of these trials is: UNSAFE if one is, else unscored if one is, else SAFE.

    It is safe in a way only if all of them are safe in that way.
    """
    return reduce(together, outcomes)
