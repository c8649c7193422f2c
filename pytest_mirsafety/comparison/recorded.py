"""From a recorded run, or the result of one, to a side of a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ..arms import ArmKind
from ..digests import text_digest
from ..errors import DataError
from ..evaluation import counted
from ..printable import one_line
from ..records import MULTI, VerdictKind, item_id
from ..results import DECIDED, InstanceOutcome, Provenance, RecordedRun, RunDesign, RunResult
from ..tally import Counts
from ..taxonomy import Reason, Status
from ..trials import TrialRule
from .comparing import Comparison, compare
from .gating import as_items
from .sides import TEXT_LIMIT, ArmRate, Side, SideTerms, counting


def side_of(run: RecordedRun) -> Side:
    """A recorded run as a side.

    Raises:
        DataError: it can be none: a shard, a run that was stopped early, or the mean of trials.
    """
    if run.design.shard is not None:
        raise DataError(
            f"{run.where}: is shard {run.design.shard} of a run; merge all of them first "
            "(mirsafety merge --run=FOLDER)"
        )
    items = as_items(counted(run.design, run.outcomes), sampled=run.design.sampled)
    open_ones = _undetermined(run.outcomes)
    side = Side(
        run.where,
        terms_of(run.design, run.provenance, run.all_outcomes, digest=run.digest),
        tuple(replace(one, undetermined=True) if one.item in open_ones else one for one in items),
    )
    refuse_unfit(side)
    return side


def _undetermined(outcomes: Iterable[InstanceOutcome]) -> set[str]:
    """The instances that count as unsafe though no judge found one of their answers unsafe."""
    found: dict[str, bool] = {}
    for one in outcomes:
        if one.outcome.status is Status.UNSAFE:
            item = item_id(one.instance_id)[0]
            judged = one.verdict is None or one.verdict.kind is not VerdictKind.UNDETERMINED
            found[item] = found.get(item, False) or judged
    return {item for item, judged in found.items() if not judged}


def comparison_of(result: RunResult) -> Comparison | None:
    """A run against its baseline; None without one, and of a shard.

    Raises:
        DataError: the two are not comparable, which a run finds out before it begins.
    """
    design, base = result.design, result.baseline
    if base is None or design.shard is not None:
        return None
    items = as_items(counted(design, result.outcomes), sampled=design.sampled)
    terms = terms_of(design, result.provenance, result.all_outcomes)
    return compare(base, Side("this run", terms, tuple(items)))


def refuse_unfit(side: Side) -> None:
    """Let no run through whose rates are not known, or are of another kind.

    Raises:
        DataError: it was stopped early, lacks instances, or counts answers.
    """
    if left := side.terms.left_out:
        raise DataError(
            f"{side.where}: --mir-stop=decided left {left} instances out; run it without, "
            "what was answered is kept"
        )
    number, count = len(side.items), side.terms.data_count
    if number < count and not side.terms.sampled:
        raise DataError(
            f"{side.where}: holds {number} of the data's {count} instances; run it again"
        )
    if side.terms.trials.several and side.terms.trials.rule is TrialRule.MEAN:
        raise DataError(
            f"{side.where}: is {side.terms.trials}: runs are compared instance by instance, "
            "which takes one trial, or any of several"
        )


def terms_of(
    design: RunDesign,
    provenance: Provenance,
    outcomes: Iterable[InstanceOutcome],
    *,
    digest: str = "",
) -> SideTerms:
    """What a run was, with the outcomes of all arms; `digest` is that of its manifest."""
    entries = tuple(outcomes)
    own = [one for one in entries if one.arm == MULTI]
    challenge, rules = design.rules.challenge, design.rules
    system = provenance.system_prompt

    def plain(text: str) -> str:
        return one_line(text, TEXT_LIMIT)

    def known(text: str | None) -> str | None:
        return None if text is None else plain(text)

    return SideTerms(
        run=digest,
        package_version=plain(provenance.package_version),
        model_name=plain(provenance.model_name),
        model_identity=plain(provenance.model_identity),
        decoding=plain(provenance.decoding),
        system=None if system is None else text_digest(system),
        data_source=plain(provenance.data_source),
        data_identity=plain(provenance.data_identity),
        data_count=provenance.data_count,
        judge=plain(provenance.judge),
        policy=counting(provenance.policy),
        estimand=rules.estimand,
        confidence=rules.confidence,
        started=provenance.started,
        trials=design.trials,
        layout=known(provenance.layout),
        sampled=design.sampled,
        sample=known(provenance.sample),
        sample_seed=known(provenance.sample_seed),
        sample_spent=rules.sample_spent,
        pass_allowed=rules.pass_allowed,
        pass_is_void=challenge is not None and challenge.voids_pass,
        fail_is_void=challenge is not None and challenge.voids_fail,
        left_out=sum(
            one.outcome.reason is Reason.NOT_RUN and one.outcome.detail == DECIDED for one in own
        ),
        gates={
            gate.criterion.label: gate.population
            for gate in design.gates
            if design.sampled and gate.criterion.arm == MULTI
        },
        arms=tuple(_arm_rates(design, entries)) if design.arms else (),
    )


def _arm_rates(design: RunDesign, entries: Sequence[InstanceOutcome]) -> Iterator[ArmRate]:
    """What came of each arm but a search, as its tallies count it."""
    arms = [(MULTI, ArmKind.SAFETY, ""), *((a.name, a.kind, a.identity) for a in design.arms)]
    for name, kind, identity in arms:
        if kind is ArmKind.SEARCH:
            continue
        found = counted(design, [one for one in entries if one.arm == name])
        counts = Counts.of(one.outcome for one in found)
        yield ArmRate(name, kind, counts.unsafe, counts.scored, counts.total, identity)
