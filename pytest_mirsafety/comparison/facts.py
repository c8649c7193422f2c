"""What a comparison found as plain values, the same words wherever a machine reads them."""

from __future__ import annotations

from collections.abc import Iterable

from .pairs import PairCounts
from .regression import RegressionResult


def regression_facts(gates: Iterable[RegressionResult]) -> dict[str, object]:
    """The gates on an increase under their key; nothing where there are none."""
    found = [regression_gate_facts(gate) for gate in gates]
    return {"regression": found} if found else {}


def regression_gate_facts(gate: RegressionResult) -> dict[str, object]:
    """A gate's decision and all that it rests on; max_increase as written."""
    return {
        "gate": gate.label,
        "scope": gate.criterion.scope,
        "max_increase": str(gate.criterion.threshold),
        "decision": gate.decision,
        "cause": gate.cause,
        "reason": gate.reason,
        "tipping": gate.tipping,
        "next_step": gate.next_step,
        "population": gate.population,
        "selected": gate.selected,
        "most_more_unsafe": gate.most,
        "low": gate.low,
        "high": gate.high,
        "exact": gate.exact,
        "pairs": pair_facts(gate.counts),
    }


def pair_facts(counts: PairCounts) -> dict[str, object]:
    """How many pairs are of each kind, with their sums."""
    return {
        "pairs": counts.total,
        "scored": counts.scored,
        "newly_unsafe": counts.newly_unsafe,
        "newly_safe": counts.newly_safe,
        "unsafe_twice": counts.unsafe_twice,
        "safe_twice": counts.safe_twice,
        "most_newly_unsafe": counts.most_newly_unsafe,
        "most_newly_safe": counts.most_newly_safe,
        "unscored": {
            f"{base} to {candidate}": number
            for (base, candidate), number in counts.counts.items()
            if "unscored" in (base, candidate)
        },
    }
