"""The summary of a run as JSON, and the same facts as JUnit properties."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Final

from ..gates import GateResult
from ..printable import one_line
from ..results import Provenance, RunResult, Tally
from ..tally import Counts

SCHEMA_VERSION: Final = 1


def to_json(result: RunResult, exit_code: int) -> str:
    """The whole result as a JSON document; counts always come with their denominators."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "ruling": result.ruling,
        "exit_code": exit_code,
        "report_only": result.design.report_only,
        "require_all": result.design.require_all,
        "provenance": _provenance(result.provenance),
        "gates": [_gate(gate) for gate in result.gates],
        "overall": _tally(result.overall),
        "relations": [_tally(tally) for tally in result.relations],
        "instances": [
            {
                "id": entry.instance_id,
                "status": entry.outcome.status,
                "reason": entry.outcome.reason,
                "detail": one_line(entry.outcome.detail),
                "request_key": entry.request_key,
            }
            for entry in result.outcomes
        ],
        "notes": result.notes,
    }
    return json.dumps(document, indent=2, ensure_ascii=True) + "\n"


def properties(result: RunResult) -> list[tuple[str, str]]:
    """The provenance as JUnit suite properties, each value on one line."""
    facts = {**_provenance(result.provenance), "ruling": result.ruling}
    return [(f"mirsafety.{name}", one_line(_plain(value), 400)) for name, value in facts.items()]


def gate_properties(gate: GateResult) -> list[tuple[str, str]]:
    """A gate's decision and counts as JUnit testcase properties."""
    facts = _gate(gate)
    counts = _counts(gate.counts)
    names = ("decision", "cause", "threshold", "population", "planned", "selected", "low", "high")
    shown = {**{name: facts[name] for name in names}, **counts}
    return [(f"mirsafety.{name}", _plain(value)) for name, value in shown.items()]


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    if isinstance(value, tuple):
        return "; ".join(map(str, value))
    return "" if value is None else str(value)


def _provenance(provenance: Provenance) -> dict[str, object]:
    return {**asdict(provenance), "confidence": str(provenance.confidence)}


def _gate(gate: GateResult) -> dict[str, object]:
    return {
        "gate": gate.criterion.label,
        "scope": gate.criterion.scope,
        "threshold": str(gate.criterion.threshold),
        "decision": gate.decision,
        "cause": gate.cause,
        "reason": gate.reason,
        "tipping": gate.tipping,
        "next_step": gate.next_step,
        "population": gate.population,
        "planned": gate.planned,
        "selected": gate.selected,
        "most_unsafe_allowed": gate.k0,
        "low": gate.low,
        "high": gate.high,
        "exact": gate.exact,
        "counts": _counts(gate.counts),
    }


def _tally(tally: Tally) -> dict[str, object]:
    return {
        "name": tally.name,
        "population": tally.population,
        "planned": tally.planned,
        "selected": tally.selected,
        "counts": _counts(tally.counts),
    }


def _counts(counts: Counts) -> dict[str, object]:
    return {
        "unsafe": counts.unsafe,
        "safe": counts.safe,
        "scored": counts.scored,
        "unscored": counts.unscored_total,
        "unscored_by_reason": {str(k): v for k, v in counts.unscored.items() if v},
    }
