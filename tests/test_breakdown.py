"""The breakdown of a run adds up, and has the numbers of the gates."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from recorded_runs import OUTCOMES, World, world, worlds

from pytest_mirsafety.breakdown import break_down
from pytest_mirsafety.evaluation import evaluate
from pytest_mirsafety.gates import Estimand, Rules, Scope
from pytest_mirsafety.records import Outcome
from pytest_mirsafety.results import DECIDED
from pytest_mirsafety.sharding import Shard
from pytest_mirsafety.taxonomy import Category, Reason, Relation, Status

SAFE, UNSAFE = OUTCOMES[:2]


@given(worlds(modes=True))
@settings(max_examples=60, deadline=None)
def test_cells_add_up_to_the_tallies(made: World) -> None:
    result = made.whole()
    found = break_down(result)
    assert sum(cell.counts.total for cell in found.cells.values()) == result.overall.planned
    assert sum(cell.counts.total for cell in found.columns.values()) == result.overall.planned
    for tally in result.relations:
        row = [cell for (name, _), cell in found.cells.items() if name == tally.name]
        assert sum(cell.counts.unsafe for cell in row) == tally.counts.unsafe
        assert sum(cell.counts.safe for cell in row) == tally.counts.safe
        assert sum(cell.counts.unscored_total for cell in row) == tally.counts.unscored_total
    assert [rate.name for rate in found.rates[:-1]] == list(map(str, found.relations))


@given(worlds(modes=True))
@settings(max_examples=60, deadline=None)
def test_a_rate_has_its_gate_s_numbers(made: World) -> None:
    result = made.whole()
    gates = {g.criterion.label: g for g in result.gates if g.criterion.scope is not Scope.MODE}
    for rate in break_down(result).rates:
        if (gate := gates.get(rate.name)) is not None:
            assert (rate.decision, rate.counts) == (gate.decision, gate.counts)
            assert rate.threshold == gate.criterion.threshold
            assert rate.share == gate.of_scored
            assert rate.low in (None, gate.low)
            assert rate.high in (None, gate.high)
        if rate.low is not None and rate.high is not None:
            assert 0 <= rate.low <= rate.high <= 1
            if rate.share is not None:  # the unscored are within, whatever they are
                assert rate.low <= float(rate.share) <= rate.high or not rate.exact


@given(worlds())
@settings(max_examples=60, deadline=None)
def test_an_interval_without_a_gate_is_what_a_gate_would_have(made: World) -> None:
    """Gates of their own do not change what an interval is, but for how many there are."""
    result = made.whole()
    bare = replace(made.design, gates=(), rules=replace(made.design.rules, gates=1))
    entries = [replace(entry, gates=()) for entry in made.entries]
    without = break_down(evaluate(bare, entries, made.provenance))
    gates = {g.criterion.label: g for g in result.gates if g.criterion.scope is Scope.RELATION}
    for rate in without.rates:
        gate = gates.get(rate.name)
        if gate is None or rate.high is None or rate.low is None or rate.planned != gate.planned:
            continue
        assert rate.high == gate.high
        # With one gate a false FAIL is likelier, so that the lower bound may be higher.
        assert rate.low >= gate.low or rate.exact


def test_nothing_scored_has_no_rate() -> None:
    found = break_down(world([OUTCOMES[2]] * 3).whole())
    assert [rate.share for rate in found.rates] == [None, None]
    assert found.cells[Relation.ANALOGY, Category.PRIVACY].share is None
    assert found.rates[0].low == 0
    assert found.rates[0].high == 1
    assert found.reasons == (Reason.UNDETERMINED,)


def test_what_was_stopped_early_has_no_rate() -> None:
    left = Outcome(Status.UNSCORED, Reason.NOT_RUN, DECIDED)
    found = break_down(world([SAFE, UNSAFE, left]).whole())
    assert [rate.share for rate in found.rates] == [None, None]
    assert [rate.high for rate in found.rates] == [None, None]
    assert found.columns[Category.PRIVACY].share is None


def test_a_shard_has_no_interval() -> None:
    made = world([SAFE, UNSAFE, SAFE])
    shard = evaluate(replace(made.design, shard=Shard(1, 2)), made.entries[:1], made.provenance)
    assert [rate.high for rate in break_down(shard).rates] == [None, None]


@pytest.mark.parametrize("gated", [True, False])
def test_a_sample_that_was_drawn_for_another_gate_has_no_interval(*, gated: bool) -> None:
    """Where each gate has its own sample, a relation without one is no random sample."""
    made = world([SAFE, UNSAFE, SAFE, SAFE])
    design = replace(made.design, sampled=True, rules=Rules(Estimand.ANSWERS))
    overall = replace(made.design.gates[0].criterion, scope=Scope.OVERALL, name="overall")
    design = replace(design, gates=(replace(made.design.gates[0], criterion=overall),))
    entries = [
        replace(e, gates=("overall",) if gated or n else ()) for n, e in enumerate(made.entries)
    ]
    analogy, whole = break_down(evaluate(design, entries, made.provenance)).rates
    assert (analogy.high is not None) is gated
    assert whole.threshold == Decimal("0.2")
