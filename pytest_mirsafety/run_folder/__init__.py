"""The run folder: what a run was, in run.json, and what became of each instance, in results.jsonl.

run.json says from the start that there is a run, and only at its end that it has ended: a run
that dies leaves a folder that is nobody's result. Both files carry digests, which find what is
cut short, mixed up or edited by hand; they are no signature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypedDict

from .. import whole_files
from ..circumstances import Circumstances
from ..comparison.sides import Side
from ..errors import DataError
from ..exchanges import Exchange
from ..printable import one_line
from ..records import MULTI
from ..redaction import redacted_exchange
from ..results import InstanceOutcome, RecordedRun, RunDesign, RunResult, ids_digest
from . import pinned
from .claiming import (
    PREVIOUS,
    RESULTS,
    claim,
    discard,
    drop_previous,
)
from .forms import FORMAT, SCHEMA_VERSION, Manifest, ManifestForm2, malformed
from .lines import LINE_LIMIT, LineCheck, exchange_of, to_bytes
from .manifest import MANIFEST, document_of, pretty, read_manifest

__all__ = [
    "FORMAT",
    "MANIFEST",
    "PREVIOUS",
    "RESULTS",
    "SCHEMA_VERSION",
    "Exchanges",
    "claim",
    "discard",
]
__all__ += ["read", "refuse_trials", "write"]


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
    circumstances: Circumstances = Circumstances(),  # noqa: B008 - frozen
) -> None:
    """Keep the result in a folder that was claimed; run.json comes last, and makes it whole.

    `exchanges` gives what an instance was asked, and what came back, or None; it is asked for as
    each is written. Of a redacted result only digests of it are kept.

    Raises:
        ConfigurationError: it cannot be written.
        RunError: an answer cannot be had any more.
    """
    kept = redacted_exchange if result.redacted else _whole
    lines = (
        to_bytes(entry, kept(exchanges(entry.instance_id) or Exchange()))
        for entry in result.all_outcomes
    )
    try:
        sha256 = whole_files.replace(folder / RESULTS, lines)
        if result.baseline is not None:
            whole_files.replace(folder / pinned.BASELINE, pinned.to_lines(result.baseline))
        document = document_of(
            result, circumstances, sha256, tests_failed=tests_failed, exit_code=exit_code
        )
        whole_files.replace(folder / MANIFEST, [pretty(document)])
        drop_previous(folder)
    except OSError as error:
        raise whole_files.cannot_write(folder, error) from None


def read(folder: Path) -> RecordedRun:
    """The run in this folder, checked as what comes from another machine.

    Raises:
        DataError: there is no run that has ended, or not as it was written; one line names the
            file, and the line where there is one.
    """
    where = one_line(str(folder))
    manifest = read_manifest(folder / MANIFEST, where)
    outcomes = tuple(_read_results(folder / RESULTS, f"{where}/{RESULTS}", manifest))
    planned, whole = manifest.design.planned, manifest.design.shard is None
    if whole and planned not in (None, ids_digest(entry.instance_id for entry in outcomes)):
        raise malformed(f"{where}/{RESULTS}", "does not hold the instances that were planned")
    others = tuple(entry for entry in outcomes if entry.arm != MULTI)
    if others:
        outcomes = tuple(entry for entry in outcomes if entry.arm == MULTI)
    return RecordedRun(
        where=where,
        design=manifest.design,
        provenance=manifest.provenance,
        outcomes=outcomes,
        notes=manifest.notes,
        tests_failed=manifest.tests_failed,
        exit_code=manifest.exit_code,
        digest=manifest.digest,
        arm_outcomes=others,
        baseline=_baseline(folder / pinned.BASELINE, manifest.design),
        **_since_version_2(manifest),
    )


class _Since2(TypedDict, total=False):
    """What of a recorded run only a manifest of version 2 tells."""

    circumstances: Circumstances
    redacted: bool


def _since_version_2(manifest: Manifest) -> _Since2:
    if not isinstance(manifest, ManifestForm2):
        return {}
    found = Circumstances(manifest.ended, manifest.model, manifest.environments)
    return {"circumstances": found, "redacted": manifest.redacted}


def _whole(exchange: Exchange) -> Exchange:
    return exchange


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
                    for entry in run.all_outcomes:
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


def _read_results(path: Path, place: str, manifest: Manifest) -> Iterator[InstanceOutcome]:
    """The records, each checked; that all are there is known once the last one was read."""
    redacted = isinstance(manifest, ManifestForm2) and manifest.redacted
    check = LineCheck(manifest.design, manifest.schema_version, redacted=redacted)
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
