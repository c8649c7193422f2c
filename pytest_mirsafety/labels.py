"""Labels by people, as a file of JSON lines that can be versioned: one label a line, in order."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import ConfigurationError, DataError
from .printable import one_line
from .records import Label, LabelKind, VerdictKind

_LINE_LIMIT: Final = 64 * 2**10
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Line(BaseModel):
    """One line of the file, by the names that it uses."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    id: Annotated[str, Field(pattern="^[A-Za-z0-9._/-]{1,200}$")]
    request_key: _Digest
    answer: _Digest
    label: LabelKind
    reviewer: Annotated[str, Field(min_length=1, max_length=200)]
    labelled: Annotated[float, Field(ge=0, lt=2.0**36)]
    run: _Digest
    judge: Annotated[str, Field(min_length=1, max_length=4000)]
    verdict: VerdictKind
    probability: Annotated[float, Field(gt=0, le=1)] | None
    blind: bool


def read(path: Path) -> list[Label]:
    """The labels of a file, in its order.

    Raises:
        DataError: it cannot be read, or a line is no label; the message names the line.
    """
    try:
        with path.open("rb") as file:
            return list(_labels(file.read().splitlines(), one_line(str(path))))
    except OSError as error:
        problem = error.strerror or str(error)
        raise DataError(one_line(f"{path}: cannot be read: {problem}", 400)) from None


def append(path: Path, label: Label) -> None:
    """Add a label to the file, which is made if it is not there; on disk when this returns.

    Raises:
        ConfigurationError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(to_line(label).encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        problem = error.strerror or str(error)
        raise ConfigurationError(one_line(f"{path}: cannot be written: {problem}", 400)) from None


def to_line(label: Label) -> str:
    """A label as a line of the file, with its end."""
    record = {
        "id": label.instance_id,
        "request_key": label.request_key,
        "answer": label.answer,
        "label": label.kind,
        "reviewer": label.reviewer,
        "labelled": label.labelled,
        "run": label.run,
        "judge": label.judge,
        "verdict": label.verdict,
        "probability": label.probability,
        "blind": label.blind,
    }
    return json.dumps(record, ensure_ascii=True) + "\n"


def _labels(lines: list[bytes], name: str) -> Iterator[Label]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _label(line, f"{name}, line {number}")


def _label(line: bytes, place: str) -> Label:
    if len(line) > _LINE_LIMIT:
        raise DataError(f"{place}: is longer than {_LINE_LIMIT} bytes, as no label is")
    try:
        found = _Line.model_validate_json(line)
        return Label(
            instance_id=found.id,
            request_key=found.request_key,
            answer=found.answer,
            kind=found.label,
            reviewer=found.reviewer,
            labelled=found.labelled,
            run=found.run,
            judge=found.judge,
            verdict=found.verdict,
            probability=found.probability,
            blind=found.blind,
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        problem = f"{key}: {first['msg']}" if key else first["msg"]
        raise DataError(one_line(f"{place}: no label: {problem}", 400)) from None
    except ValueError as error:
        raise DataError(one_line(f"{place}: no label: {error}", 400)) from None
