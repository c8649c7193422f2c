"""What a run was: of whom it asked what, how it was judged, and what it took."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, TypedDict

from . import reasoning
from .config import Settings
from .digests import canonical_json
from .printable import one_line
from .protocols import Backend
from .records import MULTI, Response, item_id
from .results import ArmUsage, Provenance
from .trials import Trials

if TYPE_CHECKING:
    from .engine.engine import Progress
    from .run_plan import RunPlan

_NUMERICS: Final = 200


@dataclass(frozen=True, slots=True)
class Given:
    """What is kept of a planned answer: its usage, and enough to know it again."""

    request_key: str
    answer: int
    content: int
    created: float
    input_tokens: int
    output_tokens: int
    counted: bool
    latency: float
    blocked: bool = False

    @classmethod
    def of(cls, response: Response) -> Given:
        """What to keep of this response."""
        completion = response.completion
        return cls(
            response.request_key,
            hash(response.answer),
            hash((response.answer, response.reasoning_closed, completion)),
            completion.created,
            completion.input_tokens or 0,
            completion.output_tokens or 0,
            completion.input_tokens is not None or completion.output_tokens is not None,
            completion.latency,
            completion.blocked is not None,
        )


def usage_by_arm(given: Mapping[str, Given], arms: Mapping[str, str]) -> dict[str, ArmUsage]:
    """What the answers of each arm took; `arms` has the arm of each instance. Empty without any."""
    by_arm: dict[str, list[Given]] = defaultdict(list)
    for instance_id, one in given.items():
        by_arm[arms.get(instance_id, MULTI)].append(one)
    if not by_arm.keys() - {MULTI}:
        return {}
    return {arm: _usage(some) for arm, some in sorted(by_arm.items())}


def _usage(given: Collection[Given]) -> ArmUsage:
    counted = [one for one in given if one.counted]
    times = [one.latency for one in given if one.latency]
    return ArmUsage(
        answers=len(given),
        counted=len(counted),
        input_tokens=sum(one.input_tokens for one in counted),
        output_tokens=sum(one.output_tokens for one in counted),
        timed=len(times),
        seconds=round(math.fsum(times), 6),
        blocked=sum(one.blocked for one in given),
    )


def provenance(
    plan: RunPlan,
    given: Mapping[str, Given],
    progress: Progress | None,
    *,
    attempt: int,
    started: float,
) -> Provenance:
    """Of this plan, with the answers that tests were given by instance, and as far as it got.

    `started` is in seconds since the epoch.
    """
    usage = given.values()
    created = [u.created for u in usage if u.created]
    return Provenance(
        package_version=version("pytest-mirsafety"),
        data_source=plan.dataset.source,
        data_identity=plan.dataset.identity,
        data_revision=plan.dataset.revision,
        data_count=len(plan.dataset.instances),
        model_name=plan.model.name,
        model_identity=str(plan.backend.identity),
        decoding=canonical_json(dict(plan.backend.decoding)),
        system_prompt=plan.backend.system,
        judge=plan.judge.identity,
        judge_screens=plan.judge.screening,
        screening_may_pass=plan.design.rules.pass_allowed,
        estimand=plan.design.rules.estimand,
        confidence=plan.design.rules.confidence,
        sample=f"{len(plan.sample.asked)} of {len(plan.dataset.instances)} instances"
        if plan.sample
        else None,
        sample_seed=plan.sample.seed if plan.sample else None,
        thresholds_from=plan.thresholds_from,
        policy=(
            *policy_lines(plan.settings),
            *reasoning.in_words(plan.model.settings.reasoning_markers),
        ),
        attempt=attempt,
        answers_asked=progress.asked if progress else 0,
        answers_from_store=progress.from_store if progress else 0,
        verdicts_from_store=progress.verdicts_from_store if progress else 0,
        answers_recorded=plan.backend.identity.provider == "replay",
        oldest_answer=min(created, default=None),
        input_tokens=sum(u.input_tokens for u in usage),
        output_tokens=sum(u.output_tokens for u in usage),
        started=started,
        elapsed=time.time() - started,
        canaries=None if plan.canaries is None else plan.canaries.about,
        layout=plan.layout or None,
        usage=usage_by_arm(given, {one.id: one.arm for one in plan.instances})
        if plan.design.arms
        else {},
        twins_source=None if plan.arms.twins is None else plan.arms.twins.dataset.source,
        twins_count=None if plan.arms.twins is None else len(plan.arms.twin_instances),
        **_spent(progress),
    )


def numerics_note(backend: Backend) -> Iterator[str]:
    """What a model of this process has computed on, which can change the last bits of a score."""
    if numerics := getattr(backend, "numerics", ""):
        yield f"the model ran on {one_line(str(numerics), _NUMERICS)}"


class _Spent(TypedDict, total=False):
    """What of a provenance tells what the answers took."""

    asked_input_tokens: int
    asked_output_tokens: int
    asked_without_usage: int
    stored_input_tokens: int
    stored_output_tokens: int
    cost_usd: Decimal | None


def _spent(progress: Progress | None) -> _Spent:
    if progress is None:
        return {}
    asked, stored = progress.asked_tokens, progress.stored_tokens
    return {
        "asked_input_tokens": asked.input,
        "asked_output_tokens": asked.output,
        "asked_without_usage": asked.untold,
        "stored_input_tokens": stored.input,
        "stored_output_tokens": stored.output,
        "cost_usd": progress.cost,
    }


def policy_lines(settings: Settings) -> tuple[str, ...]:
    """How the configuration counts what is filtered or undetermined, in words."""
    chosen = settings.unscored.to_policy()
    lines = {
        "filtered counts as safe: the filter ships": chosen.filtered_is_safe,
        "undetermined counts as unsafe": chosen.undetermined_is_unsafe,
        f"undetermined goes on to {', '.join(settings.escalate)}": bool(settings.escalate),
    }
    return tuple(line for line, holds in lines.items() if holds)


def trials_notes(trials: Trials, given: Mapping[str, Given], *, looked: bool) -> Iterator[str]:
    """That trials which should differ do not, or that there was a look at fewer of them.

    `given` are the answers by instance and draw; `looked` says that other numbers were asked.
    """
    if not trials.several:
        return
    if looked:
        yield (
            "an earlier run with this model, data and judge asked another number of trials or "
            "instances: a number that is chosen after a look is no longer at this confidence"
        )
    answers: dict[str, list[int]] = defaultdict(list)
    for name, one in given.items():
        answers[item_id(name)[0]].append(one.answer)
    full = [some for some in answers.values() if len(some) == trials.count]
    if same := sum(len(set(some)) == 1 for some in full):
        yield (
            f"the {trials.count} answers to {same} of {len(full)} instances are the same: is "
            "decoding sampled?"
        )
