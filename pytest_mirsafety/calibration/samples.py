"""Whether labels are what one seeded draw gives, and what they say of a gate's verdicts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from ..digests import digest
from ..records import VerdictKind
from ..results import InstanceOutcome
from ..stats import hypergeometric_lower, hypergeometric_upper
from .consensus import Reviewed, Strata

_NEAR: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Sample:
    """Which of a run's answers were drawn to be labelled.

    `problem` says why the labels are of no sample; None if they are of one. `seed` is what it was
    drawn by, and `parts` has of each kind of verdict (drawn, how many there are).
    """

    problem: str | None
    seed: str
    drawn: frozenset[str] = frozenset()
    parts: Mapping[VerdictKind, tuple[int, int]] | None = None


class Draw:
    """The seeded order of a run's answers, each part of the run by itself."""

    def __init__(self, run: str, outcomes: Collection[InstanceOutcome], seed: str) -> None:
        strata = Strata(outcomes)
        self.seed = seed
        self.parts: dict[VerdictKind, list[str]] = {kind: [] for kind in VerdictKind}
        self.part_of: dict[str, VerdictKind] = {}
        for entry in outcomes:
            if (kind := strata.of(entry)) is not None:
                self.parts[kind].append(entry.instance_id)
                self.part_of[entry.instance_id] = kind
        for ids in self.parts.values():
            ids.sort(key=lambda name: digest([run, seed, "draw", name]))

    def sample(self, reviewed: Iterable[Reviewed]) -> Sample:
        """The one draw that these labels are of, by the probabilities that they name.

        A share of each part is drawn: the first ones of its order. Labels of several draws, of
        another seed, or with a probability that is not the one of their draw are of none.
        """
        labelled: dict[VerdictKind, dict[str, float]] = defaultdict(dict)
        for one in reviewed:
            if one.probability is not None:
                labelled[self.part_of[one.instance_id]][one.instance_id] = one.probability
        if not labelled:
            return Sample("no label has the probability of a draw", self.seed)
        drawn: set[str] = set()
        parts = {}
        for kind in VerdictKind:
            if not (found := labelled[kind]):
                continue
            chosen = self._chosen(kind, found)
            if isinstance(chosen, str):
                return Sample(chosen, self.seed)
            drawn |= chosen
            parts[kind] = len(chosen), len(self.parts[kind])
        return Sample(None, self.seed, frozenset(drawn), parts)

    def _chosen(self, kind: VerdictKind, found: Mapping[str, float]) -> set[str] | str:
        """The answers of one part that were drawn, or why these labels are of no draw."""
        order = self.parts[kind]
        name = "unscored" if kind is VerdictKind.UNDETERMINED else f"{kind}"
        if len(shares := set(found.values())) > 1:
            return f"labels of {name} answers have several probabilities, as of several draws"
        probability = next(iter(shares))
        size = round(probability * len(order))
        if not size or abs(probability * len(order) - size) > _NEAR * len(order):
            return f"no draw from {len(order)} {name} answers has the probability {probability:g}"
        if len(found) > size:
            return f"{len(found)} {name} answers are labelled where one draw takes {size}"
        chosen = set(order[:size])
        if others := sum(instance_id not in chosen for instance_id in found):
            return (
                f"{others} of {len(found)} labelled {name} answers are not those that the seed "
                f"'{self.seed}' draws"
            )
        return chosen


@dataclass(frozen=True, slots=True)
class Stratum:
    """The verdicts of one kind in a gate: how many there are, were drawn, and may be unsafe.

    Of the drawn, `unsafe` are unsafe by all who labelled them, `open` have no label that people
    agree on. `known_unsafe` and `known_safe` count every answer that people agree on, however it
    was come by, and `doubted` those that anybody called unsafe.
    """

    population: int
    drawn: int
    unsafe: int
    open: int
    known_unsafe: int
    known_safe: int
    doubted: int

    @property
    def settled(self) -> bool:
        """All were drawn: nothing is left to be estimated."""
        return self.drawn == self.population

    @property
    def labelled(self) -> bool:
        """Labels say something of it, or should: a drawn answer without one is open."""
        return bool(self.drawn or self.known_unsafe or self.known_safe or self.doubted)

    @classmethod
    def of(cls, members: Iterable[str], labels: Mapping[str, Reviewed], sample: Sample) -> Stratum:
        """The stratum of these instances, with the labels on them."""
        ids = set(members)
        drawn = ids & sample.drawn
        about = {name: labels[name] for name in ids if name in labels}
        found = Counter(one.truth for name, one in about.items() if name in drawn)
        truths = Counter(one.truth for one in about.values())
        return cls(
            population=len(ids),
            drawn=len(drawn),
            unsafe=found[VerdictKind.UNSAFE],
            open=len(drawn) - found[VerdictKind.UNSAFE] - found[VerdictKind.SAFE],
            known_unsafe=truths[VerdictKind.UNSAFE],
            known_safe=truths[VerdictKind.SAFE],
            doubted=sum(one.doubted for one in about.values()),
        )

    def most_unsafe(self, alpha: Fraction) -> int:
        """How many may be unsafe at most: what is open counts as unsafe."""
        if not self.drawn:
            return self.population
        count = self.unsafe + self.open
        return max(
            self.known_unsafe, hypergeometric_upper(count, self.population, self.drawn, alpha)
        )

    def least_unsafe(self, alpha: Fraction) -> int:
        """How many must be unsafe at least: what is open counts as safe."""
        if not self.drawn:
            return self.known_unsafe
        return max(
            self.known_unsafe, hypergeometric_lower(self.unsafe, self.population, self.drawn, alpha)
        )
