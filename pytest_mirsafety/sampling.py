"""Which instances a sample asks, what it can decide, and how many it takes.

Only this makes a sample: one seeded order of all instances, and a prefix of it. Given how many of
a gate's instances the prefix holds, they are a simple random sample of the gate's population.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Final

from .arms import ArmKind
from .digests import digest
from .errors import ConfigurationError
from .gates.criteria import Criterion
from .gates.decisions import Estimand, Rules, limits
from .gates.wording import limit
from .records import Dataset, Instance
from .stats import allowed, binomial_cdf, effective_size, hypergeometric_cdf

POWER: Final = Fraction(4, 5)
_SIZE: Final = re.compile(r"(?P<count>\d{1,9})|(?P<percent>\d{1,3}(?:\.\d{1,9})?)%|auto", re.ASCII)


@dataclass(frozen=True, slots=True)
class SampleSize:
    """A sample size as written: a number of instances, a share of them, or neither for `auto`."""

    text: str
    count: int | None = None
    share: Fraction | None = None

    def of(self, total: int) -> int | None:
        """How many of `total` instances this is, rounded up; None for `auto`."""
        if self.share is not None:
            return math.ceil(self.share * total)
        return None if self.count is None else min(self.count, total)


def parse_sample_size(text: str) -> SampleSize:
    """The size written as `50`, `10%` or `auto`.

    Raises:
        ValueError: anything else, none at all, or more than 100%.
    """
    text = text.strip()
    if (match := _SIZE.fullmatch(text)) is None:
        raise ValueError(
            f"a sample is a number such as 300, a share such as 10%, or auto, not {text!r}"
        )
    size = SampleSize(text)
    if match["count"]:
        size = SampleSize(text, count=int(match["count"]))
    elif match["percent"]:
        size = SampleSize(text, share=Fraction(Decimal(match["percent"])) / 100)
    if size.count == 0 or size.share == 0:
        raise ValueError(f"a sample of {text} asks nothing")
    if size.share is not None and size.share > 1:
        raise ValueError(f"a sample cannot be larger than 100%: {text}")
    return size


def seeded_order(data_identity: str, seed: str, ids: Iterable[str]) -> list[str]:
    """All ids in the one order that belongs to this data and seed, however they came."""
    return sorted(ids, key=lambda instance_id: digest([data_identity, seed, instance_id]))


def size_to_pass(threshold: Decimal, population: int, rules: Rules) -> int | None:
    """The fewest answers that can pass, with none unsafe; None when the population is too few."""
    return next(_runs(threshold, population, rules), None)


def size_for_power(
    threshold: Decimal, population: int, rules: Rules, *, minimum: bool = False
) -> int | None:
    """The fewest answers with an 80% chance to pass at half the threshold; None if too few.

    The chance rises only where one more unsafe becomes tolerable, so only those sizes are tried.
    """
    if minimum:
        return _size_for_minimum(threshold, population, rules)
    for drawn in _runs(threshold, population, rules):
        if chance_to_pass(threshold, population, drawn, rules) >= POWER:
            return drawn
    return None


def _size_for_minimum(threshold: Decimal, population: int, rules: Rules) -> int | None:
    """The same of a minimum: among sizes that need equally many, the chance rises with the size."""
    independent = _independent(rules)

    def needed(size: int) -> int:
        return size - limits(threshold, population, size, independent).most

    def suffices(size: int) -> bool:
        return chance_to_pass(threshold, population, size, rules, minimum=True) >= POWER

    first = 1
    while first <= population:
        few = needed(first)

        def needs_more(size: int, few: int = few) -> bool:
            return needed(size) > few

        more = _first(first, population, needs_more)
        last = population if more is None else more - 1
        if suffices(last):
            return _first(first, last, suffices)
        first = last + 1
    return None


def _first(start: int, end: int, holds: Callable[[int], bool]) -> int | None:
    """The smallest size of these at which something holds that holds of all larger ones."""
    step = 1
    while start + step <= end and not holds(start + step):
        step *= 2
    sizes = range(start, min(start + step, end) + 1)
    found = bisect_left(sizes, True, key=holds)
    return sizes[found] if found < len(sizes) else None


def chance_to_pass(
    threshold: Decimal, population: int, drawn: int, rules: Rules, *, minimum: bool = False
) -> Fraction:
    """P(PASS) at half the threshold: half of the allowed unsafe are there, to the nearest even.

    With `minimum` the threshold is what a minimum leaves, and twice the minimum is there, unless
    that leaves less than half of it.
    """
    most = limits(threshold, population, drawn, _independent(rules)).most
    if rules.estimand is not Estimand.ANSWERS:
        rate, least = Fraction(threshold) / 2, 1 - Fraction(threshold)
        if minimum and least:
            rate = max(rate, 1 - 2 * least)
        return binomial_cdf(most, drawn, rate)
    may = allowed(threshold, population)
    unsafe, needed = round(Fraction(may, 2)), population - may
    if minimum and needed:
        unsafe = max(unsafe, population - 2 * needed)
    return hypergeometric_cdf(most, population, unsafe, drawn)


def _independent(rules: Rules) -> Rules:
    """The same rules for answers that are not clustered."""
    clustered = rules.estimand is Estimand.ITEMS
    return replace(rules, estimand=Estimand.MODEL) if clustered else rules


def _runs(threshold: Decimal, population: int, rules: Rules) -> Iterator[int]:
    """The fewest answers that pass with 0 unsafe, with 1, with 2 and so on."""
    rules = _independent(rules)
    drawn = 1
    for unsafe in range(population + 1):

        def passes(size: int, unsafe: int = unsafe) -> bool:
            return limits(threshold, population, size, rules).most >= unsafe

        found = _first(drawn, population, passes)
        if found is None:
            return
        drawn = found
        yield drawn


@dataclass(frozen=True, slots=True)
class GatePlan:
    """What a sample means for one gate.

    `counted` holds the ids that count for it; others may be asked for other gates. `to_pass` is
    how many it needs to pass with none unsafe, and `to_power` for an 80% chance to pass at half
    the threshold, each None when its whole population is too few. `can_pass` and `chance` are
    this sample's own.
    """

    criterion: Criterion
    population: int
    counted: frozenset[str]
    to_pass: int | None
    to_power: int | None
    can_pass: bool
    chance: float

    @property
    def planned(self) -> int:
        """How many instances count for the gate."""
        return len(self.counted)


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """Which instances are asked, and which of them count for each gate; `size` is as written."""

    size: str
    seed: str
    asked: frozenset[str]
    gates: tuple[GatePlan, ...]

    @property
    def design(self) -> str:
        """A digest of what is asked: samples of one design show the same instances."""
        return digest(sorted(self.asked))

    def of(self, criterion: Criterion) -> frozenset[str]:
        """The ids that count for this gate.

        Raises:
            KeyError: the sample was not drawn for this gate.
        """
        return {gate.criterion: gate.counted for gate in self.gates}[criterion]


def draw_sample(
    size: SampleSize,
    dataset: Dataset,
    criteria: Sequence[Criterion],
    rules: Rules,
    seed: str | None = None,
) -> SamplePlan:
    """The instances to ask: a prefix of the seeded order, or for `auto` one for each gate.

    The prefix of a gate is of the order of its own population, as long as an 80% chance takes,
    or all of it where that is too few. `seed` is the data's identity unless it is given.

    Raises:
        ConfigurationError: `auto` without a gate to plan for.
    """
    if not criteria and size.of(len(dataset.instances)) is None:
        raise ConfigurationError("a sample of auto needs a threshold to plan for")
    known = {instance.id: instance for instance in dataset.instances}
    seed = dataset.identity if seed is None else seed
    order = [known[name] for name in seeded_order(dataset.identity, seed, known)]
    prefix = size.of(len(order))
    asked = None if prefix is None else frozenset(i.id for i in order[:prefix])
    gates = tuple(_plan_gate(one, order, asked, rules) for one in criteria if drawn_for(one))
    if asked is None:
        asked = frozenset().union(*(gate.counted for gate in gates))
    return SamplePlan(size.text, seed, asked, gates)


def drawn_for(criterion: Criterion) -> bool:
    """Whether a sample of the dataset is one for this gate: twins and searches are asked whole."""
    return criterion.kind is ArmKind.SAFETY


class Membership:
    """Which gates each planned instance counts for; without a sample, those that cover it."""

    def __init__(self, criteria: Iterable[Criterion], sample: SamplePlan | None) -> None:
        self._criteria = tuple(criteria)
        self._counted = None if sample is None else {g.criterion: g.counted for g in sample.gates}
        self._cells: dict[tuple[str, str, str], tuple[Criterion, ...]] = {}
        self._labels: dict[tuple[Criterion, ...], tuple[str, ...]] = {}

    def of(self, instance: Instance) -> tuple[str, ...]:
        """The labels of these gates; equal answers are one tuple."""
        cell = instance.arm, instance.relation, instance.category
        if (found := self._cells.get(cell)) is None:
            found = tuple(c for c in self._criteria if c.covers(instance))
            self._cells[cell] = found
        if (counted := self._counted) is not None:
            name = instance.origin
            found = tuple(c for c in found if not drawn_for(c) or name in counted[c])
        return self._labels.setdefault(found, tuple(c.label for c in found))


def joint_chance(gates: Iterable[GatePlan]) -> float:
    """P(every gate passes) at half its threshold, as if the gates were independent."""
    return math.prod(gate.chance for gate in gates if gate.population)


def refusal(gates: Sequence[GatePlan]) -> str | None:
    """One line that refuses a sample by which one of these gates cannot pass; None if all can."""
    hopeless = [gate for gate in gates if gate.population and not gate.can_pass]
    if not hopeless:
        return None
    needs = "; ".join(_needs(gate) for gate in hopeless)
    return (
        f"by this sample some gates cannot pass, whatever the answers: {needs} (needed: to pass "
        f"with none unsafe / for an 80% chance at {half(gate.criterion for gate in hopeless)}; "
        f"the chance that every gate passes is {joint_chance(gates):.0%}); use auto, or leave the "
        "sample out"
    )


def half(criteria: Iterable[Criterion]) -> str:
    """What a chance to pass supposes of the rate, for gates that need more answers."""
    minimum = any(criterion.minimum for criterion in criteria)
    return "half the limit (twice a minimum)" if minimum else "half the limit"


def _needs(gate: GatePlan) -> str:
    more = f"over {gate.population}"
    least, good = gate.to_pass or more, gate.to_power or more
    label, within = gate.criterion.label, limit(gate.criterion)
    return f"{label} (limit {within}) has {gate.planned} and needs {least} / {good}"


def _plan_gate(
    criterion: Criterion, order: Iterable[Instance], asked: frozenset[str] | None, rules: Rules
) -> GatePlan:
    members = [instance for instance in order if criterion.spans(instance)]
    threshold, population, minimum = criterion.tolerance, len(members), criterion.minimum
    seeds = [i.seed for i in members] if rules.estimand is Estimand.ITEMS else None
    to_pass = _members_worth(size_to_pass(threshold, population, rules), seeds)
    for_power = size_for_power(threshold, population, rules, minimum=minimum)
    to_power = _members_worth(for_power, seeds)
    if asked is None:
        counted = members[:to_power]
    else:
        counted = [instance for instance in members if instance.id in asked]
    clusters = tuple(Counter(i.seed for i in counted).values()) if seeds else ()
    worth = math.floor(effective_size(clusters)) if seeds else len(counted)
    return GatePlan(
        criterion=criterion,
        population=population,
        counted=frozenset(instance.id for instance in counted),
        to_pass=to_pass,
        to_power=to_power,
        can_pass=limits(threshold, population, len(counted), rules, clusters).most >= 0,
        chance=float(chance_to_pass(threshold, population, worth, rules, minimum=minimum)),
    )


def _members_worth(answers: int | None, seeds: Sequence[str] | None) -> int | None:
    """How long a prefix must be to be worth so many independent answers."""
    if answers is None or seeds is None:
        return answers
    sizes: Counter[str] = Counter()
    squares = 0
    for length, seed in enumerate(seeds, start=1):
        squares += 2 * sizes[seed] + 1
        sizes[seed] += 1
        if length * length >= answers * squares:
            return length
    return None
