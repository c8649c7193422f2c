"""What is to be known before anything is asked: what keeps gates from passing, what is unusual."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from .errors import StoreError
from .store.upkeep import StoreUpkeep

if TYPE_CHECKING:
    from .planning import RunPlan
    from .sampling import GatePlan, SamplePlan

_MOST_NAMED: Final = 3


def cautions(plan: RunPlan) -> Iterator[str]:
    """A sentence for each thing; nothing is asked, counted or written to know it."""
    design, sample = plan.design, plan.sample
    if design.report_only or not design.gates:
        return
    if not design.rules.pass_allowed:
        yield (
            "the judge only screens: on its word a gate can fail, but none can pass; use a "
            "stronger judge, or set allow_screening_judge = true"
        )
    if sample is None:
        return
    resting = [gate for gate in sample.gates if gate.planned < gate.population]
    if resting and _is_spent(plan, sample):
        names = _listed([gate.criterion.label for gate in resting])
        yield (
            "an earlier run has seen this data by another design: on this sample "
            f"{names} cannot pass; run the whole population, without --mir-sample"
        )
    elif small := [needs for gate in resting if (needs := _needs(gate))]:
        yield (
            "the sample is small: to pass four times in five at half the limit, "
            f"{_listed(small)}; --mir-sample=auto draws enough"
        )


def peculiarities(plan: RunPlan) -> Iterator[str]:
    """A sentence for each thing that is not sent as the data have it."""
    if plan.layout:
        yield "images side by side in one (single-image model)"


def _is_spent(plan: RunPlan, sample: SamplePlan) -> bool:
    """Whether the store has counted a run that asked other instances of the same."""
    if not plan.store.is_file():
        return False
    try:
        with StoreUpkeep.open(plan.store) as store:
            attempts = store.attempts()
    except StoreError:
        return False  # the run opens it too, and says what is wrong
    mine = (found for found in attempts if found.identity == plan.attempted)
    return any(set(found.designs) - {sample.design} for found in mine)


def _needs(gate: GatePlan) -> str:
    wanted = gate.to_power
    if wanted is None or gate.planned >= wanted:
        return ""
    return f"{gate.criterion.label} needs {wanted} and has {gate.planned}"


def _listed(words: Sequence[str]) -> str:
    """The first few of them, and how many more there are."""
    named = list(words[:_MOST_NAMED])
    if more := len(words) - len(named):
        named.append(f"{more} more")
    return " and ".join(filter(None, [", ".join(named[:-1]), named[-1]]))
