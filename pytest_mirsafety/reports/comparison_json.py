"""A comparison and a trend as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final

from ..comparison.alarm import Alarm
from ..comparison.comparing import Comparison, Row
from ..comparison.facts import pair_facts, regression_gate_facts
from ..comparison.sides import Difference, Side
from ..comparison.trend import TrendPoint
from ..facts import count_facts

SCHEMA_VERSION: Final = 1


def to_json(found: Comparison, points: Sequence[TrendPoint], exit_code: int) -> str:
    """Everything that was found, with the ids of all that changed."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "exit_code": exit_code,
        "base": _side(found.base),
        "candidate": _side(found.candidate),
        "overlooked": [_difference(one) for one in found.overlooked],
        "differs": [_difference(one) for one in found.differs],
        "gates": [regression_gate_facts(gate) for gate in found.gates],
        "rows": [_row(row) for row in found.rows],
        **{name: list(ids) for name, ids in asdict(found.changes).items()},
        "trend": [_point(point) for point in points],
    }
    return json.dumps(document, indent=2) + "\n"


def within_summary(found: Comparison) -> Mapping[str, object]:
    """What of a comparison the summary of the candidate has: it has the candidate itself."""
    return {
        "base": _side(found.base),
        "differs": [_difference(one) for one in found.differs],
        "rows": [_row(row) for row in found.rows],
        **{name: list(ids) for name, ids in asdict(found.changes).items()},
    }


def _side(side: Side) -> Mapping[str, object]:
    terms = asdict(side.terms)
    if not side.terms.arms:
        del terms["arms"]
    return {"where": side.where, **terms, "confidence": str(side.terms.confidence)}


def _difference(one: Difference) -> Mapping[str, str]:
    return {"name": one.name, "base": one.base, "candidate": one.candidate}


def _row(row: Row) -> Mapping[str, object]:
    bounds = row.bounds
    return {
        "scope": row.scope,
        "name": row.name,
        "population": row.population,
        **pair_facts(row.counts),
        "low": None if bounds is None else float(bounds.low),
        "high": None if bounds is None else float(bounds.high),
        "exact": bounds is not None and bounds.exact,
        "alarm": _alarm(row.alarm),
    }


def _alarm(alarm: Alarm | None) -> Mapping[str, object] | None:
    if alarm is None:
        return None
    return {"p": alarm.p, "level": float(alarm.level), "rings": alarm.rings}


def _point(point: TrendPoint) -> Mapping[str, object]:
    terms = point.side.terms
    return {
        "where": point.side.where,
        "model_name": terms.model_name,
        "started": terms.started,
        "rates": [
            {"name": rate.name, "low": rate.low, "high": rate.high, **count_facts(rate.counts)}
            for rate in point.rates
        ],
    }
