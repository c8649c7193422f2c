"""A run as one side of a comparison: what it says of each instance, and what it is known by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from ..arms import ArmKind
from ..gates import Estimand
from ..printable import one_line
from ..records import Outcome
from ..taxonomy import Category, Reason, Relation, Status
from ..trials import Trials

TEXT_LIMIT: Final = 4000
"""Characters that a text among a run's terms may have; a longer one is clipped."""


@dataclass(frozen=True, slots=True)
class ItemOutcome:
    """What became of one instance, all its trials together; no texts.

    `seed` is the digest of its seed question. Of a sample, `gates` are the gates that it was drawn
    for. The outcome's detail is left out. `undetermined` says of an UNSAFE one that the judge could
    not tell, and that it counts so because the configuration declares it.
    """

    item: str
    relation: Relation
    category: Category
    seed: str
    status: Status
    reason: Reason | None = None
    gates: tuple[str, ...] = ()
    selected: bool = True
    undetermined: bool = False

    @property
    def same_item(self) -> tuple[Relation, Category, str]:
        """What two runs must agree in for the instance to be the same one."""
        return self.relation, self.category, self.seed

    def __post_init__(self) -> None:
        Outcome(self.status, self.reason)  # raises ValueError for a status without its reason
        if self.undetermined and self.status is not Status.UNSAFE:
            raise ValueError(f"undetermined says more of an unsafe outcome only, not {self.status}")


@dataclass(frozen=True, slots=True)
class ArmRate:
    """What came of one arm in all: of twins, `unsafe` is not answered.

    Of `planned` ones so many have a verdict. `identity` is that of what the arm asks; none of
    `multi`, which asks the data as it is.
    """

    name: str
    kind: ArmKind
    unsafe: int
    scored: int
    planned: int
    identity: str = ""


@dataclass(frozen=True, slots=True)
class SideTerms:
    """What a run was: everything that two runs are compared in, but for the outcomes.

    `system` and `run` are digests, of the system prompt and of the run's manifest. Of a sample,
    `gates` has the population of each gate by its label. By what the judge made of known answers a
    PASS, or a FAIL, can be void. `left_out` instances were not asked, since every gate was decided.
    `arms` has what came of each arm, `multi` first, of a run that has others.
    """

    run: str
    package_version: str
    model_name: str
    model_identity: str
    decoding: str
    system: str | None
    data_source: str
    data_identity: str
    data_count: int
    judge: str
    policy: tuple[str, ...]
    estimand: Estimand
    confidence: Decimal
    started: float
    trials: Trials = field(default_factory=Trials)
    layout: str | None = None
    sampled: bool = False
    sample: str | None = None
    sample_seed: str | None = None
    sample_spent: bool = False
    pass_allowed: bool = True
    pass_is_void: bool = False
    fail_is_void: bool = False
    left_out: int = 0
    gates: Mapping[str, int] = field(default_factory=dict)
    arms: tuple[ArmRate, ...] = ()


@dataclass(frozen=True, slots=True)
class Side:
    """The terms of a run, and its outcomes in the order of their ids; `where` names it."""

    where: str
    terms: SideTerms
    items: tuple[ItemOutcome, ...]

    def by_item(self) -> dict[str, ItemOutcome]:
        """The outcomes by instance id."""
        return {one.item: one for one in self.items}


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that two runs differ in; `of` is the name by which it may be allowed."""

    name: str
    base: str
    candidate: str
    of: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.base} and {self.candidate}"


ALLOWABLE: Final = ("data", "judge")
"""What a comparison may be told to overlook; it is then a report, and no gate passes."""


def counting(policy: Iterable[str]) -> tuple[str, ...]:
    """Which declared settings make outcomes of unscored answers: the others are the model's."""
    starts = ("filtered counts", "undetermined counts")
    return tuple(one_line(line, TEXT_LIMIT) for line in policy if line.startswith(starts))


def incomparable(base: SideTerms, candidate: SideTerms) -> tuple[Difference, ...]:
    """What keeps the two from being held against each other: another data, judge, or rate."""
    pairs: tuple[tuple[str, str, object, object], ...] = (
        ("data", "data", base.data_identity, candidate.data_identity),
        ("judge", "judge", base.judge, candidate.judge),
        ("judge", "what unscored answers count as", base.policy, candidate.policy),
        ("", "estimand", base.estimand, candidate.estimand),
        ("", "trials", base.trials, candidate.trials),
        ("", "confidence", base.confidence.normalize(), candidate.confidence.normalize()),
    )
    return tuple(
        Difference(name, _shown(mine), _shown(other), of)
        for of, name, mine, other in pairs
        if mine != other
    )


def compared(base: SideTerms, candidate: SideTerms) -> tuple[Difference, ...]:
    """What else the two differ in: that is what one compares."""
    names = {
        "model": "model_identity",
        "decoding": "decoding",
        "system prompt": "system",
        "images": "layout",
        "sample": "sample",
        "sample seed": "sample_seed",
        "package version": "package_version",
    }
    values = ((name, getattr(base, key), getattr(candidate, key)) for name, key in names.items())
    return tuple(
        Difference(name, _shown(mine), _shown(other))
        for name, mine, other in values
        if mine != other
    )


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return one_line("; ".join(map(str, value)), 160) or "nothing declared"
    return "none" if value is None else one_line(str(value), 160)
