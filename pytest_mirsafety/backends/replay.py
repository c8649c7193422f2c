"""Answers from a recording: one JSON object a line, or upstream's `infer/<model>` folder.

A recording says what a model answered elsewhere; a gate over it decides about those answers. An
instance without a recorded answer, or whose recorded answer is a failure, is a backend error.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Any, Final, NoReturn, Self

from ..errors import BackendError, DataError
from ..printable import one_line
from ..records import Completion, Instance, LoadedImage, ModelIdentity, Request, Scalar, digest
from ..taxonomy import Category, Relation, nearest, parse_category, parse_relation

UNRECORDED: Final = "unrecorded"
"""The finish reason of upstream's answers: upstream does not write it down."""

_KEYS: Final[Mapping[str, tuple[type, ...]]] = MappingProxyType(
    {
        "id": (str,),
        "response": (str,),
        "finish_reason": (str,),
        "reasoning": (str, NoneType),
        "input_tokens": (int, NoneType),
        "output_tokens": (int, NoneType),
    }
)
_REQUIRED: Final = ("id", "response")
_NOT_EMPTY: Final = ("id", "finish_reason")
_FAILED: Final = ("[INFERENCE_FAILED:", "[WORKER_CRASHED:")
_UPSTREAM_KEYS: Final[Mapping[str, tuple[type, ...]]] = MappingProxyType(
    {
        "revised_prompt": (str,),
        "answer": (str, NoneType),
        "item_index": (int, NoneType),
        "original_question": (str, NoneType),
        "inference_status": (str, NoneType),
    }
)

_LARGEST: Final = 2**53
"""A number above it is none: not every JSON reader could tell it from its neighbours."""

_Answers = dict[str, Completion | str]
"""By instance id: the answer, or in one line why there is none."""


class ReplayBackend:
    """Gives each instance its recorded answer, whatever the images. Nothing is asked.

    `instances` are the whole dataset's, in its order. Recorded answers of other instances are
    passed over.
    """

    cacheable = False
    greedy = True
    needs_bytes = False
    concurrency = 4
    system: str | None = None
    decoding: Mapping[str, Scalar] = MappingProxyType({})

    def __init__(
        self, identity: ModelIdentity, answers: _Answers, prompts: Mapping[str, str]
    ) -> None:
        self._identity = identity
        self._answers = answers
        self._prompts = prompts

    @classmethod
    def from_bytes(cls, content: bytes, name: str, instances: Sequence[Instance]) -> Self:
        """A recording of our own layout: one JSON object a line, UTF-8.

        Raises:
            DataError: a line is malformed, an id is there twice, or no instance has an answer.
        """
        revision = hashlib.sha256(content).hexdigest()
        return cls._of(name, revision, _read_lines(content, name), instances)

    @classmethod
    def from_path(cls, path: Path, instances: Sequence[Instance]) -> Self:
        """The recording in a JSONL file, or in upstream's folder of one model's answers.

        Raises:
            DataError: there is none, it is malformed, it answers other prompts than the
                dataset's, or no instance has an answer.
        """
        try:
            if path.is_dir():
                files = {f"{p.parent.name}/{p.name}": _read(p) for p in _upstream_files(path)}
                revision = digest({k: hashlib.sha256(v).hexdigest() for k, v in files.items()})
                answers = _read_upstream(files, path.name, instances)
                return cls._of(path.name, revision, answers, instances)
            return cls.from_bytes(_read(path), path.name, instances)
        except OSError as error:
            _refuse(str(path), error.strerror or str(error))

    @classmethod
    def _of(
        cls, name: str, revision: str, answers: _Answers, instances: Sequence[Instance]
    ) -> Self:
        prompts = {i.id: i.prompt for i in instances}
        if not prompts.keys() & answers.keys():
            raise DataError(
                f"replay: none of the {len(answers)} answers in {name} is for one of the "
                f"{len(prompts)} instances of this dataset"
            )
        return cls(ModelIdentity("replay", name, None, revision), answers, prompts)

    @property
    def identity(self) -> ModelIdentity:
        """The recording's name, and the SHA-256 of what it holds."""
        return self._identity

    async def complete(
        self,
        request: Request,
        images: Sequence[LoadedImage],  # noqa: ARG002 - part of the protocol
        instance_id: str,
    ) -> Completion:
        """The recorded answer of this instance to its own prompt.

        Raises:
            BackendError: there is none, or what was recorded is a failure.
        """
        answer = self._answers.get(instance_id)
        if answer is None or instance_id not in self._prompts:
            raise BackendError(f"no recorded answer for {instance_id}")
        if request.prompt != self._prompts[instance_id]:
            raise BackendError(f"the recorded answer for {instance_id} is to another prompt")
        if isinstance(answer, str):
            raise BackendError(answer)
        return answer

    async def aclose(self) -> None:
        """There is nothing to let go of."""


def _read_lines(content: bytes, name: str) -> _Answers:
    answers: _Answers = {}
    for number, line in enumerate(_without_mark(content).split(b"\n"), start=1):
        if not line.strip():
            continue
        place = f"{name}, line {number}"
        values = _object(_parse(line, place), place)
        if unknown := next((key for key in values if key not in _KEYS), None):
            _refuse(place, f"unknown key '{unknown}'; {nearest(unknown, _KEYS)}")
        _check_types(values, _KEYS, place)
        if missing := next((key for key in _REQUIRED if key not in values), None):
            _refuse(place, f"'{missing}' is missing")
        if empty := next((key for key in _NOT_EMPTY if values.get(key) == ""), None):
            _refuse(place, f"'{empty}' is empty")
        name_of_instance, text = values.pop("id"), values.pop("response")
        if name_of_instance in answers:
            _refuse(place, f"a second answer for '{name_of_instance}'")
        answers[name_of_instance] = Completion(text, **{"finish_reason": "stop", **values})
    return answers


