"""run.json: what a run was to decide, of whom it was asked, where it ran, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, astuple
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from .. import whole_files
from ..arms import LONGEST, NAME, TWIN_SUFFIX, ArmKind, kind_of
from ..circumstances import Circumstances
from ..comparison.facts import regression_facts
from ..digests import digest
from ..errors import DataError
from ..facts import arms_facts, challenge_facts, gate_facts, provenance_facts, tally_facts
from ..gates.challenge import Challenge
from ..labelling import DRAW_SEED
from ..printable import one_line
from ..records import MULTI
from ..results import Provenance, RunDesign, RunResult
from .forms import (
    FORMAT,
    MANIFESTS,
    MOST_INSTANCES,
    SCHEMA_VERSION,
    Manifest,
    ManifestForm2,
    malformed,
    validated,
)

MANIFEST: Final = "run.json"

MANIFEST_LIMIT: Final = 16 * 2**20
_LATEST: Final = 2.0**36
_LONGEST_ARM: Final = LONGEST + len(TWIN_SUFFIX)
_MOST_USD: Final = 10**15


def pretty(document: Mapping[str, object]) -> bytes:
    """As run.json is written: ASCII, indented."""
    return json.dumps(document, indent=2, ensure_ascii=True, default=str).encode() + b"\n"


def document_of(
    result: RunResult,
    circumstances: Circumstances,
    sha256: str,
    flips: str | None,
    *,
    tests_failed: bool,
    exit_code: int,
) -> dict[str, object]:
    """run.json of this result; the digests are those of results.jsonl, and of flips.jsonl if it is.

    Of a run that searches nothing there is no key of it.
    """
    document: dict[str, object] = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "finished": True,
        "redacted": result.redacted,
        "design": _design(result.design),
        "provenance": provenance_facts(result.provenance),
        **asdict(circumstances),
        "notes": result.notes,
        "tests_failed": tests_failed,
        "exit_code": exit_code,
        "for_people": {
            **_told(result.provenance, circumstances),
            "ruling": result.ruling,
            "gates": [gate_facts(gate) for gate in result.gates],
            "overall": tally_facts(result.overall),
            "relations": [tally_facts(tally) for tally in result.relations],
            **arms_facts(result),
            "challenge": challenge_facts(result.design.rules.challenge),
            **regression_facts(result.regression),
        },
        "results": {"records": len(result.all_outcomes), "sha256": sha256},
    }
    if flips is not None:
        document["flips"] = {"records": len(result.flips), "sha256": flips}
    plain = json.loads(pretty(document))
    return {**plain, "digest": digest(plain)}


def _design(design: RunDesign) -> dict[str, object]:
    """Every field, but for those of a baseline, of arms and of a judge of twins without."""
    facts = asdict(design)
    if not design.rules.twins_screened:
        del facts["rules"]["twins_screened"]
    if design.baseline is None:
        del facts["baseline"], facts["regression"]
    if not design.arms:
        del facts["arms"]
    return facts


def _told(provenance: Provenance, circumstances: Circumstances) -> dict[str, object]:
    """Times as people write them, and what provenance has as text in its parts."""
    decoding = _parsed(provenance.decoding)
    return {
        "started": _written(provenance.started),
        "ended": None if circumstances.ended is None else _written(circumstances.ended),
        "decoding": decoding,
        "seeds": {
            "sample": provenance.sample_seed,
            "decoding": decoding.get("seed"),
            "labels": DRAW_SEED,
        },
    }


def _parsed(text: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _written(seconds: float) -> str:
    """Seconds since the epoch in ISO 8601, UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


_NO_FOLDER: Final = {
    FileNotFoundError: f"is no run folder: it has no {MANIFEST}",
    NotADirectoryError: "is a file: name the run folder (--mir-run)",
}


