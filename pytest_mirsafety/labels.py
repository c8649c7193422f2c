"""Labels by people, as a file of JSON lines that can be versioned: one label a line, in order.

The file only grows. To take a label back is a line of its own, `"label": "retracted"`: a crash
loses nothing, and what was said and taken back can be seen.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, BinaryIO, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import DataError
from .labelling import DRAW_SEED, Label, LabelKind
from .printable import one_line
from .records import VerdictKind
from .whole_files import cannot_write

RETRACTED: Final = "retracted"
"""What a line says that takes back its reviewer's last label of the answer."""

_LINE_LIMIT: Final = 64 * 2**10
_MOST_BESIDE: Final = 100
_BESIDE_BYTES: Final = 64 * 2**20
_BEGINS: Final = b'{"id": '
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Line(BaseModel):
    """One line of the file, by the names that it uses."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    id: Annotated[str, Field(pattern="^[A-Za-z0-9._/-]{1,200}$")]
    request_key: _Digest
    answer: _Digest
    label: Literal["safe", "unsafe", "unsure", "retracted"]
    reviewer: Annotated[str, Field(min_length=1, max_length=200)]
    labelled: Annotated[float, Field(ge=0, lt=2.0**36)]
    run: _Digest
    judge: Annotated[str, Field(min_length=1, max_length=4000)]
    verdict: VerdictKind
    probability: Annotated[float, Field(gt=0, le=1)] | None
    blind: bool
    seed: Annotated[str, Field(max_length=200)] | None = None


def read(path: Path) -> list[Label]:
    """The labels of a file, in its order, without those that were taken back.

    A last line that was cut off as it was written is none: nobody was told that it is kept.

    Raises:
        DataError: it cannot be read, or a line is no label; the message names the line.
    """
    try:
        with path.open("rb") as file:
            content = file.read()
    except OSError as error:
        problem = error.strerror or str(error)
        raise DataError(one_line(f"{path}: cannot be read: {problem}", 400)) from None
    lines = content.splitlines()
    if _is_cut_off(content):
        lines.pop()
    standing: list[Label] = []
    for label, retracted in _lines(lines, one_line(str(path))):
        if not retracted:
            standing.append(label)
        elif (last := _last(standing, label)) is not None:
            del standing[last]
    return standing


def of_another_draw(path: Path, run: str, seed: str) -> list[str]:
    """Files beside this one with labels of this run that were drawn by another seed, by name.

    What is no file of labels is passed over.
    """
    try:
        files = sorted(path.parent.glob("*.jsonl"))[:_MOST_BESIDE]
    except OSError:
        return []
    return [one_line(other.name, 100) for other in files if _is_of(other, path, run, seed)]


def _is_of(other: Path, path: Path, run: str, seed: str) -> bool:
    try:
        if other.resolve() == path.resolve() or other.stat().st_size > _BESIDE_BYTES:
            return False
        found = read(other)
    except (DataError, OSError):
        return False
    drawn = (label for label in found if label.run == run and label.probability is not None)
    return any((DRAW_SEED if label.seed is None else label.seed) != seed for label in drawn)


def effective(labels: Iterable[Label]) -> list[Label]:
    """What counts of these labels: of each reviewer the last one on each answer of a run.

    They keep their order. Labels of one answer by several reviewers all count.
    """
    last: dict[object, Label] = {}
    for label in labels:
        key = subject(label), label.reviewer
        last.pop(key, None)  # so that it takes the place of the later one
        last[key] = label
    return list(last.values())


def subject(label: Label) -> tuple[str, str, str, str]:
    """What a label is on: the answer to a request for an instance, in a run."""
    return label.run, label.instance_id, label.request_key, label.answer


def append(path: Path, label: Label) -> None:
    """Add a label to the file, which is made if it is not there; on disk when this returns.

    Raises:
        ConfigurationError: it cannot be written.
    """
    _add(path, to_line(label))


def retract(path: Path, label: Label, when: float) -> None:
    """Take back a label that stands in the file; on disk when this returns.

    `when` is in seconds since the epoch.

    Raises:
        ConfigurationError: it cannot be written.
    """
    _add(path, _to_line(replace(label, labelled=when), RETRACTED))


def to_line(label: Label) -> str:
    """A label as a line of the file, with its end."""
    return _to_line(label, label.kind)


class LabelFile:
    """A file of labels that grows while it is read, by several threads and processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._standing: list[Label] = []

    def standing(self) -> list[Label]:
        """The labels that count now; none while there is no file.

        Raises:
            DataError: it cannot be read, or a line is no label.
        """
        with self._lock:
            try:
                found = self.path.stat()
            except OSError:
                return []
            stamp = found.st_mtime_ns, found.st_size
            if stamp != self._stamp:
                self._standing, self._stamp = effective(read(self.path)), stamp
            return list(self._standing)

    def append(self, label: Label) -> None:
        """Add a label; on disk when this returns.

        Raises:
            ConfigurationError: it cannot be written.
        """
        with self._lock:
            append(self.path, label)

    def retract(self, label: Label, when: float) -> None:
        """Take a label back; on disk when this returns.

        Raises:
            ConfigurationError: it cannot be written.
        """
        with self._lock:
            retract(self.path, label, when)


