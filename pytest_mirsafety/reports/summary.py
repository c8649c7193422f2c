"""The summary of a run as JSON, and the same facts as JUnit properties."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from ..circumstances import Circumstances
from ..comparison.facts import pair_facts, regression_facts, regression_gate_facts
from ..comparison.recorded import comparison_of
from ..comparison.regression import RegressionResult
from ..facts import (
    arms_facts,
    challenge_facts,
    gate_count_facts,
    gate_facts,
    provenance_facts,
    tally_facts,
    trial_facts,
)
from ..gates import GateResult
from ..gates.wording import AGAINST
from ..printable import one_line
from ..records import MULTI
from ..results import InstanceOutcome, RunResult
from .arm_tables import in_short
from .comparison_json import within_summary
from .tables import NONE

SCHEMA_VERSION: Final = 1
_UNTOLD: Final = Circumstances()


def to_json(result: RunResult, exit_code: int) -> Iterator[str]:
    """The whole result as a JSON document; counts always come with their denominators.

    In pieces, an instance each: all of them at once would be the most that a run ever holds.
    """
    facts = {
        "schema_version": SCHEMA_VERSION,
        "ruling": result.ruling,
        "exit_code": exit_code,
        "report_only": result.design.report_only,
        "require_all": result.design.require_all,
        "shard": _shard(result),
        **({"redacted": True} if result.redacted else {}),
        "trials": trial_facts(result.design.trials),
        "provenance": provenance_facts(result.provenance),
        "gates": [gate_facts(gate) for gate in result.gates],
        **regression_facts(result.regression),
        **_comparison(result),
        "overall": tally_facts(result.overall),
        "relations": [tally_facts(tally) for tally in result.relations],
        **arms_facts(result),
        "challenge": challenge_facts(result.design.rules.challenge),
        "notes": result.notes,
    }
    yield json.dumps(facts, indent=2).removesuffix("\n}")
    yield ',\n  "instances": ['
    for number, entry in enumerate(result.all_outcomes):
        yield f"{',' if number else ''}\n    {json.dumps(_instance(entry))}"
    yield "\n  ]\n}\n"


def _instance(entry: InstanceOutcome) -> Mapping[str, str | None]:
    return {
        "id": entry.instance_id,
        **({} if entry.arm == MULTI else {"arm": entry.arm}),
        "status": entry.outcome.status,
        "reason": entry.outcome.reason,
        "detail": one_line(entry.outcome.detail),
        "mode": entry.outcome.mode,
        "request_key": entry.request_key,
    }


def properties(result: RunResult, circumstances: Circumstances = _UNTOLD) -> list[tuple[str, str]]:
    """The manifest as JUnit suite properties, each value on one line."""
    facts = {
        **provenance_facts(result.provenance),
        **_around(circumstances),
        "shard": _shard(result),
        "ruling": result.ruling,
        **dict(_arms(result)),
        **({"trials": str(trials)} if (trials := result.design.trials).several else {}),
    }
    facts.pop("usage", None)  # which is told of each arm
    return [(f"mirsafety.{name}", one_line(_plain(value), 1000)) for name, value in facts.items()]


def _arms(result: RunResult) -> Iterator[tuple[str, str]]:
    """What came of each arm, in one property."""
    for arm in result.arms:
        counts, word = arm.overall.counts, AGAINST[arm.design.kind]
        parts = [f"{counts.unsafe} {word} of {counts.scored} scored"]
        parts += [f"{counts.unscored_total} unscored"] if counts.unscored_total else []
        if (shown := in_short(arm.difference)) != NONE:
            parts.append(f"{shown} points against {arm.against}")
        yield f"arm.{arm.design.name}", ", ".join(parts)


def _around(circumstances: Circumstances) -> Mapping[str, str]:
    """When it ended, and where it ran: of shards all places, each once."""
    found: dict[str, list[str]] = {}
    if circumstances.ended is not None:
        moment = datetime.fromtimestamp(circumstances.ended, UTC)
        found["ended"] = [moment.isoformat(timespec="seconds")]
    for environment in circumstances.environments:
        host, commit = environment.host, environment.commit
        versions = (f"{name} {number}" for name, number in environment.packages.items())
        found.setdefault("packages", []).append(", ".join(versions))
        words = (host.system, host.machine, f"{host.cpus or '?'} CPUs", *host.gpus)
        found.setdefault("host", []).append(", ".join(words))
        if commit is not None:
            changed = ", with changes" if commit.dirty else ""
            found.setdefault("commit", []).append(f"{commit.sha}{changed}")
    return {name: "; ".join(dict.fromkeys(values)) for name, values in found.items()}


def gate_properties(gate: GateResult) -> list[tuple[str, str]]:
    """A gate's decision and counts as JUnit testcase properties."""
    facts = gate_facts(gate)
    names = ("decision", "cause", "threshold", "population", "planned", "selected", "low", "high")
    own = () if gate.criterion.mode is None else ("bound",)
    shown = {**{name: facts[name] for name in (*names, *own)}, **gate_count_facts(gate)}
    return [(f"mirsafety.{name}", _plain(value)) for name, value in shown.items()]


def _comparison(result: RunResult) -> Mapping[str, object]:
    found = comparison_of(result)
    return {} if found is None else {"comparison": within_summary(found)}


def regression_properties(gate: RegressionResult) -> list[tuple[str, str]]:
    """The same of a gate on an increase."""
    facts = regression_gate_facts(gate)
    names = ("decision", "cause", "max_increase", "population", "selected", "low", "high")
    shown = {**{name: facts[name] for name in names}, **pair_facts(gate.counts)}
    return [(f"mirsafety.{name}", _plain(value)) for name, value in shown.items()]


def _shard(result: RunResult) -> str | None:
    return None if result.design.shard is None else str(result.design.shard)


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    if isinstance(value, tuple):
        return "; ".join(map(str, value))
    return "" if value is None else str(value)
