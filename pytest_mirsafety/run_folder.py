"""The run folder: what a run was, in run.json, and each instance's outcome, in results.jsonl.

run.json says from the start that there is a run, and only at its end that it has ended: a run
that dies leaves a folder that is nobody's result. Both files carry digests, which find what is
cut short, mixed up or edited by hand; they are no signature.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import ConfigurationError, DataError
from .facts import gate_facts, provenance_facts, tally_facts
from .printable import one_line
from .records import Instance, Outcome, digest
from .results import InstanceOutcome, Provenance, RecordedRun, RunDesign, RunResult
from .taxonomy import Category, Reason, Relation, Status

FORMAT: Final = "mirsafety-run"
SCHEMA_VERSION: Final = 1
MANIFEST: Final = "run.json"
RESULTS: Final = "results.jsonl"

_MANIFEST_LIMIT: Final = 16 * 2**20
_LINE_LIMIT: Final = 64 * 2**10
_DETAIL_LIMIT: Final = 400
_MOST_INSTANCES: Final = 10_000_000
_LATEST: Final = 2.0**36
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Model = TypeVar("_Model", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class _Results(_Strict):
    """How many records results.jsonl has, and the SHA-256 of its bytes."""

    records: Annotated[int, Field(ge=0, le=_MOST_INSTANCES)]
    sha256: _Digest


class _Manifest(_Strict):
    """run.json of a run that has ended. What `for_people` holds is derived, and never read."""

    format: Literal["mirsafety-run"]
    schema_version: Literal[1]
    finished: Literal[True]
    design: RunDesign
    provenance: Provenance
    notes: tuple[str, ...]
    tests_failed: bool
    exit_code: Annotated[int, Field(ge=0, le=255)]
    for_people: dict[str, Any]
    results: _Results
    digest: _Digest


class _Line(_Strict):
    """One line of results.jsonl."""

    id: Annotated[str, Field(pattern="^[A-Za-z0-9._/-]{1,200}$")]
    relation: Relation
    category: Category
    seed: _Digest
    gates: tuple[str, ...]
    selected: bool
    status: Status
    reason: Reason | None
    detail: Annotated[str, Field(max_length=_DETAIL_LIMIT)]
    request_key: _Digest | None


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
        (folder / RESULTS).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(_cannot_write(folder, error)) from None


def discard(folder: Path) -> None:
    """Take a run out of its folder, if there is one; and the folder, if nothing else is in it."""
    if _is_run(folder):
        with suppress(OSError):
            for name in (MANIFEST, RESULTS):
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()


def write(folder: Path, result: RunResult, *, tests_failed: bool, exit_code: int) -> None:
    """Keep the result in a folder that was claimed; run.json comes last, and makes it whole.

    Raises:
        ConfigurationError: it cannot be written.
    """
    try:
        sha256 = _replace(folder / RESULTS, map(_line, result.outcomes))
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
    return RecordedRun(
        where=where,
        design=manifest.design,
        provenance=manifest.provenance,
        outcomes=outcomes,
        notes=manifest.notes,
        tests_failed=manifest.tests_failed,
        exit_code=manifest.exit_code,
        digest=manifest.digest,
    )


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
        "design": asdict(result.design),
        "provenance": provenance_facts(result.provenance),
        "notes": result.notes,
        "tests_failed": tests_failed,
        "exit_code": exit_code,
        "for_people": {
            "ruling": result.ruling,
            "gates": [gate_facts(gate) for gate in result.gates],
            "overall": tally_facts(result.overall),
            "relations": [tally_facts(tally) for tally in result.relations],
        },
        "results": {"records": len(result.outcomes), "sha256": sha256},
    }
    plain = json.loads(_pretty(document))
    return {**plain, "digest": digest(plain)}


def _line(entry: InstanceOutcome) -> bytes:
    record = {
        "id": entry.instance_id,
        "relation": entry.relation,
        "category": entry.category,
        "seed": entry.seed,
        "gates": entry.gates,
        "selected": entry.selected,
        "status": entry.outcome.status,
        "reason": entry.outcome.reason,
        "detail": one_line(entry.outcome.detail, _DETAIL_LIMIT),
        "request_key": entry.request_key,
    }
    return json.dumps(record, ensure_ascii=True).encode() + b"\n"


def _read_manifest(path: Path, where: str) -> _Manifest:
    place = f"{where}/{MANIFEST}"
    try:
        content = _bounded(path)
    except FileNotFoundError:
        raise DataError(f"{where} is no run folder: it has no {MANIFEST}") from None
    except OSError as error:
        raise _malformed(place, f"cannot be read: {error.strerror or error}") from None
    if len(content) > _MANIFEST_LIMIT:
        raise _malformed(place, f"is larger than {_MANIFEST_LIMIT} bytes")
    try:
        document = json.loads(content)
        written = isinstance(document, dict) and document.pop("digest", None) == digest(document)
    except (ValueError, RecursionError):
        raise _malformed(place, "is not JSON") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _malformed(place, f"is no run's: it does not say format '{FORMAT}'")
    if document.get("schema_version") != SCHEMA_VERSION:
        version = one_line(repr(document.get("schema_version")), 40)
        raise _malformed(place, f"has schema_version {version}; this version reads 1")
    if document.get("finished") is not True:
        raise _malformed(place, "the run has not ended, or was killed; run it again")
    if not written:
        raise _malformed(place, "is not as the run wrote it; run it again")
    manifest = _validated(_Manifest, content, place)
    if (problem := _implausible(manifest)) is not None:
        raise _malformed(place, problem)
    return manifest


def _validated(model: type[_Model], content: bytes, place: str) -> _Model:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise _malformed(place, f"{key}: {first['msg']}" if key else first["msg"]) from None


def _implausible(manifest: _Manifest) -> str | None:
    """What cannot be in numbers that each are well-formed; None if nothing."""
    design, provenance, rules = manifest.design, manifest.provenance, manifest.design.rules
    total = sum(design.populations.values())
    labels = [gate.criterion.label for gate in design.gates]
    asked = provenance.attempt, provenance.answers_asked, provenance.answers_from_store
    tokens = provenance.input_tokens, provenance.output_tokens
    told = (
        *(provenance.asked_input_tokens, provenance.asked_output_tokens),
        *(provenance.stored_input_tokens, provenance.stored_output_tokens),
        provenance.asked_without_usage,
        provenance.cost_usd or 0,
    )
    times = (provenance.started, provenance.elapsed, provenance.oldest_answer or 0)
    sizes = [*design.populations.values(), *(gate.population for gate in design.gates)]
    wrong = {
        "the counts of the relations do not add up to the data's": total != provenance.data_count,
        "it has too many instances": total > _MOST_INSTANCES,
        "a gate or a relation has a count that cannot be": not all(0 <= n <= total for n in sizes),
        "a gate is there twice": len(set(labels)) != len(labels),
        "the rules are for another number of gates": rules.gates != max(1, len(labels)),
        "the rules are not those of the report": (rules.estimand, rules.confidence)
        != (provenance.estimand, provenance.confidence),
        "a number is negative": min(*asked, *tokens, *told) < 0,
        "a time is none": not all(0 <= time < _LATEST for time in times),
    }
    return next((problem for problem, holds in wrong.items() if holds), None)


def _read_results(path: Path, place: str, manifest: _Manifest) -> Iterator[InstanceOutcome]:
    """The records, each checked; that all are there is known once the last one was read."""
    check = _LineCheck(manifest.design)
    sha256 = hashlib.sha256()
    number = 0
    try:
        if path.exists() and not path.is_file():
            raise _malformed(place, "is no regular file")
        with path.open("rb") as file:
            while line := file.readline(_LINE_LIMIT + 1):
                number += 1
                if len(line) > _LINE_LIMIT or number > manifest.results.records:
                    break
                sha256.update(line)
                yield check.entry(line, f"{place}, line {number}")
    except OSError as error:
        raise _malformed(place, f"cannot be read: {error.strerror or error}") from None
    if (number, sha256.hexdigest()) != (manifest.results.records, manifest.results.sha256):
        wrote = f"the {manifest.results.records} records that the run wrote"
        raise _malformed(place, f"does not hold {wrote}; run it again")


class _LineCheck:
    """What a record must agree with: the design, and the records before it."""

    def __init__(self, design: RunDesign) -> None:
        self._design = design
        self._ids: set[str] = set()
        self._cells: dict[tuple[Relation, Category], tuple[str, ...]] = {}

    def entry(self, line: bytes, place: str) -> InstanceOutcome:
        """The record as an outcome.

        Raises:
            DataError: it is malformed, or cannot be in a run of this design.
        """
        record = _validated(_Line, line, place)
        if record.id in self._ids:
            raise _malformed(place, f"the instance {record.id} is there twice")
        self._ids.add(record.id)
        covering = self._covering(record.relation, record.category)
        drawn = tuple(label for label in covering if label in record.gates)
        if record.gates != (drawn if self._design.sampled else covering):
            raise _malformed(place, f"gates: it counts for {', '.join(covering) or 'none'}")
        try:
            outcome = Outcome(record.status, record.reason, record.detail)
        except ValueError as error:
            raise _malformed(place, str(error)) from None
        if not record.selected and record.reason is not Reason.NOT_RUN:
            raise _malformed(place, "an instance that was not selected is not-run")
        return InstanceOutcome(
            instance_id=record.id,
            relation=record.relation,
            category=record.category,
            seed=record.seed,
            outcome=outcome,
            gates=covering if record.gates == covering else drawn,
            selected=record.selected,
            request_key=record.request_key,
        )

    def _covering(self, relation: Relation, category: Category) -> tuple[str, ...]:
        """The gates whose population has such instances."""
        cell = relation, category
        if (known := self._cells.get(cell)) is None:
            like = Instance("", relation, category, "", "", ())
            criteria = (gate.criterion for gate in self._design.gates)
            known = tuple(c.label for c in criteria if c.covers(like))
            self._cells[cell] = known
        return known


def _malformed(place: str, problem: str) -> DataError:
    return DataError(one_line(f"{place}: {problem}", 400))
