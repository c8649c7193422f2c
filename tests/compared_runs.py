"""Pairs of runs for tests of comparisons: a candidate and its base, in one line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from gate_evidence import instance, overall
from hypothesis import strategies as st
from recorded_runs import PROVENANCE, _entry, _recorded

from pytest_mirsafety.comparison.pairs import Pair, PairCounts
from pytest_mirsafety.comparison.recorded import side_of
from pytest_mirsafety.comparison.sides import ItemOutcome, Side
from pytest_mirsafety.digests import digest
from pytest_mirsafety.evaluation import evaluate
from pytest_mirsafety.gates import Estimand, Rules
from pytest_mirsafety.records import Instance, Outcome
from pytest_mirsafety.results import GateDesign, RecordedRun, RunDesign, ids_digest
from pytest_mirsafety.run_folder.pinned import side_digest
from pytest_mirsafety.taxonomy import Category, Reason, Relation, Status

SAFE, UNSAFE, UNSCORED = Status.SAFE, Status.UNSAFE, Status.UNSCORED
_OF: Mapping[str, Outcome] = {
    "s": Outcome(SAFE, detail="refuses"),
    "u": Outcome(UNSAFE, detail="complies"),
    "?": Outcome(UNSCORED, Reason.TRUNCATED, "why"),
    "-": Outcome(UNSCORED, Reason.NOT_RUN, "not selected"),
}


def instances(number: int) -> tuple[Instance, ...]:
    """Of two relations, with two instances to each seed question."""
    relations = (Relation.ANALOGY, Relation.JUMP)
    return tuple(
        instance(n, relations[n % 2], Category.PRIVACY, question=f"question {n // 4}")
        for n in range(number)
    )


def recorded(
    outcomes: str,
    *,
    where: str = "run",
    estimand: Estimand = Estimand.ANSWERS,
    drawn: Sequence[int] | None = None,
    baseline: Side | None = None,
    increase: str | None = None,
    **changes: Any,
) -> RecordedRun:
    """A run whose instances came to this: `s`, `u`, `?` unscored, `-` not selected.

    `drawn` are the places that a sample drew, of which alone there is an outcome. With a
    `baseline` it is held against it, with a gate on `increase` overall.
    """
    everything = instances(len(outcomes) if drawn is None else max(len(outcomes), *drawn) + 1)
    planned = everything if drawn is None else [everything[place] for place in drawn]
    regression = () if increase is None else (GateDesign(overall(increase), len(everything)),)
    design = RunDesign(
        gates=(GateDesign(overall("1"), len(everything)),),
        rules=Rules(estimand, gates=1 + len(regression)),
        populations={r: sum(one.relation is r for one in everything) for r in Relation},
        sampled=drawn is not None,
        planned=ids_digest(one.id for one in planned),
        regression=regression,
        baseline=None if baseline is None else side_digest(baseline),
    )
    design = replace(design, **{k: v for k, v in changes.items() if hasattr(design, k)})
    provenance = replace(
        PROVENANCE,
        data_count=len(everything),
        estimand=estimand,
        sample=None if drawn is None else f"{len(drawn)} of {len(everything)} instances",
        sample_seed=None if drawn is None else "1",
        **{k: v for k, v in changes.items() if hasattr(PROVENANCE, k)},
    )
    entries = [
        _entry(one, design, outcome=_OF[kind], selected=kind != "-", key=digest(one.id))
        for one, kind in zip(planned, outcomes, strict=True)
    ]
    result = evaluate(design, entries, provenance, [], baseline)
    return replace(_recorded(where, result), baseline=baseline)


def side(outcomes: str, **settings: Any) -> Side:
    """The same as a side of a comparison."""
    return side_of(recorded(outcomes, **settings))


KINDS = "su?-"
OUTCOMES = st.text(KINDS, min_size=1, max_size=40)


@st.composite
def pairs(draw: st.DrawFn, most: int = 60) -> list[Pair]:
    """Any pairs; mostly safe, as models are."""
    found = []
    kinds = st.sampled_from("ssssssuu?-")
    for one in instances(draw(st.integers(1, most))):
        base, candidate = draw(kinds), draw(kinds)
        found.append(Pair(_item(one, base), _item(one, candidate)))
    return found


def _item(one: Instance, kind: str) -> ItemOutcome:
    outcome = _OF[kind]
    return ItemOutcome(
        one.id,
        one.relation,
        one.category,
        one.seed,
        outcome.status,
        outcome.reason,
        selected=kind != "-",
    )


def changed(pair: Pair, *, base: str = "", candidate: str = "") -> Pair:
    """The pair with another outcome on a side."""

    def other(item: ItemOutcome | None, kind: str) -> ItemOutcome | None:
        if item is None or not kind:
            return item
        outcome = _OF[kind]
        return replace(item, status=outcome.status, reason=outcome.reason, selected=kind != "-")

    after = other(pair.candidate, candidate)
    assert after is not None
    return Pair(other(pair.base, base), after)


def counts(**numbers: int) -> PairCounts:
    """Counts by two letters, such as `su=3`: safe in the base, unsafe in the candidate."""
    status = {"s": SAFE, "u": UNSAFE, "x": UNSCORED}
    return PairCounts({(status[k[0]], status[k[1]]): n for k, n in numbers.items() if n})


def limit(text: str) -> Decimal:
    """A max_increase."""
    return Decimal(text)
