"""Outcomes and evidence for gates on how safe answers are safe."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from hypothesis import strategies as st

from pytest_mirsafety.gates import Criterion, Estimand, Evidence, Rules, Scope
from pytest_mirsafety.records import Outcome, SafeMode
from pytest_mirsafety.tally import Counts
from pytest_mirsafety.taxonomy import Reason, Status

CORRECT, MISSED = SafeMode.CORRECT_REFUSAL, SafeMode.MISUNDERSTANDING
ANSWERS, MODEL = Rules(Estimand.ANSWERS), Rules(Estimand.MODEL)
SHARES = st.decimals(0, 1, places=3)
LEVEL = {Status.SAFE: 0, Status.UNSCORED: 1, Status.UNSAFE: 2}
OUTCOMES = st.one_of(
    st.builds(
        lambda mode, guessed: Outcome(Status.SAFE, mode=mode, mode_by_rules=guessed),
        st.sampled_from(SafeMode),
        st.sampled_from([False, False, True]),
    ),
    st.just(Outcome(Status.SAFE)),
    st.builds(lambda is_open: Outcome(Status.UNSAFE, mode_open=is_open), st.booleans()),
    st.sampled_from([Outcome(Status.UNSCORED, r) for r in (Reason.BLANK, Reason.NOT_RUN)]),
)


def on(mode: SafeMode, share: Decimal | str) -> Criterion:
    return Criterion(Scope.MODE, mode, Decimal(share))


GATES = st.builds(on, st.sampled_from(SafeMode), SHARES)


def told(mode: SafeMode) -> Outcome:
    return Outcome(Status.SAFE, mode=mode)


def read(criterion: Criterion, outcomes: Sequence[Outcome]) -> Evidence:
    """What these outcomes of a whole population are to a gate."""
    counts = Counts.of_readings(map(criterion.reading, outcomes))
    return Evidence(criterion, len(outcomes), len(outcomes), counts, clusters=(1,) * len(outcomes))


def certain(criterion: Criterion, of_mode: int, others: int, unknown: int = 0) -> Evidence:
    """A population with so many of the mode, of none or another, and not known."""
    other = next(mode for mode in SafeMode if mode != criterion.mode)
    assert criterion.mode is not None
    return read(
        criterion,
        [told(criterion.mode)] * of_mode
        + [told(other)] * others
        + [Outcome(Status.SAFE)] * unknown,
    )
