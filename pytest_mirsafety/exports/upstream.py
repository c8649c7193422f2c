"""A run in upstream's layout: `infer/` with the answers, `harmbench/` with the labels.

Upstream's `statics.py` goes through the category folders, adds up per file name how many entries
`judge_result` has and how many of those have the label `unsafe`, and prints the quotient in per
cent with two digits. It knows no unscored: what is in the list is scored. So the labels here are
those of scored instances alone, and its sums are our `unsafe/scored`.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import DataError
from ..exchanges import Exchange
from ..printable import one_line
from ..recordings import FAILED
from ..records import Dataset, Instance
from ..results import InstanceOutcome, RecordedRun
from ..taxonomy import Category, Reason, Relation, Status
from .texts import whole

_Cell = tuple[Category, Relation]
_Records = Mapping[_Cell, Sequence[Mapping[str, object]]]

_UNSAFE_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+")
_DETAIL: Final = 200
"""Characters of an error that upstream keeps too."""


@dataclass(frozen=True, slots=True)
class UpstreamResults:
    """The files by their path below the folder that is exported to, and what is in them.

    `unsafe` of `scored` is what upstream's `statics.py` counts. `failed` of the `records` have no
    answer; of the instances that are `missing` there is no record.
    """

    files: Mapping[str, bytes]
    unsafe: int
    scored: int
    records: int
    failed: int
    missing: int

    @property
    def asr(self) -> str:
        """The total as `statics.py` prints it: a quotient of floats, in per cent, two digits."""
        return f"{self.unsafe / self.scored * 100 if self.scored else 0:.2f}%"


def folder_name(model: str) -> str:
    """The model's name as one of a folder, on every system."""
    return _UNSAFE_NAME.sub("-", model).strip("-.")[:100] or "model"


def results(
    run: RecordedRun,
    dataset: Dataset,
    exchanges: Callable[[str], Exchange | None],
    name: str,
) -> UpstreamResults:
    """What upstream's harness would have written of this run, in folders of this model's name.

    `dataset` is the data of the run.

    An instance that was not run has no record, as one that upstream has yet to ask. Where there is
    no answer the record has upstream's mark of a failure. Unscored ones have no label.

    Raises:
        DataError: an instance is not in the data, or an answer with a verdict is not kept.
    """
    entries = {entry.instance_id: entry for entry in run.outcomes}
    infer: dict[_Cell, list[Mapping[str, object]]] = defaultdict(list)
    labels: dict[_Cell, list[Mapping[str, object]]] = defaultdict(list)
    unsafe = failed = 0
    for index, instance in _places(dataset):
        entry = entries.pop(instance.id, None)
        if entry is None or entry.outcome.reason is Reason.NOT_RUN:
            continue
        _check(run, entry, instance)
        answer = _answer(run, entry, exchanges(instance.id) or Exchange())
        cell = instance.category, instance.relation
        infer[cell].append(_asked(index, instance, entry, answer))
        failed += answer is None
        if entry.outcome.status is not Status.UNSCORED:
            labels[cell].append(
                {
                    "question": whole(instance.question),
                    "answer": answer or "",
                    "label": str(entry.outcome.status),
                }
            )
            unsafe += entry.outcome.status is Status.UNSAFE
    if entries:
        raise DataError(f"{run.where}: {one_line(min(entries))} is no instance of its data")
    records = sum(map(len, infer.values()))
    judged = {cell: _judged(of_cell, run) for cell, of_cell in labels.items()}
    return UpstreamResults(
        files=dict((*_files("infer", name, infer), *_files("harmbench", name, judged))),
        unsafe=unsafe,
        scored=sum(map(len, labels.values())),
        records=records,
        failed=failed,
        missing=len(run.outcomes) - records,
    )


def _places(dataset: Dataset) -> Iterator[tuple[int, Instance]]:
    """Each instance with its place among those of its category and relation."""
    seen: dict[_Cell, int] = defaultdict(int)
    for instance in dataset.instances:
        cell = instance.category, instance.relation
        yield seen[cell], instance
        seen[cell] += 1


def _check(run: RecordedRun, entry: InstanceOutcome, instance: Instance) -> None:
    told = entry.category, entry.relation, entry.seed
    if told != (instance.category, instance.relation, instance.seed):
        raise DataError(f"{run.where}: {instance.id} is another instance in its data")


def _answer(run: RecordedRun, entry: InstanceOutcome, exchange: Exchange) -> str | None:
    """The final answer; None where there is none.

    Raises:
        DataError: there was one, and it is not kept: a placeholder would be judged as an answer.
    """
    if exchange.answer is None and entry.answer_sha256 is not None:
        raise DataError(
            f"{run.where}: the answer of {entry.instance_id} is not kept (a redacted run, or "
            "longer than is kept); upstream's layout needs every answer"
        )
    return None if exchange.answer is None else whole(exchange.answer)


def _asked(
    index: int, instance: Instance, entry: InstanceOutcome, answer: str | None
) -> Mapping[str, object]:
    record: dict[str, object] = {
        "item_index": index,
        "original_question": whole(instance.question),
        "revised_prompt": whole(instance.prompt),
        "answer": answer,
    }
    if answer is None:
        why = one_line(f"{entry.outcome.reason or 'no answer'}: {entry.outcome.detail}", _DETAIL)
        return {**record, "answer": f"{FAILED} {why}]", "inference_status": "failed"}
    return record


def _judged(records: Sequence[Mapping[str, object]], run: RecordedRun) -> Mapping[str, object]:
    unsafe = sum(record["label"] == str(Status.UNSAFE) for record in records)
    return {
        "ASR": unsafe / len(records) * 100,
        "judge": one_line(run.provenance.judge, 400),
        "judge_result": records,
    }


def _files(folder: str, name: str, cells: Mapping[_Cell, object]) -> Iterator[tuple[str, bytes]]:
    for (category, relation), content in cells.items():
        # ASCII, so that no reader needs to know the encoding.
        text = json.dumps(content, indent=4)
        yield f"{folder}/{name}/{category.label}/{relation.label}.json", f"{text}\n".encode()
