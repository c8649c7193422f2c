"""A gate's decision in words: the reason, what would tip it, and the next step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final

from ..taxonomy import Reason
from .decisions import Case, Cause, Decision, Estimand

_RATES: Final[Mapping[Estimand, str]] = {
    Estimand.ANSWERS: "the rate of all these answers",
    Estimand.MODEL: "the model's rate on these items",
    Estimand.ITEMS: "the rate on new items like these",
}
_REMEDIES: Final[Mapping[Reason, str]] = {
    Reason.UNDETERMINED: "use a judge that can tell about the {} undetermined",
    Reason.TRUNCATED: "raise the token limit, or see what cut off {} of them",
    Reason.BLANK: "find out why {} came back blank",
    Reason.FILTERED: 'set filtered = "safe" for the {} filtered, if the filter ships',
    Reason.BACKEND_ERROR: "see that the model answers, then run again for the {} missing",
    Reason.JUDGE_ERROR: "run again to judge the {} unjudged answers",
    Reason.BAD_INPUT: "repair the images of {} instances",
}
NOT_CHALLENGED: Final = "judge not challenged"
"""What a PASS says of a judge that no known answers were put to."""

_UNANSWERED: Final = frozenset({Reason.BACKEND_ERROR, Reason.JUDGE_ERROR})


@dataclass(frozen=True, slots=True)
class Explanation:
    """The words for a gate; each text is empty when there is nothing to say."""

    reason: str
    tipping: str
    next_step: str


def explain(case: Case) -> Explanation:
    """Why the gate says what it says."""
    if case.decision is Decision.NOT_EVALUATED:
        return _not_evaluated(case)
    if case.cause is not None:
        return _ask_again(case, _blocked(case))
    reason = _passing(case) if case.decision is Decision.PASS else _failing(case)
    if case.decision is Decision.PASS and case.rules.unchallenged:
        reason += f"; {NOT_CHALLENGED}"
    return Explanation(reason, _tipping(case), next_step="")


def percent(value: Decimal) -> str:
    """A share as written: 0.10 is `10%`, 0.025 is `2.5%`."""
    return f"{(100 * value).normalize():f}%"


def _blocked(case: Case) -> Explanation:
    if case.evidence.left_out and case.cause is not Cause.CANARY:
        return _stopped(case)
    reason, next_step = _BLOCKED[case.cause](case) if case.cause is not None else ("", "")
    return Explanation(reason, _tipping(case), next_step)


def _ask_again(case: Case, found: Explanation) -> Explanation:
    """With another next step where what is missing is what somebody stopped answering."""
    silent, unscored = case.rules.silent, case.evidence.counts.unscored
    if silent is None or case.cause not in (Cause.PARTIAL, Cause.UNSCORED):
        return found
    if case.cause is Cause.UNSCORED and _commonest(unscored) not in _UNANSWERED:
        return found
    step = f"the {silent} stopped answering: run the same command again; what was answered is kept"
    return replace(found, next_step=step)


def _stopped(case: Case) -> Explanation:
    """Of a gate that was found to be undecidable before all were asked."""
    evidence = case.evidence
    others = evidence.counts.unscored_total - evidence.left_out
    reason = (
        f"{case.unsafe} unsafe and {others} unscored of {evidence.planned - evidence.left_out}: "
        f"no answer of the {evidence.left_out} left out could have decided it"
    )
    return Explanation(reason, "", "run without --mir-stop=decided for the whole count")


def _not_evaluated(case: Case) -> Explanation:
    if not case.evidence.population:
        empty = "the data has no such instance"
        return Explanation(empty, "", "check the data, or remove this threshold")
    unselected = f"none of {case.evidence.planned} instances was selected"
    return Explanation(unselected, "", "select its instances")


def _passing(case: Case) -> str:
    if case.exact:
        return _counted(case, case.worst, "at most ")
    confidence, threshold = percent(case.rules.confidence), _threshold(case)
    rate, high = _RATES[case.rules.estimand], _bounds(case)[1]
    return f"at {confidence} confidence {rate} is at most {high}, within {threshold}"


def _failing(case: Case) -> str:
    if case.exact:
        return _counted(case, case.unsafe, "at least ")
    rules = case.rules
    confidence, rate, low = percent(rules.confidence), _RATES[rules.estimand], _bounds(case)[0]
    shared = f" over {rules.gates} gates" if rules.gates > 1 else ""
    return f"at {confidence} confidence{shared} {rate} is at least {low}, above {_threshold(case)}"


def _counted(case: Case, unsafe: int, qualifier: str) -> str:
    qualifier = qualifier if case.worst > case.unsafe else ""
    return (
        f"{qualifier}{unsafe} of {case.evidence.population} {_are(unsafe)} unsafe, "
        f"{case.limits.most} "
        "allowed: exact for these answers and this judge"
    )


def _blocked_by_judge(case: Case) -> tuple[str, str]:
    return (
        f"{_passing(case)}; but no PASS can rest on a screening judge",
        "use a stronger judge, or set allow_screening_judge = true",
    )


def _blocked_by_canaries(case: Case) -> tuple[str, str]:
    challenge = case.rules.challenge
    troubles = () if challenge is None else challenge.troubles()
    counted = _passing(case) if case.within else _failing(case)
    step = "use another judge: this one is wrong about answers that are known"
    if challenge is not None and challenge.broken:
        step = "see that the judge answers, then run again: what was answered is kept"
    elif challenge is not None and not challenge.complete and len(troubles) == 1:
        step = "run to the end, so that the judge is tried after the last answer"
    return f"{counted}; but {'; '.join(troubles)}", step


def _blocked_by_sample(case: Case) -> tuple[str, str]:
    evidence = case.evidence
    if case.within:
        reason = f"{_passing(case)}; but a run of another design has seen this data before"
    elif evidence.planned:
        reason = f"the sampled {_straddling(case)}"
    else:
        reason = f"the sample holds none of its {evidence.population} instances"
    return reason, "run the whole population, without a sample"


def _blocked_by_zone(case: Case) -> tuple[str, str]:
    planned = case.evidence.planned
    return (
        _straddling(case),
        f"gate on more items: {planned} answers cannot tell this rate from the threshold",
    )


def _straddling(case: Case) -> str:
    low, high = _bounds(case)
    rate = _RATES[case.rules.estimand]
    planned, scored = case.evidence.planned, case.evidence.counts.scored
    subject = f"{planned} answers" if scored else f"{planned} instances, none of them scored,"
    return f"{subject} put {rate} at {low} to {high}, on both sides of {_threshold(case)}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _blocked_by_never_run(case: Case) -> tuple[str, str]:
    evidence = case.evidence
    left_out = evidence.planned - evidence.selected
    verb = "was" if evidence.not_run == 1 else "were"
    reason = f"{evidence.not_run} of {evidence.planned} {verb} not run"
    if not left_out:
        return reason, "run to the end: every selected instance must reach the judge"
    whole = "population" if evidence.complete else "sample"
    return f"{reason}, {left_out} of them not selected", f"run the whole {whole}"


def _blocked_by_budget(case: Case) -> tuple[str, str]:
    reason, _ = _blocked_by_never_run(case)
    return (
        f"{reason}, as the budget is spent",
        "run again with a larger --mir-budget: what was answered is kept",
    )


def _blocked_by_unscored(case: Case) -> tuple[str, str]:
    unscored = case.evidence.counts.unscored
    parts = ", ".join(f"{number} {reason}" for reason, number in unscored.items())
    commonest = _commonest(unscored)
    return (
        f"{sum(unscored.values())} of {case.evidence.planned} have no verdict: {parts}",
        _REMEDIES[commonest].format(unscored[commonest]),
    )


def _commonest(unscored: Mapping[Reason, int]) -> Reason:
    """Of the reasons that something can be done about."""
    return max(_REMEDIES, key=lambda reason: unscored.get(reason, 0))


def _blocked_by_emptiness(case: Case) -> tuple[str, str]:
    return (
        f"not one of {case.evidence.planned} answers was found safe",
        "check the model and the judge",
    )


_BLOCKED: Final[Mapping[Cause, Callable[[Case], tuple[str, str]]]] = {
    Cause.BUDGET: _blocked_by_budget,
    Cause.CANARY: _blocked_by_canaries,
    Cause.EMPTY: _blocked_by_emptiness,
    Cause.JUDGE: _blocked_by_judge,
    Cause.PARTIAL: _blocked_by_never_run,
    Cause.SAMPLE: _blocked_by_sample,
    Cause.UNSCORED: _blocked_by_unscored,
    Cause.ZONE: _blocked_by_zone,
}


def _tipping(case: Case) -> str:
    most, least = case.limits.most, case.limits.least
    unscored = case.worst - case.unsafe
    if case.decision is Decision.FAIL:
        return f"fails from {least} unsafe, has {case.unsafe}"
    if most < 0:
        return f"cannot pass with {case.evidence.planned} answers"
    if case.worst <= most and case.decision is not Decision.PASS:
        return ""  # the numbers are not what stands in the way
    if case.worst <= most:
        return f"within its limit up to {most} unsafe, has {case.worst} at worst"
    if case.unsafe <= most:
        return f"passes if at most {most - case.unsafe} of {unscored} unscored are unsafe"
    return f"passes up to {most} unsafe, fails from {least}, has {case.unsafe}"


def _threshold(case: Case) -> str:
    return percent(case.evidence.criterion.threshold)


def _bounds(case: Case) -> tuple[str, str]:
    """The bounds, rounded outwards to the threshold's own digits, and one at least."""
    exponent = (100 * case.evidence.criterion.threshold).normalize().as_tuple().exponent
    digits = max(1, -exponent) if isinstance(exponent, int) else 1
    unit = Decimal(1).scaleb(-digits)
    low, high = (100 * Decimal(repr(bound)) for bound in case.bounds())
    return (
        f"{low.quantize(unit, ROUND_FLOOR)}%",
        f"{high.quantize(unit, ROUND_CEILING)}%",
    )
