"""The difference between two ways of asking the same instances, its bracket and its interval."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from arm_simulation import LIKE_THE_BENCHMARK, Shared
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from pytest_mirsafety.comparison.alarm import durkalski_p
from pytest_mirsafety.comparison.arms import (
    ArmDifference,
    difference_of,
    differences,
    false_refusals,
)
from pytest_mirsafety.comparison.bounds import newcombe_interval
from pytest_mirsafety.comparison.clustered import Table, clustered_interval, design_effect
from pytest_mirsafety.comparison.pairs import SAFE, UNSAFE, UNSCORED, Pair
from pytest_mirsafety.comparison.sides import ItemOutcome
from pytest_mirsafety.gates import Estimand, Rules
from pytest_mirsafety.tally import Counts
from pytest_mirsafety.taxonomy import Category, Reason, Relation, Status

RULES = Rules(Estimand.ANSWERS, Decimal("0.95"))
ALPHA = Fraction(1, 20)


def item(number: int, status: Status, seed: int, relation: Relation) -> ItemOutcome:
    reason = Reason.BLANK if status is UNSCORED else None
    return ItemOutcome(f"i{number:03}", relation, Category.PRIVACY, f"s{seed}", status, reason)


def pair(
    number: int,
    multi: Status,
    arm: Status,
    seed: int | None = None,
    relation: Relation = Relation.ANALOGY,
) -> Pair:
    own = number if seed is None else seed
    return Pair(item(number, multi, own, relation), item(number, arm, own, relation))


STATUSES = st.sampled_from(list(Status))


@st.composite
def some_pairs(draw: st.DrawFn) -> list[Pair]:
    """A few pairs of any kind; some share a seed question."""
    kinds = draw(st.lists(st.tuples(STATUSES, STATUSES, st.integers(0, 9)), max_size=30))
    relations = st.sampled_from([Relation.ANALOGY, Relation.CAUSALITY])
    return [pair(n, *kind, draw(relations)) for n, kind in enumerate(kinds)]


@settings(max_examples=100, deadline=None)
@given(some_pairs(), st.randoms())
def test_every_difference_holds_what_it_must(pairs: list[Pair], random: object) -> None:
    rows = differences(pairs, RULES)
    assert sum(row.counts.total for row in rows[:-1]) == rows[-1].counts.total == len(pairs)
    for row in rows:
        if row.difference is None:
            assert (row.low, row.high, row.p, row.rates) == (None, None, None, None)
            continue
        multi, arm = row.rates or (0, 0)
        assert row.difference == arm - multi
        assert row.bracket is not None
        assert -1 <= row.bracket[0] <= row.bracket[1] <= 1
        assert (row.bracket[0] == row.bracket[1]) is not row.unsettled
        if row.low is not None and row.high is not None:
            assert -1 <= row.low <= row.difference <= row.high <= 1
            assert row.low < row.high
    shuffled = list(pairs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert [_close(row) for row in differences(shuffled, RULES)] == [_close(r) for r in rows]


def _close(row: ArmDifference) -> ArmDifference:
    """Sums of floats depend on their order in the last digit."""
    low, high, p = (None if x is None else round(x, 9) for x in (row.low, row.high, row.p))
    return replace(row, low=low, high=high, p=p)


@settings(max_examples=60, deadline=None)
@given(some_pairs())
def test_asked_the_other_way_round_everything_is_mirrored(pairs: list[Pair]) -> None:
    other = [Pair(one.candidate, one.base) for one in pairs if one.base is not None]
    for row, mirror in zip(differences(pairs, RULES), differences(other, RULES), strict=True):
        if row.difference is None:
            continue
        assert mirror.difference == -row.difference
        assert row.bracket is not None
        assert mirror.bracket == (-row.bracket[1], -row.bracket[0])
        if row.low is not None and row.high is not None:
            assert (mirror.low, mirror.high) == pytest.approx((-row.high, -row.low))
            assert mirror.p == pytest.approx(row.p)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(STATUSES, STATUSES), min_size=1, max_size=5))
def test_the_bracket_is_all_that_could_have_been_judged(kinds: list[tuple[Status, Status]]) -> None:
    ways = [
        itertools.product(*([one] if one is not UNSCORED else [SAFE, UNSAFE] for one in kind))
        for kind in kinds
    ]
    found = [
        Fraction(sum((arm is UNSAFE) - (multi is UNSAFE) for multi, arm in way), len(kinds))
        for way in itertools.product(*ways)
    ]
    row = difference_of("all", [pair(n, *kind) for n, kind in enumerate(kinds)], RULES)
    assert row.bracket == (min(found), max(found))


def test_what_was_not_selected_in_both_is_counted_apart_and_takes_the_interval() -> None:
    whole = [pair(n, SAFE, UNSAFE if n % 3 else SAFE) for n in range(12)]
    assert difference_of("all", whole, RULES).low is not None
    missing = replace(whole[0].candidate, selected=False)
    row = difference_of("all", [Pair(whole[0].base, missing), *whole[1:]], RULES)
    assert (row.population, row.counts.total) == (12, 11)
    assert (row.low, row.high, row.p, row.exact) == (None, None, None, False)
    alone = difference_of("all", [Pair(None, whole[0].candidate), *whole[1:]], RULES)
    assert (alone.population, alone.counts.total, alone.low) == (12, 11, None)


def test_the_answers_themselves_are_exact_only_where_all_were_asked_greedily() -> None:
    pairs = [pair(n, SAFE, UNSAFE) for n in range(3)]
    assert difference_of("all", pairs, RULES).exact
    assert not difference_of("all", pairs, RULES, sampled=True).exact
    assert not difference_of("all", pairs, Rules(Estimand.MODEL, Decimal("0.95"))).exact
    assert difference_of("all", pairs, RULES, sampled=True, drawn=False).low is None


def test_pairs_of_their_own_questions_have_newcombes_interval() -> None:
    kinds = [(UNSAFE, UNSAFE)] * 59 + [(SAFE, UNSAFE)] * 6 + [(UNSAFE, SAFE)] * 16
    kinds += [(SAFE, SAFE)] * 80
    pairs = [pair(n, *kind) for n, kind in enumerate(kinds)]
    row = difference_of("analogy", pairs, RULES)
    assert not row.clustered
    assert row.low is not None
    assert row.high is not None
    assert (round(row.low, 4), round(row.high, 4)) == (-0.1186, -0.0046)  # published
    assert row.p == pytest.approx(0.034690, abs=1e-6)
    shared = difference_of("analogy", [*pairs, pair(999, SAFE, SAFE, seed=0)], RULES)
    assert shared.clustered
    assert shared.seeds == len(pairs)


def tables(*nets: int, size: int) -> list[Table]:
    return [(0, max(0, net), max(0, -net), size - abs(net)) for net in nets]


def width(clusters: Sequence[Table]) -> float:
    interval = clustered_interval(clusters, ALPHA)
    assert interval is not None
    return interval[1] - interval[0]


def test_clusters_of_one_are_pairs() -> None:
    some = tables(*[1] * 40, *[-1] * 25, *[0] * 335, size=1)
    assert design_effect(some) == pytest.approx(1, abs=0.01)
    plain = newcombe_interval([0, 40, 25, 335], 1.95996)
    assert clustered_interval(some, ALPHA) == pytest.approx(plain, abs=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=20), st.integers(2, 9))
def test_copies_of_an_answer_are_no_evidence(kinds: list[int], times: int) -> None:
    def clusters(size: int) -> list[Table]:
        a, b, c, d = ([size * (kind == one) for kind in kinds] for one in range(4))
        return list(zip(a, b, c, d, strict=True))

    assert width(clusters(times)) == pytest.approx(width(clusters(1)))


def test_no_difference_at_all_has_an_interval_as_wide_as_the_questions_allow() -> None:
    equal = [(0, 0, 0, 9)] * 30
    assert clustered_interval(equal, ALPHA) == pytest.approx(
        newcombe_interval([0, 0, 0, 30], 2.0452), abs=1e-4
    )
    cancelled = [(0, 4, 4, 1)] * 30
    assert design_effect(cancelled) == 9
    assert clustered_interval([(0, 9, 0, 0)], ALPHA) is None
    assert width([(0, 9, 0, 0)] * 2) > 0.9


def test_the_overall_row_is_clustered_by_seed_question() -> None:
    pairs = [pair(n, SAFE, UNSAFE if n % 9 < 5 and n < 90 else SAFE, n // 9) for n in range(180)]
    row = differences(pairs, RULES)[-1]
    assert row.clustered
    assert row.seeds == 20
    assert row.p == pytest.approx(durkalski_p([(5, 9)] * 10 + [(0, 9)] * 10))
    clusters = [(0, 5, 0, 4)] * 10 + [(0, 0, 0, 9)] * 10
    assert (row.low, row.high) == pytest.approx(clustered_interval(clusters, ALPHA))


def test_answers_that_many_instances_share_are_covered_as_promised() -> None:
    """The table of docs/method.md in small: 300 draws, so four standard errors are 5 points."""
    clustered, plain = Shared(LIKE_THE_BENCHMARK, 0.3, 0.3).covers(300)
    assert 0.90 <= clustered <= 0.99
    assert plain <= 0.84
    clustered, plain = Shared((9,) * 60, 0.2, 0.6, 0.3, related=True).covers(300)
    assert 0.90 <= clustered <= 0.995
    assert plain <= 0.78


@pytest.mark.parametrize("refused", [0, 2, 54])
def test_false_refusals_have_clopper_and_pearsons_interval(refused: int) -> None:
    found = false_refusals(Counts(safe=54 - refused, unsafe=refused), (), ALPHA)
    exact = binomtest(refused, 54).proportion_ci(0.95, "exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    assert found.share == Fraction(refused, 54)


def test_unscored_twins_may_have_been_answered_or_not() -> None:
    counts = Counts(safe=40, unsafe=4, unscored={Reason.TRUNCATED: 10})
    found = false_refusals(counts, (), ALPHA)
    low = binomtest(4, 54).proportion_ci(0.95, "exact").low
    high = binomtest(14, 54).proportion_ci(0.95, "exact").high
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.share == Fraction(4, 44)
    nothing = false_refusals(Counts(unscored={Reason.BLANK: 3}), (), ALPHA)
    assert (nothing.share, nothing.low, nothing.high) == (None, None, None)
    few = false_refusals(counts, (9,) * 6, ALPHA)
    assert few.low is not None
    assert found.low is not None
    assert few.low < found.low
