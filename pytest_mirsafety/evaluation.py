"""From outcomes to gates and tallies: the same for one run and for the shards of one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from .comparison.gating import decide_regressions
from .comparison.sides import Side
from .gates import Evidence, GateResult, decide
from .records import Outcome, item_id
from .results import DECIDED, GateDesign, InstanceOutcome, Provenance, RunDesign, RunResult, Tally
from .tally import NOT_RUN, Counts, ModeCounts, together
from .taxonomy import Reason, Status
from .trials import TrialRule, any_of


def evaluate(
    design: RunDesign,
    outcomes: Iterable[InstanceOutcome],
    provenance: Provenance,
    notes: Iterable[str] = (),
    baseline: Side | None = None,
) -> RunResult:
    """Decide every gate on these outcomes, one for each planned instance; a shard decides none.

    Gates on an increase are decided against the `baseline`, and without one there are none.
    """
    entries = tuple(outcomes)
    repeated = repeats(entries)
    if design.distinct_requests:
        entries = tuple(_without_repeats(entries, repeated))
    answers = counted(design, entries)
    populations = {one: n * design.trials.counted for one, n in design.populations.items()}
    return RunResult(
        design=design,
        provenance=provenance,
        gates=() if design.shard is not None else tuple(_decide_all(design, answers)),
        relations=tuple(
            _tally(relation, population, [e for e in answers if e.relation is relation])
            for relation, population in populations.items()
        ),
        overall=_tally("overall", sum(populations.values()), answers),
        outcomes=entries,
        notes=(*notes, *_remarks(repeated)),
        regression=()
        if design.shard is not None or baseline is None
        else decide_regressions(design, answers, baseline, provenance.sample_seed),
        baseline=baseline,
    )


def repeats(outcomes: Iterable[InstanceOutcome]) -> dict[str, str]:
    """The instances that ask exactly what another one asks, each with that other one.

    Of equal requests the instance whose id comes first counts, in whatever order they ran.
    """
    first: dict[str, str] = {}
    repeated: dict[str, str] = {}
    for entry in sorted(outcomes, key=lambda entry: entry.instance_id):
        if entry.selected and entry.request_key is not None:
            original = first.setdefault(entry.request_key, entry.instance_id)
            if original != entry.instance_id:
                repeated[entry.instance_id] = original
    return repeated


def remarks(outcomes: Iterable[InstanceOutcome]) -> tuple[str, ...]:
    """The notes that `evaluate` adds to those given, for these outcomes."""
    return _remarks(repeats(outcomes))


def _remarks(repeated: Mapping[str, str]) -> tuple[str, ...]:
    return (f"{len(repeated)} instances ask exactly what another one asks",) if repeated else ()


def repeated_outcome(original: str) -> Outcome:
    """What an instance is that asks what another one asks: copies would dilute the rate."""
    return Outcome(Status.UNSCORED, Reason.BAD_INPUT, f"asks exactly what {original} asks")


def _without_repeats(
    entries: Sequence[InstanceOutcome], repeated: Mapping[str, str]
) -> Iterable[InstanceOutcome]:
    for entry in entries:
        original = repeated.get(entry.instance_id)
        if original is None:
            yield entry
        else:
            yield replace(entry, outcome=together(entry.outcome, repeated_outcome(original)))


def counted(design: RunDesign, entries: Sequence[InstanceOutcome]) -> Sequence[InstanceOutcome]:
    """What gates and tallies count: each answer, or each instance with all its trials as one."""
    if not design.trials.several or design.trials.rule is TrialRule.MEAN:
        return entries
    items: dict[str, list[InstanceOutcome]] = defaultdict(list)
    for entry in entries:
        items[item_id(entry.instance_id)[0]].append(entry)
    return [
        replace(
            some[0],
            instance_id=item,
            outcome=any_of([*(e.outcome for e in some), *_missing(design, some)]),
            selected=any(entry.selected for entry in some),
        )
        for item, some in items.items()
    ]


def _missing(design: RunDesign, some: Sequence[InstanceOutcome]) -> list[Outcome]:
    """Trials of an instance that nothing is known of did not run."""
    return [NOT_RUN] * (design.trials.count - len(some))


def _decide_all(design: RunDesign, entries: Iterable[InstanceOutcome]) -> Iterable[GateResult]:
    counted: dict[str, list[InstanceOutcome]] = defaultdict(list)
    for entry in entries:
        for label in entry.gates:
            counted[label].append(entry)
    for gate in design.counted_gates:
        yield decide(gather(gate, counted[gate.criterion.label], design), design.rules)


def gather(gate: GateDesign, entries: Sequence[InstanceOutcome], design: RunDesign) -> Evidence:
    """The evidence for one gate, from the outcomes of the instances that count for it."""
    clusters = design.clusters((e.instance_id, e.seed) for e in entries)
    return Evidence(
        criterion=gate.criterion,
        population=gate.population,
        selected=sum(entry.selected for entry in entries),
        counts=Counts.of_readings(gate.criterion.reading(entry.outcome) for entry in entries),
        sampled=design.sampled,
        clusters=clusters,
        left_out=_left_out(entries),
    )


def _tally(name: str, population: int, entries: Sequence[InstanceOutcome]) -> Tally:
    return Tally(
        name=name,
        population=population,
        planned=len(entries),
        selected=sum(entry.selected for entry in entries),
        counts=Counts.of(entry.outcome for entry in entries),
        left_out=_left_out(entries),
        modes=ModeCounts.of(entry.outcome for entry in entries),
    )


def is_left_out(entry: InstanceOutcome) -> bool:
    """It was not asked, since no decision depended on it any more."""
    return entry.outcome.reason is Reason.NOT_RUN and entry.outcome.detail == DECIDED


def _left_out(entries: Iterable[InstanceOutcome]) -> int:
    return sum(is_left_out(entry) for entry in entries)
