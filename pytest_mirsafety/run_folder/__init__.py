"""The run folder: what a run was, in run.json, and what became of each instance, in results.jsonl.

run.json says from the start that there is a run, and only at its end that it has ended: a run
that dies leaves a folder that is nobody's result. Both files carry digests, which find what is
cut short, mixed up or edited by hand; they are no signature.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from ..comparison.facts import regression_facts
from ..comparison.sides import Side
from ..entropies import FILES
from ..errors import ConfigurationError, DataError
from ..exchanges import Exchange
from ..facts import challenge_facts, gate_facts, provenance_facts, tally_facts
from ..gates.challenge import Challenge
from ..printable import one_line
from ..records import digest
from ..results import (
    InstanceOutcome,
    Provenance,
    RecordedRun,
    RunDesign,
    RunResult,
    ids_digest,
)
from . import pinned
from .lines import (
    LINE_LIMIT,
    Digest,
    LineCheck,
    Strict,
    exchange_of,
    malformed,
    to_bytes,
    validated,
)

FORMAT: Final = "mirsafety-run"
SCHEMA_VERSION: Final = 2
_READABLE: Final = (1, 2)
MANIFEST: Final = "run.json"
RESULTS: Final = "results.jsonl"

_MANIFEST_LIMIT: Final = 16 * 2**20
_MOST_INSTANCES: Final = 10_000_000
_LATEST: Final = 2.0**36


class _Results(Strict):
    """How many records results.jsonl has, and the SHA-256 of its bytes."""

    records: Annotated[int, Field(ge=0, le=_MOST_INSTANCES)]
    sha256: Digest


class _Manifest(Strict):
    """run.json of a run that has ended. What `for_people` holds is derived, and never read."""

    format: Literal["mirsafety-run"]
    schema_version: Literal[1, 2]
    finished: Literal[True]
    design: RunDesign
    provenance: Provenance
    notes: tuple[str, ...]
    tests_failed: bool
    exit_code: Annotated[int, Field(ge=0, le=255)]
    for_people: dict[str, Any]
    results: _Results
    digest: Digest


def claim(folder: Path) -> None:
    """Make the folder this run's, so that nothing of an earlier run is left to be read.

    Raises:
        ConfigurationError: it holds something else than a run, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not _is_run(folder):
            raise ConfigurationError(
                f"{folder}: is neither empty nor a run folder; name another one, or empty it"
            )
        started = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "finished": False}
        _replace(folder / MANIFEST, [_pretty(started)])
        for name in (RESULTS, pinned.BASELINE, *FILES):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(_cannot_write(folder, error)) from None


def discard(folder: Path) -> None:
    """Take a run out of its folder, if there is one; and the folder, if nothing else is in it."""
    if _is_run(folder):
        with suppress(OSError):
            for name in (MANIFEST, RESULTS, pinned.BASELINE, *FILES):
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()


def refuse_trials(run: RecordedRun, what: str) -> None:
    """Do nothing with a run that asked each instance once.

    Raises:
        DataError: it asked more often, so that a label on an answer is none on its instance.
    """
    if (trials := run.design.trials).several:
        raise DataError(f"{run.where}: {what} takes a run of one trial, and this is {trials}")


def write(
    folder: Path,
    result: RunResult,
    *,
    tests_failed: bool,
    exit_code: int,
    exchanges: Callable[[str], Exchange | None] = lambda _: None,
) -> None:
    """Keep the result in a folder that was claimed; run.json comes last, and makes it whole.

    `exchanges` gives what an instance was asked, and what came back, or None; it is asked for as
    each is written.

    Raises:
        ConfigurationError: it cannot be written.
        RunError: an answer cannot be had any more.
    """
    lines = (
        to_bytes(entry, exchanges(entry.instance_id) or Exchange()) for entry in result.outcomes
    )
    try:
        sha256 = _replace(folder / RESULTS, lines)
        if result.baseline is not None:
            _replace(folder / pinned.BASELINE, pinned.to_lines(result.baseline))
        document = _manifest(result, sha256, tests_failed=tests_failed, exit_code=exit_code)
        _replace(folder / MANIFEST, [_pretty(document)])
    except OSError as error:
        raise ConfigurationError(_cannot_write(folder, error)) from None


