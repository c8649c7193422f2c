"""A gate's decision in words: the reason, what would tip it, and the next step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final

from ..arms import ArmKind
from ..taxonomy import Reason
from .decisions import Case, Cause, Decision
from .wording import Wording, percent

_REMEDIES: Final[Mapping[Reason, str]] = {
    Reason.UNDETERMINED: "use a judge that can tell about the {} undetermined",
    Reason.TRUNCATED: "raise the token limit, or see what cut off {} of them",
    Reason.BLANK: "find out why {} came back blank",
    Reason.FILTERED: 'set filtered = "safe" for the {} filtered, if the filter ships',
    Reason.BACKEND_ERROR: "see that the model answers, then run again for the {} missing",
    Reason.JUDGE_ERROR: "run again to judge the {} unjudged answers",
    Reason.BAD_INPUT: "repair the images of {} instances",
    Reason.UNSAFE_BEFORE: "look at the {} that were unsafe before any edit",
    Reason.MODE_UNKNOWN: "use a judge that tells the mode of the {} safe answers, such as rubric",
}
_NO_MODE: Final = "ask without the provider's filter: the {} filtered answers have no mode"
_NO_TERMS: Final = "set twin_judge, or give must_mention to the twins of the {} undetermined"
_SHORT: Final[Mapping[Reason, str]] = {Reason.MODE_UNKNOWN: "safe in a way that is not known"}
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
    words = Wording(case)
    found = evidence.counts.safe if words.minimum else case.unsafe
    asked = evidence.planned - evidence.left_out
    reason = (
        f"{found} {words.kind} and {others} {words.unknown} of {asked}: "
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
    words = Wording(case)
    if case.exact:
        return _counted(words, case.worst, words.bound("at most"))
    low, high = _bounds(case)
    confidence = percent(case.rules.confidence)
    if words.minimum:
        within = f"at least {low}, and {words.threshold} is needed"
    else:
        within = f"at most {high}, within {words.threshold}"
    return f"at {confidence} confidence {words.rate} is {within}"


def _failing(case: Case) -> str:
    words = Wording(case)
    if case.exact:
        return _counted(words, case.unsafe, words.bound("at least"))
    rules, (low, high) = case.rules, _bounds(case)
    shared = f" over {rules.gates} gates" if rules.gates > 1 else ""
    beyond = f"at most {high}, below" if words.minimum else f"at least {low}, above"
    return (
        f"at {percent(rules.confidence)} confidence{shared} {words.rate} is {beyond} "
        f"{words.threshold}"
    )


def _counted(words: Wording, against: int, qualifier: str) -> str:
    open_ = words.case.worst > words.case.unsafe
    return (
        f"{f'{qualifier} ' if open_ else ''}{words.are(against)}, {words.most}: "
        "exact for these answers and this judge"
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
    if case.within and evidence.criterion.kind is ArmKind.SEARCH:
        reason = f"{_passing(case)}; but a run with another seed, more instances or a larger budget"
        step = "search all instances, or as many and as far as before by the same seed"
        return f"{reason} has seen this data before", step
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
    words = Wording(case)
    planned, scored = case.evidence.planned, case.evidence.counts.scored
    none = "none of them scored," if words.mode is None else "of none of which it is known,"
    subject = f"{planned} answers" if scored else f"{planned} instances, {none}"
    return f"{subject} put {words.rate} at {low} to {high}, on both sides of {words.threshold}"


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
    parts = ", ".join(
        f"{number} {_SHORT.get(reason, reason)}" for reason, number in unscored.items()
    )
    commonest, words = _commonest(unscored), Wording(case)
    # What is filtered may be declared safe, and not of a mode.
    remedy = _REMEDIES[commonest]
    if words.mode is not None and commonest is Reason.FILTERED:
        remedy = _NO_MODE
    elif case.evidence.criterion.kind is ArmKind.TWIN and commonest is Reason.UNDETERMINED:
        remedy = _NO_TERMS
    # Of an UNSAFE answer it is known that it has no mode.
    number = sum(unscored.values())
    missing = f"may be {words.kind} or not"
    if words.mode is None:
        missing = f"{'has' if number == 1 else 'have'} no verdict"
    return (
        f"{number} of {case.evidence.planned} {missing}: {parts}",
        remedy.format(unscored[commonest]),
    )


def _commonest(unscored: Mapping[Reason, int]) -> Reason:
    """Of the reasons that something can be done about."""
    return max(_REMEDIES, key=lambda reason: unscored.get(reason, 0))


def _blocked_by_emptiness(case: Case) -> tuple[str, str]:
    if not case.evidence.population:
        none = "no instance that was searched was SAFE without an edit"
        return none, "gate the attack success rate, or search more instances"
    words, planned = Wording(case), case.evidence.planned
    none = f"was found {words.good}"
    if words.mode is not None:
        none = (
            f"is among the {words.kind}"
            if words.minimum
            else f"is known not to be of the {words.kind}"
        )
    return f"not one of {planned} answers {none}", "check the model and the judge"


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
    words, planned = Wording(case), case.evidence.planned
    most, least = case.limits.most, case.limits.least
    unscored = case.worst - case.unsafe
    # On a screening judge's word nothing passes, whatever the numbers are.
    passes = "passes" if case.rules.pass_allowed else "within its limit"
    up_to = f"{words.bound('up to')} {words.shown(most)} {words.kind}"
    # What is not known could still be among those that must be there.
    has = f"has {words.shown(case.unsafe)}{' at best' if words.minimum and unscored else ''}"
    if case.decision is Decision.FAIL:
        return f"fails {words.bound('from')} {words.shown(least)} {words.kind}, {has}"
    if most < 0:
        return f"cannot pass with {planned} answers" if case.evidence.population else ""
    if case.worst <= most and case.decision is not Decision.PASS:
        return ""  # the numbers are not what stands in the way
    if case.worst <= most:
        return f"within its limit {up_to}, has {words.shown(case.worst)} at worst"
    if case.unsafe <= most:
        number = most - case.unsafe
        number = unscored - number if words.minimum else number
        share = f"{words.bound('at most')} {number} of {unscored} {words.unknown}"
        return f"{passes} if {share} are {words.kind}"
    fails = f"fails {words.bound('from')} {words.shown(least)}"
    if words.mode is not None and least > planned:
        fails = "cannot fail"
    return f"{passes} {up_to}, {fails}, {has}"


def _bounds(case: Case) -> tuple[str, str]:
    """The bounds, rounded outwards to the threshold's own digits, and one at least."""
    exponent = (100 * case.evidence.criterion.threshold).normalize().as_tuple().exponent
    digits = max(1, -exponent) if isinstance(exponent, int) else 1
    unit = Decimal(1).scaleb(-digits)
    low, high = (100 * Decimal(repr(bound)) for bound in case.shown_bounds())
    return (
        f"{low.quantize(unit, ROUND_FLOOR)}%",
        f"{high.quantize(unit, ROUND_CEILING)}%",
    )
