"""Labels from upstream's `harmbench/<model>` folder: what another judge said of these answers."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from ..digests import digest, text_digest
from ..errors import DataError, JudgeError
from ..printable import one_line
from ..reasoning import DEFAULT, ReasoningMarkers, separate
from ..recordings import Recording, is_failure, without_mark
from ..records import Completion, Instance, Verdict, VerdictKind
from ..taxonomy import parse_category, parse_relation

_RECORDING: Final = Recording("labels")
_KEYS: Final[Mapping[str, tuple[type, ...]]] = {"question": (str,), "answer": (str,)}
_SAID: Final = {"safe": VerdictKind.SAFE, "unsafe": VerdictKind.UNSAFE}
_HINT: Final = "give the folder of one model, harmbench/<model>"

_Labels = dict[tuple[str, str], set[str]]
"""By the digests of question and answer: every label that this pair was given."""


class UpstreamJudge:
    """Says of an answer what is recorded of it; nothing is asked, and what has no label has none.

    A label other than `safe` and `unsafe`, or both of them for one pair, is UNDETERMINED. What
    upstream labelled though it was no answer but a failure is passed over.
    """

    screening = False
    cacheable = False
    concurrency = 4

    def __init__(self, identity: str, labels: _Labels) -> None:
        self.identity = identity
        self._labels = labels

    @classmethod
    def from_path(
        cls,
        root: Path,
        instances: Sequence[Instance],
        markers: Sequence[ReasoningMarkers] | None = None,
    ) -> Self:
        """The labels in a folder of one model; `instances` are the whole dataset's.

        `markers` are those of the model's reasoning, which the labelled answers may still have.

        Raises:
            DataError: there are none, they are malformed, or one is of no instance, or one more
                than there are instances for it.
        """
        try:
            files = _RECORDING.read_cells(root)
        except OSError as error:
            _RECORDING.refuse(str(root), error.strerror or str(error))
        labels: _Labels = defaultdict(set)
        for question, answer, label in _records(files, root, instances):
            separated = separate(Completion(answer, ""), DEFAULT if markers is None else markers)
            for text in {answer, separated.answer}:
                labels[text_digest(question), text_digest(text)].add(label)
        if not labels:
            raise DataError(
                one_line(f"labels: {root}: holds no label for an instance of this dataset", 400)
            )
        revision = digest({name: hashlib.sha256(b).hexdigest() for name, b in files.items()})
        return cls(f"upstream:{one_line(root.name, 80)}@{revision}", dict(labels))

    async def judge(self, question: str, answer: str) -> Verdict:
        """What is recorded of this answer to this question.

        Raises:
            JudgeError: nothing is.
        """
        found = self._labels.get((text_digest(question), text_digest(answer)))
        if found is None:
            raise JudgeError("no label is recorded for this answer")
        words = one_line(" and ".join(sorted(found)), 100)
        kind = _SAID.get(words, VerdictKind.UNDETERMINED)
        return Verdict(kind, self.identity, f"recorded: {words}")

    async def aclose(self) -> None:
        """There is nothing to let go of."""


def _records(
    files: Mapping[str, bytes], root: Path, instances: Iterable[Instance]
) -> Iterator[tuple[str, str, str]]:
    """Question, answer and label of each record of an answer.

    Raises:
        DataError: one is malformed, or of no instance.
    """
    cells: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for instance in instances:
        cells[instance.category, instance.relation][instance.question] += 1
    if not files:
        _RECORDING.refuse(str(root), f"holds no <Category>/<Relation>.json; {_HINT}")
    for file, content in files.items():
        folder, _, name = file.removesuffix(".json").partition("/")
        try:
            questions = cells.get((parse_category(folder), parse_relation(name)))
        except ValueError as error:
            _RECORDING.refuse(file, f"{error} ({_HINT})")
        if questions:
            yield from _of_cell(content, file, Counter(questions))


def _of_cell(content: bytes, file: str, left: Counter[str]) -> Iterator[tuple[str, str, str]]:
    """The records of one file; `left` is how many may have each question."""
    document = _RECORDING.parse_object(_RECORDING.parse(without_mark(content), file), file)
    records = document.get("judge_result")
    if not isinstance(records, list):
        _RECORDING.refuse(file, "has no list 'judge_result'")
    known = frozenset(left)
    for number, value in enumerate(records, start=1):
        place = f"{file}, record {number}"
        values: dict[str, Any] = _RECORDING.parse_object(value, place)
        if missing := next((key for key in _KEYS if values.get(key) is None), None):
            _RECORDING.refuse(place, f"'{missing}' is missing")
        _RECORDING.check_types(values, _KEYS, place)
        question, label = values["question"], values.get("label")
        if question not in known:
            _RECORDING.refuse(place, "no instance there has its question")
        left[question] -= 1
        if left[question] < 0:
            _RECORDING.refuse(place, "there are more labels for its question than instances")
        if not is_failure(values["answer"]):
            yield question, values["answer"], _word(label)


def _word(label: object) -> str:
    """A label that says something as it is; any other in quotes, so that it cannot be mistaken."""
    if label is None:
        return "none"
    if isinstance(label, str):
        return label if label in _SAID else f"'{one_line(label, 40)}'"
    return f"a {type(label).__name__}"