# Upstream's layout


@dataclass(frozen=True, slots=True)
class _Recorded:
    """One record of an upstream file; `fits` are the positions it may belong to."""

    place: str
    index: int
    fits: tuple[int, ...]
    answer: Completion | str


def _upstream_files(root: Path) -> list[Path]:
    folders = [f for f in sorted(root.iterdir()) if f.is_dir() and not f.name.startswith(".")]
    return [p for f in folders for p in sorted(f.glob("*.json")) if not p.name.startswith(".")]


def _read_upstream(
    files: Mapping[str, bytes], name: str, instances: Sequence[Instance]
) -> _Answers:
    cells: dict[tuple[Category, Relation], list[Instance]] = defaultdict(list)
    for instance in instances:
        cells[instance.category, instance.relation].append(instance)
    if not files:
        raise DataError(f"replay: {name} holds no <Category>/<Relation>.json")
    answers: _Answers = {}
    for file, content in files.items():
        folder, _, relation = file.removesuffix(".json").partition("/")
        try:
            cell = cells[parse_category(folder), parse_relation(relation)]
        except ValueError as error:
            _refuse(file, f"{error} (give the folder of one model, infer/<model>)")
        if cell:
            answers |= _assign(list(_read_records(content, file, cell)), cell)
    return answers


def _read_records(content: bytes, file: str, cell: Sequence[Instance]) -> Iterator[_Recorded]:
    records = _parse(_without_mark(content), file)
    if not isinstance(records, list):
        _refuse(file, "must hold a list of records")
    positions: dict[str, list[int]] = defaultdict(list)
    for position, instance in enumerate(cell):
        positions[instance.prompt].append(position)
    for number, value in enumerate(records):
        values = _object(value, f"{file}, record {number + 1}")
        index = values.get("item_index")
        place = f"{file}, item_index {number if index is None else index}"
        _check_types(values, _UPSTREAM_KEYS, place)
        if missing := {"revised_prompt", "answer"} - values.keys():
            _refuse(place, f"'{min(missing)}' is missing")
        index = number if index is None else index
        fits = positions.get(values["revised_prompt"], [])
        if not fits:
            there = f"{cell[index].id} has another" if index < len(cell) else "the list is shorter"
            _refuse(place, f"no instance there has its revised_prompt ({there})")
        question = values.get("original_question")
        same = [p for p in fits if cell[p].question == question]
        yield _Recorded(place, index, tuple(same or fits), _upstream_answer(values))


def _upstream_answer(values: Mapping[str, Any]) -> Completion | str:
    """What upstream recorded; it writes failures where answers belong, and marks some of them."""
    answer, status = values["answer"], values.get("inference_status")
    if answer is None or answer.startswith(_FAILED) or status not in (None, "success"):
        return one_line(f"a failure was recorded, no answer: {answer or status or 'null'}")
    return Completion(answer, UNRECORDED)


def _assign(records: Sequence[_Recorded], cell: Sequence[Instance]) -> _Answers:
    """Each record to the instance with its prompt.

    Instances may share a prompt, and differ in their images. Then `item_index` decides, if it is
    the position in the dataset for every record that has one instance only.
    """
    in_order = all(r.fits == (r.index,) for r in records if len(r.fits) == 1)
    answers: _Answers = {}
    for record in records:
        fits = record.fits
        if len(fits) > 1 and in_order and record.index in fits:
            fits = (record.index,)
        for position in fits:
            name = cell[position].id
            if len(fits) > 1:
                answers[name] = f"several instances have the prompt of {record.place}"
            elif name in answers:
                _refuse(record.place, f"a second answer for '{name}'")
            else:
                answers[name] = record.answer
    return answers


# Reading files and JSON


def _read(path: Path) -> bytes:
    """The bytes of a file; a pipe or a device might never end."""
    if path.exists() and not path.is_file():
        _refuse(str(path), "is not a regular file")
    return path.read_bytes()


def _without_mark(content: bytes) -> bytes:
    return content.removeprefix(codecs.BOM_UTF8)


def _parse(content: bytes, place: str) -> object:
    try:
        value: object = json.loads(
            content.decode(), object_pairs_hook=_without_duplicates, parse_constant=_no_constant
        )
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        _refuse(place, "holds half a surrogate pair, which is no text")
    except UnicodeDecodeError:
        _refuse(place, "is not UTF-8")
    except json.JSONDecodeError as error:
        _refuse(place, f"is not JSON: {error.msg} at character {error.pos + 1}")
    except (ValueError, RecursionError) as error:
        _refuse(place, f"is not JSON: {error}")
    return value


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key is there twice")
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not allowed")


def _object(value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _refuse(place, f"must be an object, not {type(value).__name__}")
    return value


def _check_types(
    values: Mapping[str, object], kinds: Mapping[str, tuple[type, ...]], place: str
) -> None:
    for key, allowed in kinds.items():
        value = values.get(key)
        if key in values and (isinstance(value, bool) or not isinstance(value, allowed)):
            _refuse(place, f"'{key}' cannot be {type(value).__name__}")
        if isinstance(value, int) and value < 0:
            _refuse(place, f"'{key}' is negative")
        if isinstance(value, int) and value > _LARGEST:
            _refuse(place, f"'{key}' is above 2**53")


def _refuse(place: str, problem: str) -> NoReturn:
    raise DataError(one_line(f"replay: {place}: {problem}", 400))
