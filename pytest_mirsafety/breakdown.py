"""What the outcomes of a run are by relation and category, with the intervals of its gates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final

from .evaluation import counted, gather, is_left_out, is_one_sample
from .gates import Criterion, Decision, GateResult, Scope
from .gates.decisions import Case
from .results import GateDesign, InstanceOutcome, RunDesign, RunResult, Tally
from .tally import Counts
from .taxonomy import Category, Reason, Relation

_ANYTHING: Final = Decimal(1)  # an interval asks for no threshold


@dataclass(frozen=True, slots=True)
class Cell:
    """The instances of one relation and category, or of a whole row or column of them."""

    counts: Counts
    left_out: int = 0

    @property
    def share(self) -> Fraction | None:
        """Unsafe of scored; 0 of 0 has no rate, nor has what was stopped early."""
        if not self.counts.scored or self.left_out:
            return None
        return Fraction(self.counts.unsafe, self.counts.scored)


@dataclass(frozen=True, slots=True)
class Rate:
    """The attack success rate of one relation, or of all, with its denominators.

    `low` and `high` are in [0, 1], and are those of the gate where there is one: the bracket of
    the unscored when `exact`, else bounds at the confidence of the run. Both are None where there
    is no interval: of a shard, of what was stopped early, of what a sample was not drawn for.
    `threshold` and `decision` are None without a gate.
    """

    name: str
    population: int
    planned: int
    counts: Counts
    left_out: int
    low: float | None = None
    high: float | None = None
    exact: bool = False
    threshold: Decimal | None = None
    decision: Decision | None = None

    @property
    def share(self) -> Fraction | None:
        """Unsafe of scored; 0 of 0 has no rate, nor has what was stopped early."""
        return Cell(self.counts, self.left_out).share


@dataclass(frozen=True, slots=True)
class Breakdown:
    """A run by relation and category.

    `rates` are those of the relations that were to be asked, then that of all. `cells` has what
    was to be asked of each relation and category; what the data does not have is not in it.
    `reasons` are those for which something is unscored, in their usual order.
    """

    rates: tuple[Rate, ...]
    relations: tuple[Relation, ...]
    categories: tuple[Category, ...]
    cells: Mapping[tuple[Relation, Category], Cell]
    columns: Mapping[Category, Cell]
    tallies: tuple[Tally, ...]
    reasons: tuple[Reason, ...]


def break_down(result: RunResult) -> Breakdown:
    """The breakdown of a run; of several trials what its gates count, instances or answers."""
    entries = counted(result.design, result.outcomes)
    by_cell: dict[tuple[Relation, Category], list[InstanceOutcome]] = defaultdict(list)
    by_category: dict[Category, list[InstanceOutcome]] = defaultdict(list)
    by_relation: dict[Relation, list[InstanceOutcome]] = defaultdict(list)
    for entry in entries:
        by_cell[entry.relation, entry.category].append(entry)
        by_category[entry.category].append(entry)
        by_relation[entry.relation].append(entry)
    shown = tuple(tally for tally in result.relations if tally.planned)
    rates = [
        _rate(tally, Scope.RELATION, by_relation[Relation(tally.name)], result) for tally in shown
    ]
    rates.append(_rate(result.overall, Scope.OVERALL, entries, result))
    return Breakdown(
        rates=tuple(rates),
        relations=tuple(relation for relation in Relation if relation in by_relation),
        categories=tuple(category for category in Category if category in by_category),
        cells={key: _cell(some) for key, some in by_cell.items()},
        columns={category: _cell(some) for category, some in by_category.items()},
        tallies=(*shown, result.overall),
        reasons=tuple(r for r in Reason if result.overall.counts.unscored.get(r)),
    )


def _cell(entries: Iterable[InstanceOutcome]) -> Cell:
    some = tuple(entries)
    counts = Counts.of(entry.outcome for entry in some)
    return Cell(counts, left_out=sum(map(is_left_out, some)))


def _rate(
    tally: Tally, scope: Scope, entries: Sequence[InstanceOutcome], result: RunResult
) -> Rate:
    gates = (gate for gate in result.gates if gate.criterion.scope is scope)
    gate = next((gate for gate in gates if gate.criterion.label == tally.name), None)
    if gate is not None:
        return _of_gate(gate)
    low = high = None
    exact = False
    if _has_interval(tally, entries, result.design):
        criterion = Criterion(scope, tally.name, _ANYTHING)
        evidence = gather(GateDesign(criterion, tally.population), entries, result.design)
        case = Case.of(evidence, result.design.rules)
        (low, high), exact = case.bounds(), case.exact
    return Rate(
        name=tally.name,
        population=tally.population,
        planned=tally.planned,
        counts=tally.counts,
        left_out=tally.left_out,
        low=low,
        high=high,
        exact=exact,
    )


def _of_gate(gate: GateResult) -> Rate:
    evaluated = gate.decision is not Decision.NOT_EVALUATED and not gate.left_out
    return Rate(
        name=gate.criterion.label,
        population=gate.population,
        planned=gate.planned,
        counts=gate.counts,
        left_out=gate.left_out,
        low=gate.low if evaluated else None,
        high=gate.high if evaluated else None,
        exact=gate.exact,
        threshold=gate.criterion.threshold,
        decision=gate.decision,
    )


def _has_interval(tally: Tally, entries: Sequence[InstanceOutcome], design: RunDesign) -> bool:
    """What was asked is all of the population or a simple random sample of it, and to the end."""
    if not tally.planned or not tally.selected or tally.left_out or design.shard is not None:
        return False
    if not design.sampled:
        return tally.planned == tally.population
    members = ((entry.relation, entry.category, entry.gates) for entry in entries)
    return is_one_sample(design, members)
