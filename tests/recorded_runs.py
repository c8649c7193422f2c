"""Runs that were recorded, whole or as shards: what a run would have kept, without asking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from gate_evidence import instance
from hypothesis import strategies as st

from pytest_mirsafety.digests import digest
from pytest_mirsafety.evaluation import evaluate
from pytest_mirsafety.gates import Criterion, Estimand, Rules, Scope
from pytest_mirsafety.records import Instance, Outcome, SafeMode
from pytest_mirsafety.results import (
    NOT_SELECTED,
    GateDesign,
    InstanceOutcome,
    Provenance,
    RecordedRun,
    RunDesign,
    RunResult,
    ids_digest,
)
from pytest_mirsafety.sharding import Shard
from pytest_mirsafety.taxonomy import Category, Group, Reason, Relation, Status

RELATIONS = (Relation.ANALOGY, Relation.JUMP, Relation.RELEVANCE)
CATEGORIES = (Category.PRIVACY, Category.VIOLENCE)
PROVENANCE = Provenance(
    package_version="1",
    data_source="sample",
    data_identity="ab" * 32,
    data_revision=None,
    data_count=0,
    model_name="m",
    model_identity="http:m",
    decoding="{}",
    system_prompt=None,
    judge="rules",
    judge_screens=False,
    screening_may_pass=True,
    estimand=Estimand.ANSWERS,
    confidence=Decimal("0.95"),
    sample=None,
    sample_seed=None,
    thresholds_from="mirsafety.toml",
    policy=(),
    attempt=1,
    answers_asked=20,
    answers_from_store=3,
    answers_recorded=False,
    oldest_answer=None,
    input_tokens=100,
    output_tokens=10,
    started=1.5,
    elapsed=1.0,
    asked_input_tokens=90,
    cost_usd=Decimal("0.25"),
)
NOT_RUN = Outcome(Status.UNSCORED, Reason.NOT_RUN, NOT_SELECTED)
OUTCOMES = (
    Outcome(Status.SAFE, detail="refuses"),
    Outcome(Status.UNSAFE, detail="complies"),
    *(
        Outcome(Status.UNSCORED, reason, "why")
        for reason in Reason
        # of a gate's counts, and of searches alone
        if reason not in (Reason.MODE_UNKNOWN, Reason.UNSAFE_BEFORE)
    ),
)
MODES = (
    *(Outcome(Status.SAFE, detail="refuses", mode=mode) for mode in SafeMode),
    Outcome(Status.SAFE, detail="refuses", mode=SafeMode.CORRECT_REFUSAL, mode_by_rules=True),
    Outcome(Status.UNSAFE, detail="cannot tell", mode_open=True),
)


@dataclass(frozen=True)
class World:
    """A run as it would be without shards: its design and what became of each instance."""

    instances: tuple[Instance, ...]
    design: RunDesign
    provenance: Provenance
    entries: tuple[InstanceOutcome, ...]

    def whole(self) -> RunResult:
        return evaluate(self.design, self.entries, self.provenance, ["a note"])

    def recorded(self) -> RecordedRun:
        return _recorded("whole", self.whole())

    def shards(self, count: int) -> list[RecordedRun]:
        return [self._shard(Shard(index, count)) for index in range(1, count + 1)]

    def _shard(self, shard: Shard) -> RecordedRun:
        mine = {one.id for one in shard.of(self.instances)}
        entries = [entry for entry in self.entries if entry.instance_id in mine]
        design = replace(self.design, shard=shard)
        provenance = replace(self.provenance, started=float(shard.index))
        return _recorded(f"runs/{shard.index}", evaluate(design, entries, provenance, ["a note"]))


def world(outcomes: Sequence[Outcome], threshold: str = "0.2") -> World:
    """One relation with these outcomes, gated by itself."""
    instances = tuple(instance(number) for number, _ in enumerate(outcomes))
    criterion = Criterion(Scope.RELATION, "analogy", Decimal(threshold))
    design = _design(instances, instances, (criterion,), Rules(Estimand.ANSWERS))
    entries = tuple(
        _entry(one, design, outcome=found, selected=True, key=digest(one.id))
        for one, found in zip(instances, outcomes, strict=True)
    )
    return World(instances, design, replace(PROVENANCE, data_count=len(instances)), entries)


@st.composite
def worlds(draw: st.DrawFn, *, modes: bool = False) -> World:
    """Any run: some relations, gates of every scope, a sample or all, failures, equal requests.

    With `modes` some gates are on modes, which some answers have.
    """
    kinds = draw(
        st.lists(
            st.tuples(st.sampled_from(RELATIONS), st.sampled_from(CATEGORIES)),
            min_size=1,
            max_size=16,
        )
    )
    everything = tuple(
        instance(number, *kind, question=f"question {number // 2}")
        for number, kind in enumerate(kinds)
    )
    sampled = draw(st.booleans())
    drawn = everything
    if sampled:
        drawn = tuple(draw(st.lists(st.sampled_from(everything), unique=True, min_size=1)))
    among = _CRITERIA | _ON_MODES if modes else _CRITERIA
    criteria = tuple(draw(st.lists(among, unique_by=lambda c: c.label, max_size=4)))
    rules = Rules(
        estimand=draw(st.sampled_from(Estimand)),
        gates=max(1, len(criteria)),
        pass_allowed=draw(st.booleans()),
        sample_spent=draw(st.booleans()),
        search_spent=draw(st.booleans()),
    )
    design = replace(
        _design(everything, drawn, criteria, rules),
        sampled=sampled,
        distinct_requests=draw(st.booleans()),
        require_all=draw(st.booleans()),
        report_only=draw(st.booleans()),
    )
    entries = tuple(draw(_fate(one, design, modes=modes)) for one in drawn)
    provenance = replace(
        PROVENANCE,
        data_count=len(everything),
        estimand=rules.estimand,
        sample=f"{len(drawn)} of {len(everything)} instances" if sampled else None,
    )
    return World(drawn, design, provenance, entries)


_THRESHOLDS = st.sampled_from([Decimal(x) for x in ("0", "0.10", "0.2", "0.5", "1")])
_CRITERIA = st.builds(
    lambda name, threshold: Criterion(name[0], name[1], threshold),
    st.sampled_from(
        [
            (Scope.OVERALL, "overall"),
            *((Scope.RELATION, str(name)) for name in RELATIONS),
            *((Scope.GROUP, str(name)) for name in Group),
            *((Scope.CATEGORY, str(name)) for name in CATEGORIES),
        ]
    ),
    _THRESHOLDS,
)
_ON_MODES = st.builds(
    Criterion, st.just(Scope.MODE), st.sampled_from(SafeMode).map(str), _THRESHOLDS
)
_KEYS = st.sampled_from([None, *(digest(number) for number in range(20))])


def _fate(one: Instance, design: RunDesign, *, modes: bool) -> st.SearchStrategy[InstanceOutcome]:
    # Most answers are safe, so that gates pass too.
    safe = MODES if modes else OUTCOMES[:1]
    outcomes = st.one_of(st.just(OUTCOMES[0]), st.sampled_from(safe), st.sampled_from(OUTCOMES))
    return st.builds(
        lambda outcome, selected, key: _entry(
            one, design, outcome=outcome if selected else NOT_RUN, selected=selected, key=key
        ),
        outcomes,
        st.sampled_from([True, True, True, False]),
        _KEYS,
    )


def _design(
    everything: Sequence[Instance],
    drawn: Sequence[Instance],
    criteria: Sequence[Criterion],
    rules: Rules,
) -> RunDesign:
    return RunDesign(
        gates=tuple(GateDesign(c, sum(map(c.covers, everything))) for c in criteria),
        rules=rules,
        populations={r: sum(one.relation is r for one in everything) for r in Relation},
        planned=ids_digest(one.id for one in drawn),
    )


def _entry(
    one: Instance, design: RunDesign, *, outcome: Outcome, selected: bool, key: str | None
) -> InstanceOutcome:
    criteria = (gate.criterion for gate in design.gates)
    return InstanceOutcome(
        instance_id=one.id,
        relation=one.relation,
        category=one.category,
        seed=one.seed,
        outcome=outcome,
        gates=tuple(c.label for c in criteria if c.covers(one)),
        selected=selected,
        request_key=key,
    )


def _recorded(where: str, result: RunResult) -> RecordedRun:
    return RecordedRun(
        where=where,
        design=result.design,
        provenance=result.provenance,
        outcomes=result.outcomes,
        notes=result.notes,
        tests_failed=False,
        exit_code=result.exit_code(tests_failed=False) if result.design.shard is None else 0,
        digest="ab" * 32,
    )
