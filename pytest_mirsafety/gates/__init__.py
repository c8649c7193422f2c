"""The gates of a run: evidence from a ledger in, decisions and an exit code out."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from fractions import Fraction

from ..records import MULTI
from ..stats import allowed
from ..tally import Counts
from .criteria import Criterion, Scope, Thresholds, criteria
from .decisions import (
    Case,
    Cause,
    Decision,
    Estimand,
    Evidence,
    Rules,
    limits,
    undecidable_zone,
)
from .explanations import explain

__all__ = [
    "Cause",
    "Criterion",
    "Decision",
    "Estimand",
    "Evidence",
    "GateResult",
    "Rules",
    "Scope",
    "Thresholds",
    "criteria",
    "decide",
    "exit_code",
    "limits",
    "undecidable_zone",
]


@dataclass(frozen=True, slots=True)
class GateResult:
    """A gate's decision and all that a report says about it.

    `counts` and `k0`, the number of unsafe that the threshold allows in the population, are as the
    criterion reads outcomes: to a gate on a mode, unsafe is what counts against the model. `low`
    and `high` enclose the rate, or the share of the mode: the bracket of the unscored when `exact`,
    else bounds that hold at the confidence of the run. `reason` is a sentence; `tipping` says what
    would change the decision and `next_step` what to do, each empty when there is nothing to say.
    `left_out` instances were not asked, since the decision did not depend on them any more: there
    is then no rate.
    """

    criterion: Criterion
    population: int
    planned: int
    selected: int
    counts: Counts
    decision: Decision
    cause: Cause | None
    k0: int
    low: float
    high: float
    exact: bool
    left_out: int
    reason: str
    tipping: str
    next_step: str

    @property
    def found(self) -> int:
        """How many were found to be what the threshold is about: unsafe, or of the mode."""
        return self.counts.safe if self.criterion.minimum else self.counts.unsafe

    @property
    def of_scored(self) -> Fraction | None:
        """The share found among the scored; 0 of 0 has no rate, nor has a stopped gate."""
        if not self.counts.scored or self.left_out:
            return None
        return Fraction(self.found, self.counts.scored)

    @property
    def bracket(self) -> tuple[Fraction, Fraction] | None:
        """[u/n, (u+m)/n]: the rate among the planned, whatever the unscored turn out to be."""
        if not self.planned:
            return None
        most = self.found + self.counts.unscored_total
        return Fraction(self.found, self.planned), Fraction(most, self.planned)


def decide(evidence: Evidence, rules: Rules) -> GateResult:
    """The decision of one gate.

    Raises:
        ValueError: the estimand `items` without clusters.
    """
    case = Case.of(evidence, rules)
    explanation = explain(case)
    evaluated = case.decision is not Decision.NOT_EVALUATED
    low, high = case.shown_bounds() if evaluated else (0.0, 1.0)
    return GateResult(
        criterion=evidence.criterion,
        population=evidence.population,
        planned=evidence.planned,
        selected=evidence.selected,
        counts=evidence.counts,
        decision=case.decision,
        cause=case.cause,
        k0=allowed(evidence.criterion.tolerance, evidence.population),
        low=low,
        high=high,
        exact=case.exact,
        left_out=evidence.left_out,
        reason=explanation.reason,
        tipping=explanation.tipping,
        next_step=explanation.next_step,
    )


def exit_code(
    results: Iterable[GateResult],
    *,
    require_all: bool,
    tests_failed: bool,
    shipping: Container[str] = frozenset({MULTI}),
) -> int:
    """0 all evaluated gates pass, 1 a gate or a test fails, 10 neither, or none was evaluated.

    A 0 takes a gate on the attack success rate in an arm that is `shipping`: those on modes, on
    twins or on other ways of asking give none alone.
    """
    given = tuple(results)
    decisions = {result.decision for result in given}
    if tests_failed or Decision.FAIL in decisions:
        return 1
    undecided = {Decision.INCONCLUSIVE} | ({Decision.NOT_EVALUATED} if require_all else set())
    # How safe answers are safe says nothing of a model none of whose answers is.
    rates = {result.decision for result in given if result.criterion.ships(shipping)}
    return 10 if decisions & undecided or Decision.PASS not in rates else 0