def read_manifest(path: Path, where: str) -> Manifest:
    """The manifest of a run that has ended, of whatever version.

    Raises:
        DataError: it is none, or not as it was written; the line names the file.
    """
    place = f"{where}/{MANIFEST}"
    try:
        content = whole_files.bounded(path, MANIFEST_LIMIT)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{where} {_NO_FOLDER[type(error)]}") from None
    except OSError as error:
        raise malformed(place, f"cannot be read: {error.strerror or error}") from None
    if len(content) > MANIFEST_LIMIT:
        raise malformed(place, f"is larger than {MANIFEST_LIMIT} bytes")
    try:
        document = json.loads(content)
        written = isinstance(document, dict) and document.pop("digest", None) == digest(document)
    except (ValueError, RecursionError):
        raise malformed(place, "is not JSON") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise malformed(place, f"is no run's: it does not say format '{FORMAT}'")
    if (version := document.get("schema_version")) not in tuple(MANIFESTS):
        *first, last = map(str, MANIFESTS)
        known = f"{', '.join(first)} and {last}"
        shown = one_line(repr(version), 40)
        raise malformed(place, f"has schema_version {shown}; this version reads {known}")
    if document.get("finished") is not True:
        raise malformed(place, "the run has not ended, or was killed; run it again")
    if not written:
        raise malformed(place, "is not as the run wrote it; run it again")
    form: type[Any] = MANIFESTS[version]
    manifest: Manifest = validated(form, content, place)
    if (problem := _implausible(manifest)) is not None:
        raise malformed(place, problem)
    return manifest


def _implausible(manifest: Manifest) -> str | None:
    """What cannot be in numbers that each are well-formed; None if nothing."""
    design, provenance, rules = manifest.design, manifest.provenance, manifest.design.rules
    total = sum(design.populations.values())
    gates = (*design.gates, *design.regression)
    increases = [gate.criterion.label for gate in design.regression]
    labels = [gate.criterion.label for gate in design.gates]
    asked = provenance.attempt, provenance.answers_asked, provenance.answers_from_store
    tokens = provenance.input_tokens, provenance.output_tokens
    told = (
        *(provenance.asked_input_tokens, provenance.asked_output_tokens),
        *(provenance.stored_input_tokens, provenance.stored_output_tokens),
        provenance.asked_without_usage,
        provenance.cost_usd or 0,
        *(number for one in provenance.usage.values() for number in astuple(one)),
    )
    times = [provenance.started, provenance.elapsed, provenance.oldest_answer or 0]
    if isinstance(manifest, ManifestForm2):
        times.append(manifest.ended or 0)
    sizes = [
        *design.populations.values(),
        *(gate.population for gate in gates if gate.criterion.kind is not ArmKind.TWIN),
    ]
    arms = {arm.name: arm.population for arm in design.arms}
    wrong = {
        "the counts of the relations do not add up to the data's": total != provenance.data_count,
        "it has too many instances": total > MOST_INSTANCES,
        "a gate or a relation has a count that cannot be": not all(0 <= n <= total for n in sizes),
        "an arm has another name or number of instances than it can have": len(arms)
        != len(design.arms)
        or MULTI in arms
        or any(arm.kind is not kind_of(arm.name) for arm in design.arms)
        or not all(NAME.fullmatch(name) and len(name) <= _LONGEST_ARM for name in arms)
        or not all(0 <= number <= MOST_INSTANCES for number in arms.values()),
        "a gate is about an arm that the run has not": any(
            gate.criterion.arm not in {MULTI, *arms} for gate in gates
        ),
        "a gate has more instances than its arm": any(
            gate.population > arms.get(gate.criterion.arm, total) for gate in gates
        ),
        "a gate is there twice": len(set(labels)) + len(set(increases)) != len(gates),
        "the rules are for another number of gates": rules.gates != max(1, len(gates)),
        "a mode cannot be held against a baseline": any(
            gate.criterion.mode is not None for gate in design.regression
        ),
        "a gate on an increase needs a baseline": bool(increases) and design.baseline is None,
        "the rules are not those of the report": (rules.estimand, rules.confidence)
        != (provenance.estimand, provenance.confidence),
        "a number is negative": min(*asked, *tokens, *told) < 0,
        "it cost more than there is": (provenance.cost_usd or 0) >= _MOST_USD,
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
