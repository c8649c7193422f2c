"""A regression gate's decision in words: the reason, what would tip it, and the next step."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from fractions import Fraction

from ..gates import Cause, Criterion, Decision, Rules
from ..gates.explanations import Explanation
from ..gates.wording import RATES, percent
from .evidence import Conditions, Increase, PairEvidence, tipping_point


def points(value: float | Fraction, *, up: bool | None = None) -> str:
    """A difference of two shares with its sign, in percentage points: `+1.3`; rounded as told."""
    shown = Decimal(repr(float(value) * 100))
    way = {None: "ROUND_HALF_EVEN", True: ROUND_CEILING, False: ROUND_FLOOR}[up]
    rounded = shown.quantize(Decimal("0.1"), way)
    return f"{rounded or abs(rounded):+f}"


def margin(max_increase: Decimal) -> str:
    """What a gate allows, in percentage points as written: 0.025 is `+2.5`.

    Without a `%`, which reads as a share of the baseline's rate.
    """
    return f"+{percent(max_increase).removesuffix('%')}"


def explain(
    criterion: Criterion,
    evidence: PairEvidence,
    rules: Rules,
    conditions: Conditions,
    found: Increase,
    decision: Decision,
    cause: Cause | None,
) -> Explanation:
    """Why the gate says what it says."""
    if decision is Decision.NOT_EVALUATED:
        if cause is Cause.EMPTY:
            step = "check the data, or remove this max_increase"
            return Explanation("the data has no such instance", "", step)
        total = evidence.counts.total
        return Explanation(f"none of {total} pairs was selected", "", "select its instances")
    reason = _numbers(criterion, evidence, rules, found)
    if decision is Decision.PASS:
        return Explanation(reason, _tipping(criterion, evidence, rules), "")
    if decision is Decision.FAIL:
        return Explanation(reason, "", "look at the newly unsafe answers")
    blocked = conditions.excused if found.low > criterion.threshold else conditions.held_back
    if cause in (Cause.CANARY, Cause.JUDGE) or (found.high <= criterion.threshold and blocked):
        step = _STEPS[cause or Cause.CANARY]
        if cause is Cause.JUDGE and rules.pass_allowed:
            step = _SCREENED_BASELINE
        return Explanation(f"{reason}; but {blocked}", "", step)
    tipping = _tipping(criterion, evidence, rules)
    return Explanation(_open(evidence, cause, reason), tipping, _STEPS[cause or Cause.ZONE])


def _numbers(criterion: Criterion, evidence: PairEvidence, rules: Rules, found: Increase) -> str:
    counts, limit = evidence.counts, margin(criterion.threshold)
    changed = f"{counts.newly_unsafe} newly unsafe and {counts.newly_safe} newly safe"
    of = f"{changed} of {counts.total} pairs"
    if found.exact:
        span = _span(found)
        return f"{of}: the rate of all these answers rose by {span} points, {limit} allowed"
    return (
        f"{of}: at {percent(rules.confidence)} confidence {RATES[rules.estimand]} rose by "
        f"{_span(found)} points, {limit} allowed"
    )


def _span(found: Increase) -> str:
    if found.low == found.high:
        return points(found.low)
    if found.exact:  # nothing is estimated: to the nearest, as in the tables
        return f"{points(found.low)} to {points(found.high)}"
    return f"{points(found.low, up=False)} to {points(found.high, up=True)}"


def _open(evidence: PairEvidence, cause: Cause | None, reason: str) -> str:
    counts = evidence.counts
    if not counts.total:
        return "no instance is in both runs"
    if not evidence.drawn:
        return "the pairs are no simple random sample of this population"
    if not counts.candidate_safe:
        return f"not one of {counts.total} answers was found safe"
    missing = {
        Cause.PARTIAL: f"{evidence.not_run} of {counts.total} were not run; ",
        Cause.BUDGET: f"{evidence.not_run} of {counts.total} were not run; ",
        Cause.UNSCORED: f"{counts.open_by_candidate} that were safe have no verdict now; ",
        Cause.BASELINE: f"{counts.open_by_base} have no verdict in the baseline; ",
    }
    return f"{missing.get(cause, '') if cause else ''}{reason}"


def _tipping(criterion: Criterion, evidence: PairEvidence, rules: Rules) -> str:
    most, counts = tipping_point(criterion, evidence, rules), evidence.counts
    if most is None:
        return f"cannot pass with {counts.total} pairs" if counts.total else ""
    worst = counts.most_newly_unsafe
    at_worst = f"has {worst} at worst" if worst > counts.newly_unsafe else f"has {worst}"
    return f"passes up to {most} newly unsafe, {at_worst}"


_SCREENED_BASELINE = (
    "take a baseline whose run had allow_screening_judge = true, or judge both with a stronger one"
)

_STEPS = {
    Cause.BASELINE: "take a baseline whose answers have verdicts, or ask and judge it again",
    Cause.BUDGET: "run again with a larger --mir-budget: what was answered is kept",
    Cause.CANARY: "use another judge, and judge both runs with it",
    Cause.JUDGE: "use a stronger judge, or set allow_screening_judge = true",
    Cause.PARTIAL: "run the whole population",
    Cause.SAMPLE: "run the whole population, without a sample, in both runs",
    Cause.UNSCORED: "see why they have no verdict, and run again",
    Cause.ZONE: "gate on more items: so few pairs cannot tell this increase from none",
    Cause.EMPTY: "check the model and the judge",
}
