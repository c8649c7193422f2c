"""The sample that people label: who is in it, with which chance, the same every time."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_runs import OUTCOMES, world
from reviews import OPEN, RUN, SAFE, UNSAFE, judged

from pytest_mirsafety.errors import ConfigurationError
from pytest_mirsafety.records import Outcome
from pytest_mirsafety.review import Drawn, Sizes, Stratum, draw
from pytest_mirsafety.taxonomy import Status

counts = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
seeds = st.sampled_from(["1", "2", "\ud800", ""])


@st.composite
def sizes(draw_from: st.DrawFn) -> Sizes:
    if draw_from(st.booleans()):
        return Sizes(total=draw_from(st.integers(1, 100)))
    safe, unsafe, unscored = draw_from(counts)
    return Sizes(parts={Stratum.SAFE: safe + 1, Stratum.UNSAFE: unsafe, Stratum.UNSCORED: unscored})


def outcomes(there: tuple[int, int, int]) -> list[Outcome]:
    safe, unsafe, unscored = there
    return [SAFE] * safe + [UNSAFE] * unsafe + [OPEN] * unscored


def drawn(there: tuple[int, int, int], wanted: Sizes, seed: str = "1") -> tuple[Drawn, ...]:
    return draw(judged(outcomes(there)).entries, RUN, wanted, seed)


def names(sample: tuple[Drawn, ...]) -> set[str]:
    return {one.entry.instance_id for one in sample}


@given(counts, sizes(), seeds)
def test_each_answer_has_the_chance_with_which_its_stratum_was_drawn(
    there: tuple[int, int, int], wanted: Sizes, seed: str
) -> None:
    sample = drawn(there, wanted, seed)
    held = dict(zip(Stratum, there, strict=True))
    found = Counter(one.stratum for one in sample)
    assert len(names(sample)) == len(sample)
    for one in sample:
        assert one.stratum.value == one.entry.outcome.status.value
        assert one.probability == found[one.stratum] / held[one.stratum]
        assert 0 < one.probability <= 1
    for part in Stratum:  # weights by the inverse add up to what there is
        weights = sum(1 / one.probability for one in sample if one.stratum is part)
        assert weights == pytest.approx(held[part] if found[part] else 0)
    if held[Stratum.SAFE]:
        assert found[Stratum.SAFE] >= 1
    if wanted.total is not None:
        assert len(sample) == min(wanted.total, sum(there))
        if wanted.total >= len(Stratum):
            assert all(found[part] for part in Stratum if held[part])
    else:
        assert wanted.parts is not None
        assert all(found[part] == min(wanted.parts[part], held[part]) for part in Stratum)


@given(counts, sizes(), st.randoms())
def test_the_same_call_draws_the_same_in_whatever_order(
    there: tuple[int, int, int], wanted: Sizes, random: Random
) -> None:
    entries = list(judged(outcomes(there)).entries)
    sample = draw(entries, RUN, wanted, "1")
    random.shuffle(entries)
    assert draw(entries, RUN, wanted, "1") == sample


@given(counts, st.integers(1, 50), st.integers(0, 50))
def test_a_larger_sample_of_a_stratum_holds_the_smaller(
    there: tuple[int, int, int], few: int, more: int
) -> None:
    small = drawn(there, Sizes(parts={Stratum.SAFE: few}))
    large = drawn(there, Sizes(parts={Stratum.SAFE: few + more}))
    assert names(small) <= names(large)


def test_another_seed_or_run_draws_another_sample() -> None:
    wanted = Sizes(total=10)
    entries = judged([SAFE] * 100).entries
    one = draw(entries, RUN, wanted, "1")
    assert names(draw(entries, RUN, wanted, "2")) != names(one)
    assert names(draw(entries, "ef" * 32, wanted, "1")) != names(one)


def test_every_answer_is_drawn_about_equally_often() -> None:
    """Over 300 seeds a share of 10 of 50 draws each answer 60 times, give or take."""
    entries = judged([SAFE] * 50).entries
    found = Counter(
        name
        for seed in range(300)
        for name in names(draw(entries, RUN, Sizes(total=10), str(seed)))
    )
    assert len(found) == 50
    assert 28 < min(found.values()) <= max(found.values()) < 92  # 4.6 standard deviations


def test_the_order_tells_nothing_of_the_verdict() -> None:
    """Of 4 unsafe among 40: neither first nor last more often than by chance, over 60 seeds."""
    places = [
        place
        for seed in range(60)
        for place, one in enumerate(
            drawn((36, 4, 0), Sizes(parts={Stratum.SAFE: 36, Stratum.UNSAFE: 4}), str(seed))
        )
        if one.stratum is Stratum.UNSAFE
    ]
    assert len(places) == 240
    assert 16.5 < sum(places) / 240 < 22.5


def test_only_what_was_answered_is_drawn() -> None:
    entries = world(OUTCOMES).entries
    assert draw(entries, RUN, Sizes(total=5), "1") == ()
    some = [replace(entry, answer_sha256="a" * 64) for entry in entries[:3]]
    assert len(draw([*some, *entries[3:]], RUN, Sizes(total=50), "1")) == 3
    nameless = [replace(entry, request_key=None) for entry in some]
    assert draw(nameless, RUN, Sizes(total=5), "1") == ()


def test_the_stratum_is_how_the_gates_count_the_answer() -> None:
    made = judged([SAFE])
    undecided = replace(made.entries[0], outcome=Outcome(Status.UNSAFE, detail="counts as unsafe"))
    (one,) = draw([undecided], RUN, Sizes(total=1), "1")
    assert one.stratum is Stratum.UNSAFE


@pytest.mark.parametrize(
    ("total", "parts", "problem"),
    [
        (0, None, "at least one answer"),
        (-1, None, "at least one answer"),
        (None, None, "not both"),
        (5, {Stratum.SAFE: 1}, "not both"),
        (None, {Stratum.SAFE: -1}, "not below 0"),
        (None, {Stratum.SAFE: 1, Stratum.UNSAFE: -1}, "not below 0"),
        (None, {Stratum.SAFE: 0, Stratum.UNSAFE: 5}, "SAFE answers"),
        (None, {Stratum.UNSAFE: 5}, "SAFE answers"),
    ],
)
def test_sizes_that_cannot_be(
    total: int | None, parts: dict[Stratum, int] | None, problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        Sizes(total, parts)