def _to_line(label: Label, word: str) -> str:
    record = {
        "id": label.instance_id,
        "request_key": label.request_key,
        "answer": label.answer,
        "label": word,
        "reviewer": label.reviewer,
        "labelled": label.labelled,
        "run": label.run,
        "judge": label.judge,
        "verdict": label.verdict,
        "probability": label.probability,
        "blind": label.blind,
        **({} if label.seed is None else {"seed": label.seed}),
    }
    return json.dumps(record, ensure_ascii=True) + "\n"


def _add(path: Path, line: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = not path.exists()
        with path.open("a+b") as file, _alone(file):
            _mend(file)
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        if fresh:
            _keep_name(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from None


@contextmanager
def _alone(file: BinaryIO) -> Iterator[None]:
    """Let no other process that uses this module write meanwhile."""
    if sys.platform == "win32":  # has no such lock; a line is written in one go there too
        yield
        return
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _keep_name(folder: Path) -> None:
    """A new file's name survives a crash only once its folder is on disk."""
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _mend(file: BinaryIO) -> None:
    """Take away a last line that was cut off, and end one that only lacks its end."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _LINE_LIMIT))
    tail = file.read()
    if _is_cut_off(tail):
        file.truncate(size - len(tail.splitlines()[-1]))
    elif tail and not tail.endswith(b"\n"):
        file.write(b"\n")


def _is_cut_off(content: bytes) -> bool:
    """The last line is the beginning of one of ours, but not all of it."""
    if not content or content.endswith(b"\n"):
        return False
    last = content.splitlines()[-1]
    try:
        json.loads(last)
    except ValueError:
        return last.startswith(_BEGINS) or _BEGINS.startswith(last)
    return False


def _last(standing: list[Label], label: Label) -> int | None:
    """The place of the last label by the same reviewer on the same answer."""
    wanted = subject(label), label.reviewer
    places = reversed(range(len(standing)))
    return next((n for n in places if (subject(standing[n]), standing[n].reviewer) == wanted), None)


def _lines(lines: list[bytes], name: str) -> Iterator[tuple[Label, bool]]:
    """Each label, and whether its line takes it back."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _label(line, f"{name}, line {number}")


def _label(line: bytes, place: str) -> tuple[Label, bool]:
    if len(line) > _LINE_LIMIT:
        raise DataError(f"{place}: is longer than {_LINE_LIMIT} bytes, as no label is")
    try:
        found = _Line.model_validate_json(line)
        retracted = found.label == RETRACTED
        label = Label(
            instance_id=found.id,
            request_key=found.request_key,
            answer=found.answer,
            kind=LabelKind.UNSURE if found.label == RETRACTED else LabelKind(found.label),
            reviewer=found.reviewer,
            labelled=found.labelled,
            run=found.run,
            judge=found.judge,
            verdict=found.verdict,
            probability=found.probability,
            blind=found.blind,
            seed=found.seed,
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        problem = f"{key}: {first['msg']}" if key else first["msg"]
        raise DataError(one_line(f"{place}: no label: {problem}", 400)) from None
    except ValueError as error:
        raise DataError(one_line(f"{place}: no label: {error}", 400)) from None
    return label, retracted
