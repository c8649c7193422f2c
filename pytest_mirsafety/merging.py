"""From the recorded shards of a run to its one result, or to the reason why they are not one run.

Whatever two shards could disagree in is refused unless it is known to be free to differ, so that
a field that is added later is compared until somebody decides otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from decimal import Decimal
from itertools import chain
from typing import Final

from .circumstances import Circumstances, Environment
from .entropies import NOTE as ATTENTION
from .errors import DataError
from .evaluation import evaluate, remarks
from .gates.challenge import together
from .metamorphic import SearchResult
from .printable import one_line
from .results import (
    ArmUsage,
    InstanceOutcome,
    Provenance,
    RecordedRun,
    RunDesign,
    RunResult,
    ids_digest,
)
from .sharding import Shard
from .taxonomy import Relation

MAY_DIFFER: Final = frozenset(
    {
        "data_source",  # the same data from another place have the same identity
        "data_revision",
        "twins_source",
        "model_name",
        "thresholds_from",
        "attempt",
        "answers_asked",
        "answers_from_store",
        "verdicts_from_store",
        "oldest_answer",
        "input_tokens",
        "output_tokens",
        "asked_input_tokens",
        "asked_output_tokens",
        "asked_without_usage",
        "stored_input_tokens",
        "stored_output_tokens",
        "cost_usd",
        "usage",
        "started",
        "elapsed",
    }
)
"""What of a provenance may differ among shards of one run: it is combined, or the first one's."""

_RULED_BY_GATES: Final = frozenset({0, 1})
_OF_PYTEST: Final = frozenset({2, 3, 4, 6})
_UNDECIDED: Final = 10
_ORDER: Final = {relation: place for place, relation in enumerate(Relation)}


def merge(runs: Iterable[RecordedRun]) -> RunResult:
    """Evaluate the gates over all shards of one run, as that run would have without shards.

    Raises:
        DataError: these are not all shards of one run, each of them once; one line says why.
    """
    shards = _in_order(tuple(runs))
    first = shards[0]
    rules = replace(
        first.design.rules,
        sample_spent=any(run.design.rules.sample_spent for run in shards),
        search_spent=any(run.design.rules.search_spent for run in shards),
        budget_spent=any(run.design.rules.budget_spent for run in shards),
        silent=next((s for run in shards if (s := run.design.rules.silent) is not None), None),
        challenge=together(run.design.rules.challenge for run in shards),
    )
    design = replace(first.design, shard=None, rules=rules)
    outcomes = _union(shards)
    try:
        about = _provenance(shards), _notes(shards), first.baseline
        return evaluate(design, outcomes, *about, _flips(shards))
    except ValueError as error:
        raise DataError(f"{_places(shards)}: do not make up the data: {error}") from None


def exit_code(result: RunResult, runs: Iterable[RecordedRun]) -> int:
    """What the whole run would have exited with: pytest's own codes come before the gates'.

    A shard that ended in any other way than by its tests leaves no PASS.
    """
    known = tuple(runs)
    codes = {run.exit_code for run in known}
    if own := codes & _OF_PYTEST:
        return min(own)
    code = result.exit_code(tests_failed=any(run.tests_failed for run in known))
    return code or (_UNDECIDED if codes - _RULED_BY_GATES else 0)


def circumstances(runs: Iterable[RecordedRun]) -> Circumstances:
    """Those of all shards: each environment once, and the end of the last one, where it is told.

    Raises:
        DataError: these are not all shards of one run, each of them once.
    """
    return _circumstances(_in_order(tuple(runs)))


def _circumstances(shards: Sequence[RecordedRun]) -> Circumstances:
    told = [run.circumstances for run in shards]
    ends = [one.ended for one in told if one.ended is not None]
    every: list[Environment] = []
    for environment in (environment for one in told for environment in one.environments):
        if environment not in every:
            every.append(environment)
    return Circumstances(
        ended=max(ends) if len(ends) == len(shards) else None,
        model=next((one.model for one in told if one.model is not None), None),
        environments=tuple(every),
    )


def _in_order(runs: Sequence[RecordedRun]) -> Sequence[RecordedRun]:
    """The shards by their number, each exactly once.

    Raises:
        DataError: a run is no shard or of another run, or a shard is missing or given twice.
    """
    if not runs:
        raise DataError("there is no run folder among what was given to merge")
    found: dict[int, RecordedRun] = {}
    count = _shard(runs[0]).count
    for run in runs:
        shard = _shard(run)
        if shard.count != count:
            raise _apart(runs[0], run, "number of shards", count, shard.count)
        _check_alike(runs[0], run)
        if shard.index in found:
            other = found[shard.index]
            raise DataError(f"{other.where} and {run.where} are both shard {shard}")
        found[shard.index] = run
    if missing := [str(Shard(i, count)) for i in range(1, count + 1) if i not in found]:
        names = one_line(", ".join(missing), 100)
        raise DataError(f"shard {names} is missing: all {count} are needed to decide")
    return [found[index] for index in sorted(found)]


def _shard(run: RecordedRun) -> Shard:
    if run.design.shard is None:
        raise DataError(f"{run.where} is no shard: it was run as a whole, and has its own decision")
    return run.design.shard


def _check_alike(a: RecordedRun, b: RecordedRun) -> None:
    """Refuse runs that differ in anything that a decision rests on.

    Raises:
        DataError: they do; the line names both, and what differs.
    """
    theirs = _terms(b)
    for name, mine in _terms(a).items():
        other = theirs[name]
        if mine == other:
            continue
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            key = next(k for k in (*mine, *other) if mine.get(k) != other.get(k))
            raise _apart(a, b, f"{name} ({key})", mine.get(key), other.get(key))
        raise _apart(a, b, name, mine, other)


