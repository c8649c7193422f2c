"""What is to be known before anything is asked: what keeps gates from passing, what is unusual."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from .arms import METAMORPHIC, SINGLE_IMAGE, ArmKind
from .errors import StoreError
from .gates import limits
from .sampling import half
from .store.upkeep import StoreUpkeep

if TYPE_CHECKING:
    from .protocols import Judge
    from .run_plan import RunPlan
    from .sampling import GatePlan, SamplePlan

_MOST_NAMED: Final = 3


def cautions(plan: RunPlan) -> Iterator[str]:
    """A sentence for each thing; nothing is asked, counted or written to know it."""
    design, sample = plan.design, plan.sample
    if design.report_only or not design.gates:
        return
    yield from _too_few_searches(plan)
    if not design.rules.pass_allowed:
        yield (
            "the judge only screens: on its word a gate can fail, but none can pass; use a "
            "stronger judge, or set allow_screening_judge = true"
        )
    if design.rules.twins_screened:
        yield (
            "the twin_judge only screens: no gate on twins can pass; use a stronger one, or set "
            "allow_screening_judge = true"
        )
    if design.stops_when_decided and plan.phases.two:
        yield (
            "in two phases all is asked before a gate is decided: --mir-stop=decided saves "
            "judging only"
        )
    on_modes = [one.criterion.label for one in design.gates if one.criterion.mode is not None]
    if on_modes and not _tells_modes(plan.judge):
        yield (
            "the judge does not tell in which way an answer is safe, and what is not known counts "
            f"against the model: {_listed(on_modes)} cannot pass while answers are safe; use a "
            "judge that tells it, such as rubric"
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
    elif small := [(gate, needs) for gate in resting if (needs := _needs(gate))]:
        at = half(gate.criterion for gate, _ in small)
        yield (
            f"the sample is small: to pass four times in five at {at}, "
            f"{_listed([needs for _, needs in small])}; --mir-sample=auto draws enough"
        )


def _too_few_searches(plan: RunPlan) -> Iterator[str]:
    """Gates on flips that have fewer instances than a PASS takes."""
    for gate in plan.design.gates:
        criterion, number = gate.criterion, gate.population
        rules, limit = plan.design.rules.about(criterion), criterion.tolerance
        if criterion.kind is not ArmKind.SEARCH or not number:
            continue
        if limits(limit, number, number, rules).most >= 0:
            continue
        # Of so many none is flipped with a chance of alpha, if the rate is the limit.
        needed = math.ceil(math.log(rules.alpha) / math.log(1 - limit)) if limit else 0
        remedy = f"it takes {needed} (metamorphic.per_relation)" if needed else "raise its limit"
        yield (
            f"{criterion.label} cannot pass with {number} instances, whatever is found: {remedy}"
        )


def _tells_modes(judge: Judge) -> bool:
    """Whether a judge, or one of those that it is made of, may tell modes: not if it denies it."""
    members: Sequence[Judge] = getattr(judge, "members", ())
    if members:
        return any(map(_tells_modes, members))
    return bool(getattr(judge, "tells_modes", True))


def peculiarities(plan: RunPlan) -> Iterator[str]:
    """A sentence for each thing that is not sent as the data have it."""
    if plan.layout:
        yield "images side by side in one (single-image model)"
        if SINGLE_IMAGE in plan.arms.asked:
            yield f"{SINGLE_IMAGE} asks what multi asks: this model is shown one picture anyway"
    if plan.phases.why:
        yield plan.phases.why
    yield from _searches(plan)


def _searches(plan: RunPlan) -> Iterator[str]:
    """What searches for edits may ask beyond the plan."""
    arms = plan.arms
    if METAMORPHIC not in arms.asked:
        return
    number = sum(instance.arm == METAMORPHIC for instance in plan.instances)
    yield f"{METAMORPHIC} asks up to {arms.search.budget} requests for each of {number} instances"
    if plan.phases.two:
        yield (
            f"in two phases model and judge take turns at each request of {METAMORPHIC}, which "
            "takes long; give it a run of its own, with a judge that needs no memory of the model's"
        )


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
    return any(set(found.designs) - {plan.design_of(sample.design)} for found in mine)


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
