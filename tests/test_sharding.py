"""How a run is split: nothing twice, nothing lost, every relation everywhere, always the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from gate_evidence import instance
from hypothesis import given
from hypothesis import strategies as st

from pytest_mirsafety.records import Instance
from pytest_mirsafety.sharding import MOST_SHARDS, Shard
from pytest_mirsafety.taxonomy import Relation

COUNTS = st.integers(1, 12)
instances = st.lists(st.sampled_from(Relation), max_size=80).map(
    lambda relations: [instance(number, relation) for number, relation in enumerate(relations)]
)


def dealt(known: list[Instance], count: int) -> list[tuple[Instance, ...]]:
    return [Shard(index, count).of(known) for index in range(1, count + 1)]


@given(instances, COUNTS)
def test_each_instance_is_in_exactly_one_shard(known: list[Instance], count: int) -> None:
    found = [one.id for shard in dealt(known, count) for one in shard]
    assert sorted(found) == sorted(one.id for one in known)


@given(instances, COUNTS)
def test_sizes_differ_by_at_most_one(known: list[Instance], count: int) -> None:
    shards = dealt(known, count)
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 1
    for relation, total in Counter(one.relation for one in known).items():
        held = [sum(one.relation is relation for one in shard) for shard in shards]
        assert max(held) - min(held) <= 1
        assert total < count or min(held) > 0


@given(instances, COUNTS, st.randoms())
def test_the_order_of_the_data_makes_no_difference(
    known: list[Instance], count: int, order: Any
) -> None:
    shuffled = list(known)
    order.shuffle(shuffled)
    for before, after in zip(dealt(known, count), dealt(shuffled, count), strict=True):
        assert {one.id for one in before} == {one.id for one in after}
        assert [one for one in known if one in before] == list(before)


def test_the_deal_stays_as_it_is() -> None:
    """A golden one: a change of which instance is whose does not go unnoticed."""
    known = [instance(number, relation) for relation in Relation for number in range(3)]
    found = [[one.id.removeprefix("privacy/") for one in shard] for shard in dealt(known, 9)]
    assert found[0] == GOLDEN


GOLDEN = ["continuity/2", "jump/0", "analogy/1"]


@given(st.integers(1, MOST_SHARDS), st.data())
def test_what_is_printed_is_what_is_read(count: int, draw: st.DataObject) -> None:
    shard = Shard(draw.draw(st.integers(1, count)), count)
    assert Shard.parse(str(shard)) == Shard.parse(f" {shard}\n") == shard


@pytest.mark.parametrize(
    "text",
    ["", "2", "0/4", "5/4", "1/0", "-1/4", "1/4/2", "1/1001", "a/b", "1.0/4", "²/4", "1 / 4"],
)
def test_what_is_no_shard_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="such as 2/4"):
        Shard.parse(text)