def read(folder: Path) -> RecordedRun:
    """The run in this folder, checked as what comes from another machine.

    Raises:
        DataError: there is no run that has ended, or not as it was written; one line names the
            file, and the line where there is one.
    """
    where = one_line(str(folder))
    manifest = _read_manifest(folder / MANIFEST, where)
    outcomes = tuple(_read_results(folder / RESULTS, f"{where}/{RESULTS}", manifest))
    planned, whole = manifest.design.planned, manifest.design.shard is None
    if whole and planned not in (None, ids_digest(entry.instance_id for entry in outcomes)):
        raise malformed(f"{where}/{RESULTS}", "does not hold the instances that were planned")
    return RecordedRun(
        where=where,
        design=manifest.design,
        provenance=manifest.provenance,
        outcomes=outcomes,
        notes=manifest.notes,
        tests_failed=manifest.tests_failed,
        exit_code=manifest.exit_code,
        digest=manifest.digest,
        baseline=_baseline(folder / pinned.BASELINE, manifest.design),
    )


class Exchanges:
    """What runs that were read asked and got: only the place of each line is held in memory."""

    def __init__(self, runs: Iterable[tuple[Path, RecordedRun]]) -> None:
        """Find the places.

        Raises:
            DataError: a file cannot be read.
        """
        self._places: dict[str, tuple[Path, int, bytes]] = {}
        for folder, run in runs:
            path, start = folder / RESULTS, 0
            try:
                with path.open("rb") as file:
                    for entry in run.outcomes:
                        line = file.readline(LINE_LIMIT + 1)
                        self._places[entry.instance_id] = path, start, _sha256(line)
                        start += len(line)
            except OSError as error:
                raise _unreadable(path, error) from None

    def __call__(self, instance_id: str) -> Exchange | None:
        """What an instance was asked, and what came back; None of one that is in none of the runs.

        Raises:
            DataError: there is no longer what was there when the run was read.
        """
        if instance_id not in self._places:
            return None
        path, start, sha256 = self._places[instance_id]
        try:
            with path.open("rb") as file:
                file.seek(start)
                line = file.readline(LINE_LIMIT + 1)
        except OSError as error:
            raise _unreadable(path, error) from None
        place = one_line(str(path))
        if _sha256(line) != sha256:
            problem = f"the record of {instance_id} is no longer the one that the run wrote"
            raise malformed(place, problem)
        return exchange_of(line, place)


def _sha256(line: bytes) -> bytes:
    return hashlib.sha256(line).digest()


def _unreadable(path: Path, error: OSError) -> DataError:
    return malformed(one_line(str(path)), f"cannot be read: {error.strerror or error}")


def _is_run(folder: Path) -> bool:
    """There is a run.json that is ours, of whatever version, ended or not."""
    try:
        document = json.loads(_bounded(folder / MANIFEST))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("format") == FORMAT


def _bounded(path: Path) -> bytes:
    """The bytes of a regular file, up to one more than is ever accepted.

    Raises:
        OSError: it cannot be read, or is no regular file: a pipe could keep us waiting for ever.
    """
    if path.exists() and not path.is_file():
        raise OSError(0, "is no regular file")
    with path.open("rb") as file:
        return file.read(_MANIFEST_LIMIT + 1)


def _replace(path: Path, lines: Iterable[bytes]) -> str:
    """Write a file whole or not at all; gives the SHA-256 of its bytes."""
    partial = path.with_name(f"{path.name}.partial")
    sha256 = hashlib.sha256()
    with partial.open("wb") as file:
        for line in lines:
            sha256.update(line)
            file.write(line)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    return sha256.hexdigest()


def _cannot_write(folder: Path, error: OSError) -> str:
    return one_line(f"{folder}: cannot be written: {error.strerror or error}", 400)


def _pretty(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, indent=2, ensure_ascii=True, default=str).encode() + b"\n"


def _manifest(
    result: RunResult, sha256: str, *, tests_failed: bool, exit_code: int
) -> dict[str, object]:
    document: dict[str, object] = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "finished": True,
        "design": _design(result.design),
        "provenance": provenance_facts(result.provenance),
        "notes": result.notes,
        "tests_failed": tests_failed,
        "exit_code": exit_code,
        "for_people": {
            "ruling": result.ruling,
            "gates": [gate_facts(gate) for gate in result.gates],
            "overall": tally_facts(result.overall),
            "relations": [tally_facts(tally) for tally in result.relations],
            "challenge": challenge_facts(result.design.rules.challenge),
            **regression_facts(result.regression),
        },
        "results": {"records": len(result.outcomes), "sha256": sha256},
    }
    plain = json.loads(_pretty(document))
    return {**plain, "digest": digest(plain)}


def _design(design: RunDesign) -> dict[str, object]:
    """Every field, but for those of a baseline where there is none."""
    facts = asdict(design)
    if design.baseline is None:
        del facts["baseline"], facts["regression"]
    return facts


def _baseline(path: Path, design: RunDesign) -> Side | None:
    """The pinned baseline that the run was held against.

    Raises:
        DataError: it is not there, or is another one.
    """
    if design.baseline is None:
        return None
    side = pinned.read_pinned(path)
    if pinned.side_digest(side) != design.baseline:
        raise malformed(one_line(str(path)), "is not the baseline that the run was held against")
    return side


