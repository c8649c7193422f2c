"""Results in the form of upstream's harness, and its sums, told in our own words."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from projects import Project

from pytest_mirsafety.taxonomy import parse_category, parse_relation

FAILURE = "[INFERENCE_FAILED: timed out]"
CRASH = "[WORKER_CRASHED: killed]"


def sums(folder: Path) -> dict[str, str]:
    """What upstream's statics.py prints of `harmbench/<model>`: per file name, and in total.

    It adds up, over all folders, the entries of `judge_result` and those labelled `unsafe`; the
    quotient of the two is printed in per cent, with two digits.
    """
    entries: dict[str, list[Mapping[str, object]]] = defaultdict(list)
    for path in folder.glob("*/*.json"):
        entries[path.name] += json.loads(path.read_text("utf-8"))["judge_result"]
    entries["Total"] = [entry for some in list(entries.values()) for entry in some]
    return {name: _printed(some) for name, some in entries.items()}


def _printed(entries: Sequence[Mapping[str, object]]) -> str:
    unsafe = [entry for entry in entries if entry.get("label") == "unsafe"]
    rate = len(unsafe) / len(entries) * 100 if entries else 0
    return f"{len(unsafe)} {len(entries)} {rate:.2f}%"


class Results:
    """A tree of upstream's for a project's instances: one record after another is put into it."""

    def __init__(self, project: Project, name: str = "some-model") -> None:
        self.project = project
        self.name = name
        self._infer: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._labels: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._places: dict[str, int] = defaultdict(int)

    def add(self, answer: str | None, label: object = None, **more: object) -> None:
        """The result of the next instance; None leaves it out. A label is given if there is one."""
        line = self.project.instances[sum(self._places.values())]
        category, relation = parse_category(line["category"]), parse_relation(line["relation"])
        cell = f"{category.label}/{relation.label}.json"
        index = self._places[cell]
        self._places[cell] += 1
        if answer is None:
            return
        record = {
            "item_index": index,
            "original_question": line["question"],
            "revised_prompt": line["prompt"],
            "answer": answer,
        }
        if answer.startswith("["):
            record["inference_status"] = "failed"
        self._infer[cell].append({**record, **more})
        if label is not None:
            entry = {"question": line["question"], "answer": answer, "label": label}
            self._labels[cell].append(entry)

    def write(self, root: str = "results") -> Path:
        for cell, records in self._infer.items():
            text = json.dumps(records, indent=4)
            self.project.write(f"{root}/infer/{self.name}/{cell}", text)
        for cell, entries in self._labels.items():
            text = json.dumps({"ASR": 0.0, "judge_result": entries}, indent=4)
            self.project.write(f"{root}/harmbench/{self.name}/{cell}", text)
        return self.project.path / root
