"""Nothing is lost between a verdict and a count, and the worst outcome always wins."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mirsafety.errors import (
    BackendError,
    BadInputError,
    BlankError,
    FilteredError,
    JudgeError,
    NotRunError,
    TruncatedError,
    UnscoredError,
)
from pytest_mirsafety.records import Outcome, Verdict, VerdictKind
from pytest_mirsafety.tally import NOT_RUN, Counts, Ledger, UnscoredPolicy, outcome_of, worst
from pytest_mirsafety.taxonomy import Reason, Status

ERRORS: Sequence[type[UnscoredError]] = (
    BackendError,
    BadInputError,
    BlankError,
    FilteredError,
    JudgeError,
    NotRunError,
    TruncatedError,
)
POLICIES = st.builds(UnscoredPolicy, st.booleans(), st.booleans())
DETAILS = st.sampled_from(["", "a", "b"])
OUTCOMES = st.one_of(
    st.builds(Outcome, st.sampled_from([Status.SAFE, Status.UNSAFE]), detail=DETAILS),
    st.builds(Outcome, st.just(Status.UNSCORED), st.sampled_from(Reason), DETAILS),
)
RECORDS = st.lists(st.tuples(st.sampled_from("abcdef"), OUTCOMES), max_size=30)
BADNESS = {Status.SAFE: 0, Status.UNSCORED: 1, Status.UNSAFE: 2}


class TestOutcomeOf:
    @given(st.sampled_from(ERRORS), st.text(max_size=20), POLICIES)
    def test_no_error_is_a_verdict(
        self, kind: type[UnscoredError], detail: str, policy: UnscoredPolicy
    ) -> None:
        outcome = outcome_of(kind(detail), policy)
        declared = policy.filtered_is_safe and kind is FilteredError
        assert (outcome.status is Status.UNSCORED) != declared
        assert outcome.reason is (None if declared else kind.reason)
        assert outcome.detail == detail

    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            (VerdictKind.SAFE, Outcome(Status.SAFE, detail="said so")),
            (VerdictKind.UNSAFE, Outcome(Status.UNSAFE, detail="said so")),
            (
                VerdictKind.UNDETERMINED,
                Outcome(Status.UNSCORED, Reason.UNDETERMINED, "said so"),
            ),
        ],
    )
    def test_a_verdict_is_taken_at_its_word(self, kind: VerdictKind, expected: Outcome) -> None:
        assert outcome_of(Verdict(kind, "judge", "said so"), UnscoredPolicy()) == expected

    def test_undetermined_can_be_declared_unsafe_and_never_safe(self) -> None:
        verdict = Verdict(VerdictKind.UNDETERMINED, "judge")
        policy = UnscoredPolicy(filtered_is_safe=True, undetermined_is_unsafe=True)
        assert outcome_of(verdict, policy).status is Status.UNSAFE
        assert outcome_of(verdict, UnscoredPolicy(filtered_is_safe=True)).status is Status.UNSCORED

    def test_filtered_is_safe_only_when_declared(self) -> None:
        assert outcome_of(FilteredError(""), UnscoredPolicy()).reason is Reason.FILTERED
        declared = UnscoredPolicy(filtered_is_safe=True)
        assert outcome_of(FilteredError(""), declared).status is Status.SAFE


class TestWorst:
    @given(OUTCOMES, OUTCOMES)
    def test_order_makes_no_difference(self, a: Outcome, b: Outcome) -> None:
        assert worst(a, b) == worst(b, a)
        assert worst(a, b) in (a, b)
        assert BADNESS[worst(a, b).status] == max(BADNESS[a.status], BADNESS[b.status])

    @given(OUTCOMES, OUTCOMES, OUTCOMES)
    def test_grouping_makes_no_difference(self, a: Outcome, b: Outcome, c: Outcome) -> None:
        assert worst(worst(a, b), c) == worst(a, worst(b, c))

    def test_not_run_is_the_least_telling_reason(self) -> None:
        blank = Outcome(Status.UNSCORED, Reason.BLANK)
        assert worst(NOT_RUN, blank) == blank


class TestLedger:
    @given(RECORDS)
    def test_order_and_repeats_make_no_difference(self, records: list[tuple[str, Outcome]]) -> None:
        again = records * 2
        random.Random(0).shuffle(again)
        first, second = Ledger(), Ledger()
        for ledger, entries in ((first, records), (second, again)):
            for name, outcome in entries:
                ledger.record(name, outcome)
        assert [first.outcome(n) for n in "abcdefg"] == [second.outcome(n) for n in "abcdefg"]

    @given(RECORDS, st.sampled_from("abcdef"), OUTCOMES)
    def test_nothing_gets_better(
        self, records: list[tuple[str, Outcome]], name: str, outcome: Outcome
    ) -> None:
        ledger = Ledger()
        for known, earlier in records:
            ledger.record(known, earlier)
        seen = any(known == name for known, _ in records)
        before = ledger.outcome(name)
        ledger.record(name, outcome)
        if seen:
            assert BADNESS[ledger.outcome(name).status] >= BADNESS[before.status]
        assert BADNESS[ledger.outcome(name).status] >= BADNESS[outcome.status]

    @given(RECORDS)
    def test_everything_is_accounted_for(self, records: list[tuple[str, Outcome]]) -> None:
        ledger = Ledger()
        for name, outcome in records:
            ledger.record(name, outcome)
        counts = ledger.counts("abcdefgh")
        assert counts.total == 8
        assert counts.total == counts.safe + counts.unsafe + sum(counts.unscored.values())
        assert counts.scored + counts.unscored_total == counts.total
        never = 8 - len({name for name, _ in records})
        assert counts.unscored.get(Reason.NOT_RUN, 0) >= never

    def test_what_was_never_recorded_is_not_run(self) -> None:
        assert Ledger().outcome("a") == Outcome(Status.UNSCORED, Reason.NOT_RUN)


class TestCounts:
    @given(st.lists(OUTCOMES, max_size=40))
    def test_count_each_outcome_once(self, outcomes: list[Outcome]) -> None:
        counts = Counts.of(outcomes)
        assert counts.total == len(outcomes)
        for reason in Reason:
            expected = sum(outcome.reason is reason for outcome in outcomes)
            assert counts.unscored.get(reason, 0) == expected
        assert counts.unsafe == sum(outcome.status is Status.UNSAFE for outcome in outcomes)

    def test_of_zero_leave_the_reason_out(self) -> None:
        assert Counts(1, 2, {Reason.BLANK: 0}) == Counts(1, 2)

    @pytest.mark.parametrize(
        ("safe", "unsafe", "blank"), [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (3, 3, -2)]
    )
    def test_cannot_be_negative(self, safe: int, unsafe: int, blank: int) -> None:
        with pytest.raises(ValueError, match="negative"):
            Counts(safe, unsafe, {Reason.BLANK: blank})
