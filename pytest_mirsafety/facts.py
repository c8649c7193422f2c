"""A result as plain values, the same words wherever a machine reads them: JSON and JUnit."""

from __future__ import annotations

from dataclasses import asdict

from .gates import GateResult
from .gates.challenge import Challenge
from .records import SafeMode
from .results import Provenance, RunResult, Tally
from .tally import Counts, ModeCounts
from .trials import Trials


def provenance_facts(provenance: Provenance) -> dict[str, object]:
    """Every field; the confidence as written, and money in plain decimals.

    A layout only where images were put together.
    """
    cost = provenance.cost_usd
    facts = {
        **asdict(provenance),
        "confidence": str(provenance.confidence),
        "cost_usd": None if cost is None else f"{cost.normalize():f}",
    }
    if provenance.layout is None:
        del facts["layout"]
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
    """The tallies of each other arm than `multi`; nothing where there is none.

    Of twins `safe` stands for answered, of a search for held.
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
            }
            for arm in result.arms
        ]
    }


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