def _terms(run: RecordedRun) -> dict[str, object]:
    """Everything that the shards of one run have in common, by name."""
    design, provenance = run.design, run.provenance
    terms: dict[str, object] = {
        field.name.replace("_", " "): getattr(provenance, field.name)
        for field in fields(Provenance)
        if field.name not in MAY_DIFFER
    }
    terms |= {
        field.name.replace("_", " "): getattr(design, field.name)
        for field in fields(RunDesign)
        if field.name != "shard"
    }
    gates = ((gate.criterion, gate.population) for gate in design.gates)
    terms["gates"] = {c.label: f"{c.scope}, {c.threshold} of {n}" for c, n in gates}
    terms["rules"] = asdict(
        replace(
            design.rules,
            sample_spent=False,
            search_spent=False,
            budget_spent=False,
            silent=None,
            challenge=None,
        )
    )
    return terms


def _apart(a: RecordedRun, b: RecordedRun, name: str, mine: object, other: object) -> DataError:
    values = " and ".join(_shown(value) for value in (mine, other))
    return DataError(f"{a.where} and {b.where} are not of one run: they differ in {name}: {values}")


def _shown(value: object) -> str:
    return "none" if value is None else one_line(str(value), 120)


def _union(shards: Sequence[RecordedRun]) -> Sequence[InstanceOutcome]:
    """The instances of all shards in one order, whatever the order of the shards.

    Raises:
        DataError: an instance is in two of them, or they are not those that were planned.
    """
    holder: dict[str, RecordedRun] = {}
    for run in shards:
        for entry in run.all_outcomes:
            if (other := holder.setdefault(entry.instance_id, run)) is not run:
                places = f"{other.where} and {run.where}"
                raise DataError(f"{places} both hold the instance {entry.instance_id}")
    planned = shards[0].design.planned
    if planned is not None and ids_digest(holder) != planned:
        raise DataError(
            f"{_places(shards)}: together they hold {len(holder)} instances, which are not those "
            "that were planned; run the shards again"
        )
    entries = chain.from_iterable(run.all_outcomes for run in shards)
    return sorted(entries, key=lambda entry: (_ORDER[entry.relation], entry.instance_id))


def _flips(shards: Sequence[RecordedRun]) -> list[SearchResult]:
    """What all of them found by searching, in the order of `_union`."""
    found = chain.from_iterable(run.flips for run in shards)
    return sorted(found, key=lambda one: (_ORDER[one.relation], one.instance_id))


def _places(shards: Sequence[RecordedRun]) -> str:
    return one_line(", ".join(run.where for run in shards), 300)


def _notes(shards: Sequence[RecordedRun]) -> Iterable[str]:
    """What the shards noted, once each, without what is said anew of all of them."""
    given: list[str] = []
    for run in shards:
        counted = remarks(run.all_outcomes)
        given += [n for n in run.notes if n not in counted and not n.startswith(ATTENTION)]
    early = [
        f"{run.where} ended with exit code {run.exit_code}"
        for run in shards
        if run.exit_code not in _RULED_BY_GATES
    ]
    apart = _different_environments(_circumstances(shards).environments)
    return dict.fromkeys([f"merged from {len(shards)} shards", *apart, *given, *early])


def _different_environments(environments: Sequence[Environment]) -> Iterator[str]:
    """Versions and commits in which shards differ: other hosts may, and whoever compares knows."""
    names = dict.fromkeys(name for one in environments for name in one.packages)
    for name in names:
        found = dict.fromkeys(one.packages.get(name, "none") for one in environments)
        if len(found) > 1:
            yield f"shards ran with different versions of {name}: {', '.join(found)}"
    commits = dict.fromkeys(one.commit.sha[:12] for one in environments if one.commit)
    if len(commits) > 1:
        yield f"shards ran on different commits: {', '.join(commits)}"


def _provenance(shards: Sequence[RecordedRun]) -> Provenance:
    """The shards' provenances as one: sums of what was asked, and the longest time."""
    parts = [run.provenance for run in shards]
    costs = [part.cost_usd for part in parts if part.cost_usd is not None]
    return replace(
        parts[0],
        attempt=max(part.attempt for part in parts),
        answers_asked=sum(part.answers_asked for part in parts),
        answers_from_store=sum(part.answers_from_store for part in parts),
        verdicts_from_store=sum(part.verdicts_from_store for part in parts),
        oldest_answer=min(
            (part.oldest_answer for part in parts if part.oldest_answer is not None), default=None
        ),
        input_tokens=sum(part.input_tokens for part in parts),
        output_tokens=sum(part.output_tokens for part in parts),
        asked_input_tokens=sum(part.asked_input_tokens for part in parts),
        asked_output_tokens=sum(part.asked_output_tokens for part in parts),
        asked_without_usage=sum(part.asked_without_usage for part in parts),
        stored_input_tokens=sum(part.stored_input_tokens for part in parts),
        stored_output_tokens=sum(part.stored_output_tokens for part in parts),
        usage=_usage(parts),
        cost_usd=sum(costs, Decimal(0)) if len(costs) == len(parts) else None,
        started=min(part.started for part in parts),
        elapsed=max(part.elapsed for part in parts),
    )


def _usage(parts: Sequence[Provenance]) -> dict[str, ArmUsage]:
    names = sorted({name for part in parts for name in part.usage})
    none = ArmUsage()
    return {name: sum((part.usage.get(name, none) for part in parts), none) for name in names}
