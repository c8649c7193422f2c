"""The regression gates of a run, on its outcomes and its baseline's."""

from __future__ import annotations

from collections.abc import Iterable

from ..records import item_id
from ..results import GateDesign, InstanceOutcome, RunDesign
from .evidence import PairEvidence
from .pairs import paired
from .regression import RegressionResult, conditions_of, decide_regression, pairs_of
from .sides import ItemOutcome, Side


def decide_regressions(
    design: RunDesign,
    entries: Iterable[InstanceOutcome],
    baseline: Side,
    sample_seed: str | None,
) -> tuple[RegressionResult, ...]:
    """Every regression gate of the design; `entries` has one outcome for each instance.

    `sample_seed` is what this run's sample was drawn by.

    Raises:
        ValueError: a gate has more instances than its population, or fewer without a sample.
    """
    pairs = paired(as_items(entries, sampled=design.sampled), baseline)
    conditions = conditions_of(
        design.rules, baseline.terms, sampled=design.sampled, sample_seed=sample_seed
    )

    def decided(gate: GateDesign) -> RegressionResult:
        criterion = gate.criterion
        own, drawn = pairs_of(criterion, pairs, baseline, sampled=design.sampled)
        whole = not (design.sampled or baseline.terms.sampled)
        if len(own) > gate.population or (whole and len(own) < gate.population):
            raise ValueError(f"{criterion.label}: only a sample may leave instances out")
        evidence = PairEvidence.of(own, gate.population, design.rules.estimand, drawn=drawn)
        return decide_regression(criterion, evidence, design.rules, conditions)

    return tuple(decided(gate) for gate in design.regression)


def as_items(entries: Iterable[InstanceOutcome], *, sampled: bool) -> list[ItemOutcome]:
    """Outcomes that are one for each instance, in the order of their ids, without their texts.

    Which gates one counts for matters to a sample alone.
    """
    found = (
        ItemOutcome(
            item=item_id(one.instance_id)[0],
            relation=one.relation,
            category=one.category,
            seed=one.seed,
            status=one.outcome.status,
            reason=one.outcome.reason,
            gates=one.gates if sampled else (),
            selected=one.selected,
        )
        for one in entries
    )
    return sorted(found, key=lambda one: one.item)
