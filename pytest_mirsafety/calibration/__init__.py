"""A run held against labels by people: how good its judge is, and its gates with the labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from ..arms import ArmKind
from ..errors import DataError
from ..evaluation import evaluate
from ..labelling import DRAW_SEED, Label
from ..records import VerdictKind
from ..results import InstanceOutcome, RecordedRun, RunResult
from ..taxonomy import Relation
from .agreement import JudgeQuality, Rate, ReviewerAgreement, judge_quality, reviewer_agreement
from .bounds import JudgeCounts
from .consensus import Reviewed, Sorted, cut_off, sort_labels
from .corrected import Corrected, JudgeSource, correct, with_melded
from .gating import LabelledGate, Labels, Rule, gate_with_labels
from .samples import Draw, Sample, Stratum

__all__ = [
    "SEED",
    "Calibration",
    "Corrected",
    "JudgeCounts",
    "JudgeQuality",
    "JudgeReport",
    "LabelledGate",
    "Rate",
    "ReviewerAgreement",
    "Rule",
    "Sample",
    "Stratum",
    "calibrate",
    "exit_code",
]

_OF_PYTEST: Final = frozenset({2, 3, 4, 6})
_OF_GATES: Final = frozenset({0, 1, 10})
_UNDECIDED: Final = 10

SEED: Final = DRAW_SEED
"""What a sample is drawn by unless another seed is named."""


@dataclass(frozen=True, slots=True)
class JudgeReport:
    """A judge against people, in all and per relation where there is enough.

    `transported` of a judge whose labels are of another run; `problem` says why labels of this
    run are not held against it.
    """

    judge: str
    transported: bool
    quality: JudgeQuality
    relations: Mapping[Relation, JudgeQuality]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """Everything that labels say of a run.

    `before` is the run as it was, `after` with the labels. `refused` counts by reason the labels
    that say nothing of it, `chosen` the answers without a probability, `cut_off` those that people
    call safe and that stay unscored, since nobody knows what would have followed. `decides` says
    that labels of elsewhere were let to decide gates. `seeds` are those that labels of this run
    name.
    """

    before: RunResult
    after: RunResult
    gates: tuple[LabelledGate, ...]
    corrected: tuple[Corrected, ...]
    judges: tuple[JudgeReport, ...]
    reviewers: ReviewerAgreement
    sample: Sample
    names: tuple[str, ...]
    labels: int
    answers: int
    drawn_and_labelled: int
    disagreed: int
    chosen: int
    cut_off: int
    refused: Mapping[str, int]
    decides: bool
    seeds: tuple[str, ...] = ()

    @property
    def seed_by_hand(self) -> bool:
        """Somebody chose what the sample was drawn by: other draws may have been looked at."""
        return self.sample.seed != SEED or any(seed != SEED for seed in self.seeds)


def calibrate(
    run: RecordedRun, labels: Iterable[Label], *, seed: str = SEED, transported: bool = False
) -> Calibration:
    """Hold the run against the labels, which were drawn by this seed.

    `transported` lets labels of elsewhere decide gates.

    Raises:
        DataError: the run is a shard, or its outcomes are not of its design.
    """
    if run.design.shard is not None:
        raise DataError(f"{run.where} is a shard: it has no gates before mirsafety merge")
    try:
        before = evaluate(run.design, run.all_outcomes, run.provenance, run.notes, run.baseline)
    except ValueError as error:
        raise DataError(f"{run.where}: does not make up the data: {error}") from None
    given = tuple(labels)
    found = sort_labels(run, given)
    draw = Draw(run.digest, run.outcomes, seed)
    sample = draw.sample(found.own)
    claimed = any(label.probability is not None for label in given)
    cut, own = cut_off(found.own, run.outcomes)
    held = Labels({one.instance_id: one for one in own}, sample, draw.part_of, claimed)
    judges = _judges(run, found, sample)
    # A label that is missing may be the one that was not liked: the judge would look better.
    agreed = {one.instance_id for one in found.own if one.truth is not VerdictKind.UNDETERMINED}
    transported = transported and sample.drawn <= agreed
    gates, corrected = _gates(before, held, judges, transported=transported)
    return Calibration(
        before=before,
        after=replace(before, gates=tuple(gate.after for gate in gates)),
        gates=gates,
        corrected=corrected,
        judges=judges,
        reviewers=reviewer_agreement(found.own),
        sample=sample,
        names=tuple(sorted({label.reviewer.strip() for label in given})),
        labels=len(given),
        answers=len(found.own),
        drawn_and_labelled=sum(one.instance_id in sample.drawn for one in found.own),
        disagreed=sum(one.truth is VerdictKind.UNDETERMINED for one in found.own),
        chosen=sum(one.probability is None for one in found.own),
        cut_off=len(cut),
        refused=found.refused,
        decides=transported,
        seeds=_seeds(given, run.digest),
    )


def _seeds(labels: Iterable[Label], run: str) -> tuple[str, ...]:
    """The seeds that labels of this run name."""
    named = (label.seed for label in labels if label.run == run)
    return tuple(sorted({seed for seed in named if seed is not None}))


def exit_code(result: RunResult, run: RecordedRun) -> int:
    """What the run would have exited with had its gates been these: pytest's own codes come first.

    A run that ended in any other way than by its gates and tests leaves no PASS.
    """
    if run.exit_code in _OF_PYTEST:
        return run.exit_code
    code = result.exit_code(tests_failed=run.tests_failed)
    return code or (0 if run.exit_code in _OF_GATES else _UNDECIDED)


def _judges(run: RecordedRun, found: Sorted, sample: Sample) -> tuple[JudgeReport, ...]:
    """This run's judge first, then those of labels of other runs or judges, by name."""
    relations = {entry.instance_id: entry.relation for entry in run.outcomes}
    own = found.own if sample.problem is None else ()
    reports = [_report(run.provenance.judge, own, relations, problem=sample.problem)]
    others: dict[str, list[Reviewed]] = defaultdict(list)
    for one in found.elsewhere:
        others[one.judge].append(one)
    reports += [_report(name, others[name], {}, transported=True) for name in sorted(others)]
    return tuple(reports)