def _read_manifest(path: Path, where: str) -> _Manifest:
    place = f"{where}/{MANIFEST}"
    try:
        content = _bounded(path)
    except FileNotFoundError:
        raise DataError(f"{where} is no run folder: it has no {MANIFEST}") from None
    except OSError as error:
        raise malformed(place, f"cannot be read: {error.strerror or error}") from None
    if len(content) > _MANIFEST_LIMIT:
        raise malformed(place, f"is larger than {_MANIFEST_LIMIT} bytes")
    try:
        document = json.loads(content)
        written = isinstance(document, dict) and document.pop("digest", None) == digest(document)
    except (ValueError, RecursionError):
        raise malformed(place, "is not JSON") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise malformed(place, f"is no run's: it does not say format '{FORMAT}'")
    if document.get("schema_version") not in _READABLE:
        version = one_line(repr(document.get("schema_version")), 40)
        known = " and ".join(map(str, _READABLE))
        raise malformed(place, f"has schema_version {version}; this version reads {known}")
    if document.get("finished") is not True:
        raise malformed(place, "the run has not ended, or was killed; run it again")
    if not written:
        raise malformed(place, "is not as the run wrote it; run it again")
    manifest = validated(_Manifest, content, place)
    if (problem := _implausible(manifest)) is not None:
        raise malformed(place, problem)
    return manifest


def _implausible(manifest: _Manifest) -> str | None:
    """What cannot be in numbers that each are well-formed; None if nothing."""
    design, provenance, rules = manifest.design, manifest.provenance, manifest.design.rules
    total = sum(design.populations.values())
    labels = [gate.criterion.label for gate in design.gates]
    increases = [gate.criterion.label for gate in design.regression]
    asked = provenance.attempt, provenance.answers_asked, provenance.answers_from_store
    tokens = provenance.input_tokens, provenance.output_tokens
    told = (
        *(provenance.asked_input_tokens, provenance.asked_output_tokens),
        *(provenance.stored_input_tokens, provenance.stored_output_tokens),
        provenance.asked_without_usage,
        provenance.cost_usd or 0,
    )
    times = (provenance.started, provenance.elapsed, provenance.oldest_answer or 0)
    gates = (*design.gates, *design.regression)
    sizes = [*design.populations.values(), *(gate.population for gate in gates)]
    wrong = {
        "the counts of the relations do not add up to the data's": total != provenance.data_count,
        "it has too many instances": total > _MOST_INSTANCES,
        "a gate or a relation has a count that cannot be": not all(0 <= n <= total for n in sizes),
        "a gate is there twice": len(set(labels)) != len(labels)
        or len(set(increases)) != len(increases),
        "the rules are for another number of gates": rules.gates != max(1, len(gates)),
        "a mode cannot be held against a baseline": any(
            gate.criterion.mode is not None for gate in design.regression
        ),
        "a gate on an increase needs a baseline": bool(increases) and design.baseline is None,
        "the rules are not those of the report": (rules.estimand, rules.confidence)
        != (provenance.estimand, provenance.confidence),
        "a number is negative": min(*asked, *tokens, *told) < 0,
        "the judge's trial is not whole": not _is_whole(rules.challenge, design.rules.unchallenged),
        "a time is none": not all(0 <= time < _LATEST for time in times),
    }
    return next((problem for problem, holds in wrong.items() if holds), None)


def _is_whole(challenge: Challenge | None, unchallenged: bool) -> bool:
    """A judge that was tried to the end was so before and after; and one that was not, was not."""
    if challenge is None:
        return True
    when = {one.when for one in challenge.rounds}
    whole = not challenge.complete or when in (set(), {"before", "after"})
    return whole and challenge.allowed >= 0 and not unchallenged


def _read_results(path: Path, place: str, manifest: _Manifest) -> Iterator[InstanceOutcome]:
    """The records, each checked; that all are there is known once the last one was read."""
    check = LineCheck(manifest.design)
    sha256 = hashlib.sha256()
    number = 0
    try:
        if path.exists() and not path.is_file():
            raise malformed(place, "is no regular file")
        with path.open("rb") as file:
            while line := file.readline(LINE_LIMIT + 1):
                number += 1
                if len(line) > LINE_LIMIT or number > manifest.results.records:
                    break
                sha256.update(line)
                yield check.entry(line, f"{place}, line {number}")
    except OSError as error:
        raise malformed(place, f"cannot be read: {error.strerror or error}") from None
    if (number, sha256.hexdigest()) != (manifest.results.records, manifest.results.sha256):
        wrote = f"the {manifest.results.records} records that the run wrote"
        raise malformed(place, f"does not hold {wrote}; run it again")
