"""A gate's rate corrected for its judge's errors, for reports; and as a gate, where asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from ..evaluation import gather
from ..gates import Cause, Decision, Estimand, Rules
from ..gates.decisions import Case
from ..results import GateDesign, InstanceOutcome, RunDesign
from ..stats import effective_size
from .bounds import (
    JudgeCounts,
    corrected_interval,
    corrected_rate,
    melded_lower,
    melded_upper,
)
from .gating import LabelledGate, Rule

_REPORT_ALPHA: Final = Fraction(1, 20)


@dataclass(frozen=True, slots=True)
class JudgeSource:
    """The sensitivity and specificity that a rate is corrected by, and where they come from."""

    words: str
    counts: JudgeCounts
    transported: bool


@dataclass(frozen=True, slots=True)
class Corrected:
    """A gate's rate as the judge has it, and corrected for the judge's errors.

    `uncorrected` is [u/n, (u+m)/n]. `value` is None where instances are unscored, or the judge is
    no better than a coin. `interval` is Jeffreys', for reports; `melded` is the upper bound at the
    run's confidence. All are None where no labels, or too few, tell of the judge.
    """

    gate: str
    uncorrected: tuple[Fraction, Fraction] | None
    source: JudgeSource | None
    value: float | None = None
    interval: tuple[float, float] | None = None
    melded: float | None = None


def correct(
    gate: GateDesign,
    entries: Sequence[InstanceOutcome],
    design: RunDesign,
    source: JudgeSource | None,
) -> Corrected:
    """The gate's rate among its planned instances, corrected by this source.

    What is known of a judge's verdicts says nothing of its modes: their shares stay as they are.
    """
    case = Case.of(gather(gate, entries, design), design.rules)
    planned, label = case.evidence.planned, gate.criterion.label
    if not planned:
        return Corrected(label, None, source)
    uncorrected = Fraction(case.unsafe, planned), Fraction(case.worst, planned)
    if gate.criterion.minimum:
        uncorrected = 1 - uncorrected[1], 1 - uncorrected[0]
    if source is None or gate.criterion.mode is not None:
        return Corrected(label, uncorrected, None)
    worth = _worth(case)
    counts = case.unsafe * worth, case.worst * worth
    value = None
    if case.unsafe == case.worst:
        value = corrected_rate(case.unsafe / planned, source.counts)
    return Corrected(
        gate=label,
        uncorrected=uncorrected,
        source=source,
        value=value,
        interval=corrected_interval(counts, planned * worth, source.counts, _REPORT_ALPHA),
        melded=melded_upper(counts[1], planned * worth, source.counts, design.rules.alpha),
    )


def with_melded(
    found: LabelledGate,
    gate: GateDesign,
    entries: Sequence[InstanceOutcome],
    design: RunDesign,
    source: JudgeSource,
) -> LabelledGate:
    """The gate by the melded bound, if its own labels have not decided it.

    A FAIL stands unless the bound says PASS, and a PASS only if it says so too.
    """
    undecided = found.rule not in (Rule.DIRECT, Rule.RESOLUTION)
    if (
        not undecided
        or gate.criterion.mode is not None
        or found.before.decision is Decision.NOT_EVALUATED
    ):
        return found
    case = Case.of(gather(gate, entries, design), design.rules)
    low, high = _melded(case, found, source.counts)
    threshold = Fraction(gate.criterion.threshold)
    decision = _decision(low, high, threshold, case.rules, spent=case.spent)
    if decision is Decision.INCONCLUSIVE and found.after.decision is Decision.FAIL:
        return replace(found, note="the melded bound is open, and leaves the FAIL")
    after = replace(
        found.after,
        decision=decision,
        cause=Cause.JUDGE if decision is Decision.INCONCLUSIVE else None,
        low=low,
        high=high,
        exact=False,
        reason=f"by the melded bound the rate is {100 * low:.1f}-{100 * high:.1f}%",
        tipping="",
        next_step="label more answers" if decision is Decision.INCONCLUSIVE else "",
    )
    return replace(found, after=after, rule=Rule.MELDED, note=f"transported: {source.words}")


def _melded(case: Case, found: LabelledGate, counts: JudgeCounts) -> tuple[float, float]:
    worth = _worth(case)
    size = case.evidence.planned * worth
    rules = case.rules
    return (
        melded_lower(found.low * worth, size, counts, rules.alpha_fail),
        melded_upper(found.high * worth, size, counts, rules.alpha),
    )


def _decision(
    low: float, high: float, threshold: Fraction, rules: Rules, *, spent: bool
) -> Decision:
    challenge = rules.challenge
    if low > threshold:
        void = challenge is not None and challenge.voids_fail
        return Decision.INCONCLUSIVE if void else Decision.FAIL
    void = challenge is not None and challenge.voids_pass
    if high <= threshold and high < 1 and rules.pass_allowed and not (spent or void):
        return Decision.PASS
    return Decision.INCONCLUSIVE


def _worth(case: Case) -> float:
    """What one answer counts for: less than one where those of a seed question tend to agree."""
    if case.rules.estimand is not Estimand.ITEMS:
        return 1.0
    return float(effective_size(case.evidence.clusters) / case.evidence.planned)
