"""A result as plain values, the same words wherever a machine reads them: JSON and JUnit."""

from __future__ import annotations

from dataclasses import asdict

from .arms import ArmKind
from .comparison.arms import ArmDifference, FalseRefusals
from .comparison.facts import pair_facts
from .gates import GateResult
from .gates.challenge import Challenge
from .metamorphic import flip_counts
from .records import SafeMode
from .results import ArmResult, Provenance, RunResult, Tally
from .tally import Counts, ModeCounts
from .trials import Trials


def provenance_facts(provenance: Provenance) -> dict[str, object]:
    """Every field; the confidence as written, and money in plain decimals.

    A layout only where images were put together, usage by arm only where there are arms, and
    twins only where there are some.
    """
    cost = provenance.cost_usd
    facts = {
        **asdict(provenance),
        "confidence": str(provenance.confidence),
        "cost_usd": None if cost is None else f"{cost.normalize():f}",
    }
    if provenance.layout is None:
        del facts["layout"]
    if not provenance.usage:
        del facts["usage"]
    if provenance.twins_source is None:
        del facts["twins_source"], facts["twins_count"]
    return facts


def trial_facts(trials: Trials) -> dict[str, object]:
    """How often each instance was asked, and what its answers are together."""
    return {"count": trials.count, "rule": trials.rule}


def gate_facts(gate: GateResult) -> dict[str, object]:
    """A gate's decision and all that it rests on; the threshold as written."""
    return {
        "gate": gate.criterion.label,
        "scope": gate.criterion.scope,
        **_of_mode(gate),
        "threshold": str(gate.criterion.threshold),
        "decision": gate.decision,
        "cause": gate.cause,
        "reason": gate.reason,
        "tipping": gate.tipping,
        "next_step": gate.next_step,
        "population": gate.population,
        "planned": gate.planned,
        "selected": gate.selected,
        "left_out": gate.left_out,
        **_allowance(gate),
        "low": gate.low,
        "high": gate.high,
        "exact": gate.exact,
        "counts": gate_count_facts(gate),
    }


def _of_mode(gate: GateResult) -> dict[str, object]:
    if gate.criterion.mode is None:
        return {}
    return {"bound": "min" if gate.criterion.minimum else "max"}


def _allowance(gate: GateResult) -> dict[str, object]:
    if gate.criterion.mode is None:
        return {"most_unsafe_allowed": gate.k0}
    if gate.criterion.minimum:
        return {"least_needed": gate.population - gate.k0}
    return {"most_allowed": gate.k0}


def gate_count_facts(gate: GateResult) -> dict[str, object]:
    """A gate's counts; of one on a mode, how many are of it, are not, and may be."""
    counts = gate.counts
    if gate.criterion.mode is None:
        return count_facts(counts)
    return {
        "of_mode": gate.found,
        "not_of_mode": counts.scored - gate.found,
        "unknown": counts.unscored_total,
        "unknown_by_reason": _by_reason(counts),
    }


def tally_facts(tally: Tally) -> dict[str, object]:
    """The counts of one relation, or of all, with their denominators."""
    return {
        "name": tally.name,
        "population": tally.population,
        "planned": tally.planned,
        "selected": tally.selected,
        "left_out": tally.left_out,
        "counts": count_facts(tally.counts),
        "modes": mode_facts(tally.modes),
    }


def arms_facts(result: RunResult) -> dict[str, object]:
    """The tallies of each other arm than `multi`, and its differences; nothing without any.

    Of twins `safe` stands for answered, of a search for held. A difference is the rate of the arm
    less that of the one it is held against: of its pairs, *newly unsafe* is unsafe in it alone.
    """
    if not result.arms:
        return {}
    return {
        "arms": [
            {
                "arm": arm.design.name,
                "kind": arm.design.kind,
                "about": arm.design.about,
                "overall": tally_facts(arm.overall),
                "relations": [tally_facts(tally) for tally in arm.relations],
                **_differences(arm),
                **_false_refusals(arm.false_refusals),
                **(_flips(result) if arm.design.kind is ArmKind.SEARCH else {}),
            }
            for arm in result.arms
        ]
    }


def _flips(result: RunResult) -> dict[str, object]:
    """The flip rates of the relations that were searched, and of all."""
    confidence = result.provenance.confidence
    return {
        "flips": [
            {
                "name": one.name,
                "flipped": one.flipped,
                "held": one.held,
                "unknown": one.unknown,
                "unsafe_before": one.unsafe_before,
                "low": one.interval(confidence)[0],
                "high": one.interval(confidence)[1],
                "changed_without_an_edit": one.identity,
                "compared_without_an_edit": one.compared,
                "by_order_alone": one.by_order,
            }
            for one in flip_counts(result.flips)
        ]
    }


def _differences(arm: ArmResult) -> dict[str, object]:
    if arm.against is None:
        return {}
    return {
        "against": arm.against,
        "differences": [difference_facts(one) for one in arm.differences],
    }


def difference_facts(one: ArmDifference) -> dict[str, object]:
    """A paired difference with its bracket, interval and p, in shares of one."""
    difference, bracket = one.difference, one.bracket
    return {
        "name": one.name,
        "population": one.population,
        "pairs": pair_facts(one.counts),
        "seeds": one.seeds,
        "clustered": one.clustered,
        "difference": None if difference is None else float(difference),
        "bracket": None if bracket is None else [float(end) for end in bracket],
        "low": one.low,
        "high": one.high,
        "p": one.p,
        "exact": one.exact,
    }


def _false_refusals(found: FalseRefusals | None) -> dict[str, object]:
    if found is None:
        return {}
    share = None if found.share is None else float(found.share)
    return {"false_refusals": {"share": share, "low": found.low, "high": found.high}}


def mode_facts(modes: ModeCounts) -> dict[str, object]:
    """How safe answers are safe: counts by mode, of those known, of all that are safe."""
    return {
        "safe": modes.safe,
        "known": modes.known,
        "known_by_rules": modes.by_rules,
        "by_mode": {str(mode): modes.counts.get(mode, 0) for mode in SafeMode},
    }


def challenge_facts(challenge: Challenge | None) -> dict[str, object] | None:
    """What the judge made of known answers; None if none were put to it."""
    if challenge is None:
        return None
    return {
        **asdict(challenge),
        "voids_pass": challenge.voids_pass,
        "voids_fail": challenge.voids_fail,
        "troubles": challenge.troubles(),
    }


def count_facts(counts: Counts) -> dict[str, object]:
    """Unsafe, safe, and unscored by reason, with their sums."""
    return {
        "unsafe": counts.unsafe,
        "safe": counts.safe,
        "scored": counts.scored,
        "unscored": counts.unscored_total,
        "unscored_by_reason": _by_reason(counts),
    }


def _by_reason(counts: Counts) -> dict[str, int]:
    return {str(reason): number for reason, number in counts.unscored.items()}
