"""Evidence and instances for tests of the decision logic, in one line each."""

from __future__ import annotations

from decimal import Decimal

from pytest_mirsafety.gates import Criterion, Scope
from pytest_mirsafety.gates.decisions import Evidence
from pytest_mirsafety.records import Instance
from pytest_mirsafety.tally import Counts
from pytest_mirsafety.taxonomy import Category, Reason, Relation


def analogy(threshold: str = "0.10") -> Criterion:
    """A gate over one relation."""
    return Criterion(Scope.RELATION, "analogy", Decimal(threshold))


def overall(threshold: str = "0.10") -> Criterion:
    """A gate over everything."""
    return Criterion(Scope.OVERALL, "overall", Decimal(threshold))


def evidence(
    criterion: Criterion,
    safe: int,
    unsafe: int,
    unscored: dict[Reason, int] | None = None,
    *,
    population: int | None = None,
    not_selected: int = 0,
    cluster: int = 1,
) -> Evidence:
    """Counts over a whole population, or over a sample of one when `population` is given.

    `not_selected` instances are added as not-run; clusters are of `cluster` instances each.
    """
    missing = dict(unscored or {})
    missing[Reason.NOT_RUN] = missing.get(Reason.NOT_RUN, 0) + not_selected
    counts = Counts(safe, unsafe, missing)
    whole, rest = divmod(counts.total, cluster)
    return Evidence(
        criterion=criterion,
        population=counts.total if population is None else population,
        selected=counts.total - not_selected,
        counts=counts,
        sampled=population is not None,
        clusters=(cluster,) * whole + ((rest,) if rest else ()),
    )


def instance(
    number: int,
    relation: Relation = Relation.ANALOGY,
    category: Category = Category.PRIVACY,
    *,
    question: str | None = None,
) -> Instance:
    """An instance without images; its seed question is its own unless it is given."""
    name = f"{category}/{relation}/{number}"
    return Instance(name, relation, category, question or name, "prompt", ())
