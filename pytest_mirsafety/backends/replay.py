"""Answers from a recording: one JSON object a line, or upstream's `infer/<model>` folder.

A recording says what a model answered elsewhere; a gate over it decides about those answers. A
recorded failure is a backend error, as is an instance that a file has no line for. One that
upstream's folder has no record of was not run there.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Any, Final, Self

from ..digests import digest
from ..errors import BackendError, DataError, NotRunError, UnscoredError
from ..printable import one_line
from ..recordings import Recording, is_failure, without_mark
from ..records import Completion, Instance, LoadedImage, ModelIdentity, Request, Scalar
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
_UPSTREAM_KEYS: Final[Mapping[str, tuple[type, ...]]] = MappingProxyType(
    {
        "revised_prompt": (str,),
        "answer": (str, NoneType),
        "item_index": (int, NoneType),
        "original_question": (str, NoneType),
        "inference_status": (str, NoneType),
    }
)

_ARM: Final = "@"
"""Stands between an id of the dataset and the arm, and in no id of a dataset."""

_RECORDING: Final = Recording("replay")

_Answers = dict[str, Completion | str]
"""By instance id: the answer, or in one line why there is none."""


class ReplayBackend:
    """Gives each instance its recorded answer, whatever the images. Nothing is asked.

    `instances` are the whole dataset's, in its order, and those of the arms that are asked, whose
    ids are `ID@ARM`. Recorded answers of other instances, and of arms that nobody asks, are passed
    over. Upstream's folder has answers to the dataset's own instances only.
    """

    cacheable = False
    recorded = True
    greedy = True
    needs_bytes = False
    concurrency = 4
    system: str | None = None
    decoding: Mapping[str, Scalar] = MappingProxyType({})

    def __init__(
        self,
        identity: ModelIdentity,
        answers: _Answers,
        prompts: Mapping[str, str],
        missing: type[UnscoredError] = BackendError,
    ) -> None:
        self._identity = identity
        self._answers = answers
        self._prompts = prompts
        self._missing = missing

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
                files = _RECORDING.read_cells(path)
                revision = digest({k: hashlib.sha256(v).hexdigest() for k, v in files.items()})
                answers = _read_upstream(files, path.name, instances)
                return cls._of(path.name, revision, answers, instances, NotRunError)
            return cls.from_bytes(_RECORDING.read(path), path.name, instances)
        except OSError as error:
            _RECORDING.refuse(str(path), error.strerror or str(error))

    @classmethod
    def _of(
        cls,
        name: str,
        revision: str,
        answers: _Answers,
        instances: Sequence[Instance],
        missing: type[UnscoredError] = BackendError,
    ) -> Self:
        prompts = {i.id: i.prompt for i in instances}
        if not prompts.keys() & answers.keys():
            raise DataError(
                f"replay: none of the {len(answers)} answers in {name} is for one of the "
                f"{len(prompts)} instances of this dataset"
            )
        return cls(ModelIdentity("replay", name, None, revision), answers, prompts, missing)

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
            NotRunError: upstream's folder has no record of it.
        """
        answer = self._answers.get(instance_id)
        if answer is None or instance_id not in self._prompts:
            raise self._missing(f"no recorded answer for {instance_id}")
        if request.prompt != self._prompts[instance_id]:
            raise BackendError(f"the recorded answer for {instance_id} is to another prompt")
        if isinstance(answer, str):
            raise BackendError(answer)
        return answer

    async def aclose(self) -> None:
        """There is nothing to let go of."""


def _read_lines(content: bytes, name: str) -> _Answers:
    answers: _Answers = {}
    for number, line in enumerate(without_mark(content).split(b"\n"), start=1):
        if not line.strip():
            continue
        place = f"{name}, line {number}"
        values = _RECORDING.parse_object(_RECORDING.parse(line, place), place)
        if unknown := next((key for key in values if key not in _KEYS), None):
            _RECORDING.refuse(place, f"unknown key '{unknown}'; {nearest(unknown, _KEYS)}")
        _RECORDING.check_types(values, _KEYS, place)
        if missing := next((key for key in _REQUIRED if key not in values), None):
            _RECORDING.refuse(place, f"'{missing}' is missing")
        if empty := next((key for key in _NOT_EMPTY if values.get(key) == ""), None):
            _RECORDING.refuse(place, f"'{empty}' is empty")
        name_of_instance, text = values.pop("id"), values.pop("response")
        if name_of_instance in answers:
            _RECORDING.refuse(place, f"a second answer for '{name_of_instance}'")
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


def _read_upstream(
    files: Mapping[str, bytes], name: str, instances: Sequence[Instance]
) -> _Answers:
    cells: dict[tuple[Category, Relation], list[Instance]] = defaultdict(list)
    for instance in instances:
        if _ARM not in instance.id:  # an arm has no place in upstream's order
            cells[instance.category, instance.relation].append(instance)
    if not files:
        raise DataError(f"replay: {name} holds no <Category>/<Relation>.json")
    answers: _Answers = {}
    for file, content in files.items():
        folder, _, relation = file.removesuffix(".json").partition("/")
        try:
            cell = cells[parse_category(folder), parse_relation(relation)]
        except ValueError as error:
            _RECORDING.refuse(file, f"{error} (give the folder of one model, infer/<model>)")
        if cell:
            found = _assign(list(_read_records(content, file, cell)), cell)
            if twice := found.keys() & answers.keys():  # two spellings of one relation
                _RECORDING.refuse(file, f"a second answer for '{min(twice)}'")
            answers |= found
    return answers


def _read_records(content: bytes, file: str, cell: Sequence[Instance]) -> Iterator[_Recorded]:
    records = _RECORDING.parse(without_mark(content), file)
    if not isinstance(records, list):
        _RECORDING.refuse(file, "must hold a list of records")
    positions: dict[str, list[int]] = defaultdict(list)
    for position, instance in enumerate(cell):
        positions[instance.prompt].append(position)
    for number, value in enumerate(records):
        values = _RECORDING.parse_object(value, f"{file}, record {number + 1}")
        index = values.get("item_index")
        place = f"{file}, item_index {number if index is None else index}"
        _RECORDING.check_types(values, _UPSTREAM_KEYS, place)
        if missing := {"revised_prompt", "answer"} - values.keys():
            _RECORDING.refuse(place, f"'{min(missing)}' is missing")
        index = number if index is None else index
        fits = positions.get(values["revised_prompt"], [])
        if not fits:
            there = f"{cell[index].id} has another" if index < len(cell) else "the list is shorter"
            _RECORDING.refuse(place, f"no instance there has its revised_prompt ({there})")
        question = values.get("original_question")
        same = [p for p in fits if cell[p].question == question]
        yield _Recorded(place, index, tuple(same or fits), _upstream_answer(values))


def _upstream_answer(values: Mapping[str, Any]) -> Completion | str:
    """What upstream recorded; it writes failures where answers belong, and marks some of them."""
    answer, status = values["answer"], values.get("inference_status")
    if answer is None or is_failure(answer) or status not in (None, "success"):
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
                _RECORDING.refuse(record.place, f"a second answer for '{name}'")
            else:
                answers[name] = record.answer
    return answers
