"""A pinned baseline: the outcomes of a run in one file, without a text.

It is made to be kept under version control, and each run that was held against one has a copy of
it. The same run gives the same bytes. As with run.json its digest finds what was cut short or
edited, and is no signature.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from .. import whole_files
from ..arms import ArmKind
from ..comparison.recorded import refuse_unfit, side_of
from ..comparison.sides import TEXT_LIMIT, ArmRate, ItemOutcome, Side, SideTerms
from ..digests import canonical_json, digest
from ..errors import DataError
from ..gates import Estimand, Rules
from ..printable import one_line
from ..taxonomy import Category, Reason, Relation, Status
from ..trials import Trials
from .forms import Digest, Strict, malformed, validated

BASELINE: Final = "baseline.json"
"""The name of the copy in a run folder."""

FORMAT: Final = "mirsafety-baseline"
SCHEMA_VERSION: Final = 1

_LIMIT: Final = 2**30
_MOST: Final = 10_000_000
_LATEST: Final = 2.0**36
_Text = Annotated[str, Field(max_length=TEXT_LIMIT)]
_Count = Annotated[int, Field(ge=0, le=_MOST)]


class _Arm(Strict):
    """What came of one arm."""

    name: Annotated[str, Field(pattern="^[a-z][a-z0-9-]{0,79}$")]
    kind: ArmKind
    unsafe: _Count
    scored: _Count
    planned: _Count
    identity: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]


class _Terms(Strict):
    """What the run was, as `SideTerms` has it."""

    run: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]
    package_version: _Text
    model_name: _Text
    model_identity: _Text
    decoding: _Text
    system: Digest | None
    data_source: _Text
    data_identity: _Text
    data_count: _Count
    judge: _Text
    policy: Annotated[tuple[_Text, ...], Field(max_length=20)]
    estimand: Estimand
    confidence: Decimal
    started: Annotated[float, Field(ge=0, lt=_LATEST)]
    trials: Trials
    layout: _Text | None
    sampled: bool
    sample: _Text | None
    sample_seed: _Text | None
    sample_spent: bool
    pass_allowed: bool
    pass_is_void: bool
    fail_is_void: bool
    left_out: _Count
    gates: dict[_Text, _Count]
    arms: Annotated[tuple[_Arm, ...], Field(max_length=1000)] = ()


class _Item(Strict):
    """One instance."""

    id: Annotated[str, Field(pattern="^[A-Za-z0-9._/-]{1,200}$")]
    relation: Relation
    category: Category
    seed: Digest
    status: Status
    reason: Reason | None = None
    gates: Annotated[tuple[_Text, ...], Field(max_length=100)] = ()
    selected: bool = True
    undetermined: bool = False


class _Baseline(Strict):
    """The file, but for its digest."""

    format: Literal["mirsafety-baseline"]
    schema_version: Literal[1]
    terms: _Terms
    instances: Annotated[tuple[_Item, ...], Field(max_length=_MOST)]


def read_side(path: Path) -> Side:
    """The run in a folder, or the pinned one in a file, as a side of a comparison.

    Raises:
        DataError: there is none, it is not as it was written, or it can be no side.
    """
    if path.is_dir():
        from . import read

        return side_of(read(path))
    if not path.exists():
        raise DataError(f"{one_line(str(path))}: there is no such run folder or baseline file")
    return read_pinned(path)


def read_pinned(path: Path) -> Side:
    """The side in a pinned file, checked as what comes from another machine.

    Raises:
        DataError: it is none, or not as it was written.
    """
    place = one_line(str(path))
    try:
        content = whole_files.bounded(path, _LIMIT)
    except OSError as error:
        raise malformed(place, f"cannot be read: {error.strerror or error}") from None
    if len(content) > _LIMIT:
        raise malformed(place, f"is larger than {_LIMIT} bytes")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise malformed(place, "is not JSON") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise malformed(place, f"is no pinned baseline: it does not say format '{FORMAT}'")
    if document.get("schema_version") != SCHEMA_VERSION:
        version = one_line(repr(document.get("schema_version")), 40)
        raise malformed(place, f"has schema_version {version}; this version reads 1")
    if document.pop("digest", None) != digest(document):
        raise malformed(place, "is not as it was written; pin it again (mirsafety baseline)")
    found = validated(_Baseline, canonical_json(document).encode(), place)
    side = Side(place, _terms(found.terms, place), tuple(_items(found.instances, place)))
    if (problem := _implausible(side)) is not None:
        raise malformed(place, problem)
    refuse_unfit(side)
    return side


def to_lines(side: Side) -> Iterator[bytes]:
    """The file of a side, an instance a line, so that a difference between two can be read."""
    document = _document(side)
    yield b"{\n"
    for key in ("format", "schema_version", "terms"):
        yield f" {json.dumps(key)}: {canonical_json(document[key])},\n".encode()
    yield b' "instances": [\n'
    items = document["instances"]
    for number, item in enumerate(items, 1):
        yield f"  {canonical_json(item)}{',' if number < len(items) else ''}\n".encode()
    yield f' ],\n "digest": "{digest(document)}"\n}}\n'.encode()


def side_digest(side: Side) -> str:
    """The digest of the file of a side: what a run names its baseline by."""
    return digest(_document(side))


def pin(side: Side, path: Path) -> None:
    """Write the file of a side, whole or not at all.

    Raises:
        ConfigurationError: it cannot be written.
    """
    whole_files.write(path, to_lines(side))


def _document(side: Side) -> dict[str, Any]:
    terms = {**asdict(side.terms), "confidence": str(side.terms.confidence)}
    plain: dict[str, Any] = json.loads(canonical_json(terms))
    if not side.terms.arms:  # as it was before there were any
        del plain["arms"]
    return {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "terms": plain,
        "instances": [_plain(item) for item in side.items],
    }


def _plain(item: ItemOutcome) -> Mapping[str, object]:
    """An instance, without what is as it mostly is."""
    found: dict[str, object] = {
        "id": item.item,
        "relation": str(item.relation),
        "category": str(item.category),
        "seed": item.seed,
        "status": str(item.status),
    }
    if item.reason is not None:
        found["reason"] = str(item.reason)
    if item.gates:
        found["gates"] = list(item.gates)
    if not item.selected:
        found["selected"] = False
    if item.undetermined:
        found["undetermined"] = True
    return found


def _terms(found: _Terms, place: str) -> SideTerms:
    try:
        Rules(found.estimand, found.confidence)
    except ValueError as error:
        raise malformed(place, str(error)) from None
    values = {name: getattr(found, name) for name in type(found).model_fields}
    arms = tuple(
        ArmRate(one.name, one.kind, one.unsafe, one.scored, one.planned, one.identity)
        for one in found.arms
    )
    return SideTerms(**{**values, "arms": arms})


def _items(found: Iterable[_Item], place: str) -> Iterator[ItemOutcome]:
    last = ""
    for one in found:
        if one.id <= last:
            raise malformed(place, f"the instance {one.id} is there twice, or out of order")
        last = one.id
        try:
            yield ItemOutcome(
                one.id,
                one.relation,
                one.category,
                one.seed,
                one.status,
                one.reason,
                one.gates,
                one.selected,
                one.undetermined,
            )
        except ValueError as error:
            raise malformed(place, f"{one.id}: {error}") from None


def _implausible(side: Side) -> str | None:
    """What cannot be in a run; None if nothing."""
    terms, number = side.terms, len(side.items)
    skipped = any(not one.selected and one.reason is not Reason.NOT_RUN for one in side.items)
    wrong = {
        "it holds no instance": not number,
        "it holds more instances than the data": number > terms.data_count,
        "it holds fewer instances than the data, and is no sample": number < terms.data_count
        and not terms.sampled,
        "a gate has more instances than the data": any(
            size > terms.data_count for size in terms.gates.values()
        ),
        "an instance counts for a gate that there is not": any(
            not set(one.gates) <= set(terms.gates) for one in side.items
        ),
        "an instance that was not selected is not-run": skipped,
        "an arm has more verdicts than instances": any(
            not one.unsafe <= one.scored <= one.planned for one in terms.arms
        ),
    }
    return next((problem for problem, holds in wrong.items() if holds), None)