def _report(
    judge: str,
    reviewed: Iterable[Reviewed],
    relations: Mapping[str, Relation],
    *,
    transported: bool = False,
    problem: str | None = None,
) -> JudgeReport:
    given = tuple(reviewed)
    apart: dict[Relation, list[Reviewed]] = defaultdict(list)
    for one in given:
        if one.instance_id in relations:
            apart[relations[one.instance_id]].append(one)
    each = {relation: judge_quality(apart[relation]) for relation in Relation if apart[relation]}
    return JudgeReport(
        judge=judge,
        transported=transported,
        quality=judge_quality(given),
        relations={relation: quality for relation, quality in each.items() if quality.enough},
        problem=problem,
    )


def _gates(
    before: RunResult, labels: Labels, judges: Iterable[JudgeReport], *, transported: bool
) -> tuple[tuple[LabelledGate, ...], tuple[Corrected, ...]]:
    counted: dict[str, list[InstanceOutcome]] = defaultdict(list)
    for entry in before.all_outcomes:
        for label in entry.gates:
            counted[label].append(entry)
    gates, corrected = [], []
    for design, result in zip(before.design.gates, before.gates, strict=True):
        entries = counted[design.criterion.label]
        source = None
        if design.criterion.kind is ArmKind.SAFETY:  # twins have a judge of their own
            source = _source(entries, labels, judges, before.provenance.judge)
        gate = gate_with_labels(design, result, entries, before.design, labels)
        if transported and source is not None:
            gate = with_melded(gate, design, entries, before.design, source)
        gates.append(gate)
        corrected.append(correct(design, entries, before.design, source))
    return tuple(gates), tuple(corrected)


def _source(
    entries: Iterable[InstanceOutcome], labels: Labels, judges: Iterable[JudgeReport], judge: str
) -> JudgeSource | None:
    """Whose Se and Sp a gate's rate is corrected by: its own labels', the run's, or another's."""
    if labels.sample.problem is None:
        ids = (entry.instance_id for entry in entries)
        own = judge_quality(labels.by_instance[name] for name in ids if name in labels.by_instance)
        if own.enough:
            return JudgeSource("its own labels", own.counts, transported=False)
    for report in judges:
        if report.judge == judge and report.quality.enough:
            where = "another run" if report.transported else "the whole run"
            return JudgeSource(f"labels of {where}", report.quality.counts, transported=True)
    return None
