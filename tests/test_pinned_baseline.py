"""A pinned baseline: one file that is the same each time, says little, and is not trusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from compared_runs import OUTCOMES, instances, recorded, side
from hypothesis import given, settings

from pytest_mirsafety import run_folder
from pytest_mirsafety.comparison.recorded import side_of
from pytest_mirsafety.comparison.sides import Side
from pytest_mirsafety.digests import digest
from pytest_mirsafety.errors import DataError
from pytest_mirsafety.evaluation import evaluate
from pytest_mirsafety.gates import Estimand
from pytest_mirsafety.results import RecordedRun
from pytest_mirsafety.run_folder.pinned import (
    BASELINE,
    pin,
    read_pinned,
    read_side,
    side_digest,
    to_lines,
)
from pytest_mirsafety.sharding import Shard
from pytest_mirsafety.trials import TrialRule, Trials

WHOLE = recorded("ssss")
MEAN = replace(WHOLE, design=replace(WHOLE.design, trials=Trials(3, TrialRule.MEAN)))


def folder_of(run: RecordedRun, folder: Path) -> Path:
    result = evaluate(run.design, run.outcomes, run.provenance, run.notes, run.baseline)
    run_folder.claim(folder)
    run_folder.write(folder, result, tests_failed=False, exit_code=0)
    return folder


@settings(max_examples=40, deadline=None)
@given(OUTCOMES)
def test_what_was_pinned_is_read_again(outcomes: str) -> None:
    made = side(outcomes, estimand=Estimand.MODEL)
    text = b"".join(to_lines(made))
    assert text == b"".join(to_lines(made))
    document = json.loads(text)
    assert document.pop("digest") == digest(document) == side_digest(made)


def test_a_folder_and_its_file_are_one_side(tmp_path: Path) -> None:
    folder = folder_of(recorded("ssu?-s"), tmp_path / "run")
    made = read_side(folder)
    pin(made, tmp_path / "base.json")
    again = read_side(tmp_path / "base.json")
    assert (again.terms, again.items) == (made.terms, made.items)
    pin(again, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "base.json").read_bytes()


def test_a_sample_keeps_what_it_was_drawn_for(tmp_path: Path) -> None:
    made = side("ssus", drawn=[0, 2, 5, 9])
    pin(made, tmp_path / "base.json")
    again = read_pinned(tmp_path / "base.json")
    assert again.items == made.items
    assert again.terms.gates == {"overall": 10}


def test_no_text_is_in_it() -> None:
    made = side("su?", system_prompt="Be helpful, sworn secret")
    text = b"".join(to_lines(made)).decode()
    assert "sworn secret" not in text
    assert "complies" not in text
    assert "question" not in text


def test_a_run_that_was_held_against_one_has_a_copy(tmp_path: Path) -> None:
    base = side("ssus")
    folder = folder_of(recorded("suss", baseline=base, increase="0.5"), tmp_path / "run")
    again = run_folder.read(folder)
    assert again.baseline is not None
    assert again.baseline.items == base.items
    result = evaluate(again.design, again.outcomes, again.provenance, (), again.baseline)
    assert [gate.label for gate in result.regression] == ["regression-overall"]
    run_folder.claim(folder)
    assert not (folder / BASELINE).exists()


def test_another_baseline_than_its_own_is_refused(tmp_path: Path) -> None:
    run = recorded("suss", baseline=side("ssus"), increase="0.5")
    folder = folder_of(run, tmp_path / "run")
    pin(side("uuuu"), folder / BASELINE)
    with pytest.raises(DataError, match="is not the baseline that the run was held against"):
        run_folder.read(folder)
    (folder / BASELINE).unlink()
    with pytest.raises(DataError, match=r"baseline\.json: cannot be read: No such file"):
        run_folder.read(folder)


def test_a_run_without_one_is_written_as_ever(tmp_path: Path) -> None:
    folder = folder_of(recorded("suss"), tmp_path / "run")
    document = json.loads((folder / "run.json").read_text("utf-8"))
    assert not {"baseline", "regression"} & {*document["design"], *document["for_people"]}


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (recorded("ssss", shard=Shard(1, 2)), "is shard 1/2 of a run; merge all of them first"),
        (MEAN, "is mean of 3 trials: runs are compared instance by instance"),
    ],
)
def test_what_can_be_no_side_says_why(run: RecordedRun, message: str) -> None:
    with pytest.raises(DataError, match=message):
        side_of(run)


def test_a_run_that_was_stopped_early_is_no_baseline(tmp_path: Path) -> None:
    document = json.loads(b"".join(to_lines(side("ss--"))))
    document["terms"]["left_out"] = 2
    path = _written(document, tmp_path)
    with pytest.raises(DataError, match="--mir-stop=decided left 2 instances out"):
        read_pinned(path)


def _written(document: dict[str, Any], folder: Path) -> Path:
    document.pop("digest", None)
    path = folder / "base.json"
    path.write_text(json.dumps({**document, "digest": digest(document)}), "utf-8")
    return path


def _set(*keys: str | int, to: object) -> Callable[[dict[str, Any]], None]:
    def change(document: Any) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = to

    return change


def _twice(document: dict[str, Any]) -> None:
    document["instances"].insert(0, document["instances"][0])


HOSTILE = {
    "another format": _set("format", to="mirsafety-run"),
    "a later version": _set("schema_version", to=2),
    "an unknown key": _set("terms", "more", to=1),
    "a missing instance": lambda document: document["instances"].pop(),
    "an instance twice": _twice,
    "an id with a path in it": _set("instances", 0, "id", to="a\n b"),
    "an unknown status": _set("instances", 0, "status", to="fine"),
    "unscored without a reason": _set("instances", 0, "status", to="unscored"),
    "a reason of a safe answer": _set("instances", 0, "reason", to="blank"),
    "safe but not selected": _set("instances", 0, "selected", to=False),
    "a gate that there is not": _set("instances", 0, "gates", to=["overall"]),
    "a number as text": _set("terms", "data_count", to="4"),
    "a negative count": _set("terms", "data_count", to=-1),
    "more instances than the data": _set("terms", "data_count", to=2),
    "no confidence": _set("terms", "confidence", to="0.2"),
    "a time that is none": _set("terms", "started", to=1e300),
    "trials of nothing": _set("terms", "trials", "count", to=0),
    "a text that never ends": _set("terms", "judge", to="x" * 5000),
    "a seed that is no digest": _set("instances", 0, "seed", to="../.."),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_file_is_one_line(how: str, tmp_path: Path) -> None:
    """Each with its digest mended, as somebody would who means it."""
    document = json.loads(b"".join(to_lines(side("ssus"))))
    HOSTILE[how](document)
    with pytest.raises(DataError) as caught:
        read_pinned(_written(document, tmp_path))
    assert "\n" not in str(caught.value)
    assert "base.json" in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"format": "mirsafety-baseline"}']
)
def test_what_is_no_baseline_is_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_side(path)
    assert "\n" not in str(caught.value)


def test_an_edit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    text = b"".join(to_lines(side("ssus")))
    path.write_bytes(text.replace(b'"unsafe"', b'"safe"'))
    with pytest.raises(DataError, match="is not as it was written; pin it again"):
        read_pinned(path)


def test_instances_come_a_line_each() -> None:
    lines = list(to_lines(side("ssus")))
    ids = [one.id for one in instances(4)]
    held = [line for line in lines if any(json.dumps(i).encode() in line for i in ids)]
    assert len(held) == len(ids)


def test_sides_say_where_they_are(tmp_path: Path) -> None:
    made: Side = side("ss", where="runs/last")
    assert made.where == "runs/last"
    pin(made, tmp_path / "base.json")
    assert read_pinned(tmp_path / "base.json").where.endswith("base.json")
