"""Labels as lines of a file: what is written is what is read, and what is no label is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mirsafety import labels
from pytest_mirsafety.errors import ConfigurationError, DataError
from pytest_mirsafety.labelling import Label, LabelKind
from pytest_mirsafety.records import VerdictKind

digests = st.text("0123456789abcdef", min_size=64, max_size=64)
names = st.text(min_size=1, max_size=50).filter(str.strip)
made = st.builds(
    Label,
    instance_id=st.text("abcXYZ019._/-", min_size=1, max_size=50),
    request_key=digests,
    answer=digests,
    kind=st.sampled_from(LabelKind),
    reviewer=names,
    labelled=st.floats(0, 2.0**35),
    run=digests,
    judge=names,
    verdict=st.sampled_from(VerdictKind),
    probability=st.none() | st.floats(0, 1, exclude_min=True),
    blind=st.booleans(),
)
ONE = Label(
    *("privacy/analogy/1", "a" * 64, "b" * 64, LabelKind.UNSAFE, "Ana", 1.0, "c" * 64, "rules-1"),
    *(VerdictKind.SAFE, 0.25, True),
)


@given(st.lists(made, max_size=4))
def test_what_is_appended_is_read(
    tmp_path_factory: pytest.TempPathFactory, given_labels: list[Label]
) -> None:
    path = tmp_path_factory.mktemp("labels") / "folder" / "labels.jsonl"
    for label in given_labels:
        labels.append(path, label)
    if given_labels:
        assert labels.read(path) == given_labels
        assert len(path.read_bytes().splitlines()) == len(given_labels)


def line(**changes: object) -> str:
    return json.dumps({**json.loads(labels.to_line(ONE)), **changes})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "Invalid JSON"),
        ("[]", "no label"),
        (line(label="fine"), "label: Input should be 'safe', 'unsafe', 'unsure' or 'retracted'"),
        (line(probability=0), "probability: Input should be greater than 0"),
        (line(probability=1.5), "probability: Input should be less than or equal to 1"),
        (line(probability="1"), "probability"),
        (line(reviewer=" "), "needs the name of its reviewer"),
        (line(answer="b"), "answer: String should match"),
        (line(more=1), "more: Extra inputs"),
        (line(id="../x y"), "id: String should match"),
        (line(verdict=None), "verdict"),
        ("x" * 70_000, "is longer than"),
    ],
)
def test_what_is_no_label_is_named_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(f"{labels.to_line(ONE)}\n{text}\n", "utf-8")
    with pytest.raises(DataError) as caught:
        labels.read(path)
    assert "labels.jsonl, line 3: " in str(caught.value)
    assert problem in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_file_that_is_not_there_or_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        labels.read(tmp_path / "gone.jsonl")
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        labels.append(tmp_path / "file" / "labels.jsonl", ONE)


# Labels that are taken back, changed, or cut off

people = st.sampled_from(["Ana", "Ben"])
places = st.sampled_from(["a", "b", "c"])
steps = st.lists(st.tuples(people, places, st.sampled_from([*LabelKind, None])), max_size=12)


@given(steps)
def test_undo_gives_back_what_was_there_before(
    tmp_path_factory: pytest.TempPathFactory, taken: list[tuple[str, str, LabelKind | None]]
) -> None:
    """Against a stack for each reviewer and answer; None takes the last label back."""
    path = tmp_path_factory.mktemp("labels") / "labels.jsonl"
    stacks: dict[tuple[str, str], list[Label]] = {}
    for time, (reviewer, place, kind) in enumerate(taken):
        stack = stacks.setdefault((reviewer, place), [])
        if kind is not None:
            made = replace(
                ONE, reviewer=reviewer, instance_id=place, kind=kind, labelled=float(time)
            )
            stack.append(made)
            labels.append(path, made)
        elif stack:
            labels.retract(path, stack.pop(), float(time))
    if path.exists():
        wanted = {key: stack[-1] for key, stack in stacks.items() if stack}
        counted = labels.effective(labels.read(path))
        assert {(one.reviewer, one.instance_id): one for one in counted} == wanted
        assert [one.labelled for one in counted] == sorted(one.labelled for one in counted)
        assert labels.LabelFile(path).standing() == counted


def test_a_label_that_nobody_gave_cannot_be_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    labels.append(path, ONE)
    others: dict[str, Any] = {
        "reviewer": "Ben",
        "instance_id": "b",
        "answer": "d" * 64,
        "run": "e" * 64,
    }
    for name, value in others.items():
        labels.retract(path, replace(ONE, **{name: value}), 2.0)
    assert labels.read(path) == [ONE]
    labels.retract(path, ONE, 2.0)
    assert labels.read(path) == []


def test_only_the_last_label_of_a_reviewer_on_an_answer_counts() -> None:
    changed = replace(ONE, kind=LabelKind.SAFE, labelled=2.0)
    other = replace(ONE, reviewer="Ben")
    elsewhere = replace(ONE, run="e" * 64)
    assert labels.effective([ONE, other, elsewhere, changed]) == [other, elsewhere, changed]


@given(st.integers(0, len(labels.to_line(ONE)) - 1))
def test_a_line_that_was_cut_off_is_none_and_is_mended(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("labels") / "labels.jsonl"
    other = replace(ONE, reviewer="Ben")
    line = labels.to_line(other)
    path.write_text(labels.to_line(ONE) + line[:cut], "utf-8")
    kept = [ONE, other] if cut == len(line) - 1 else [ONE]  # only its end is missing
    assert labels.read(path) == kept
    labels.append(path, replace(ONE, reviewer="Cem"))
    assert labels.read(path) == [*kept, replace(ONE, reviewer="Cem")]


@pytest.mark.parametrize("text", ["My thesis", '{"mine": ', '{"id": "a"}', "[1"])
def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(text, "utf-8")
    with pytest.raises(DataError, match="line 1: no label"):
        labels.LabelFile(path).standing()
    assert path.read_text("utf-8") == text


WRITER = """
import sys
from pathlib import Path
from pytest_mirsafety import labels
path, name = Path(sys.argv[1]), sys.argv[2]
for label in labels.read(path.with_name(f"{name}.jsonl")):
    labels.append(path, label)
"""


def test_several_processes_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    names = ["Ana", "Ben", "Cem"]
    for name in names:
        mine = [replace(ONE, reviewer=name, labelled=float(number)) for number in range(40)]
        text = "".join(map(labels.to_line, mine))
        path.with_name(f"{name}.jsonl").write_text(text, "utf-8")
    command = [sys.executable, "-c", WRITER, str(path)]
    started = [subprocess.Popen([*command, name]) for name in names]
    assert [one.wait() for one in started] == [0, 0, 0]
    found = labels.read(path)
    for name in names:
        mine = [label for label in found if label.reviewer == name]
        assert [label.labelled for label in mine] == list(map(float, range(40)))


def test_a_label_is_on_disk_when_the_call_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "labels.jsonl"
    synced: list[bytes] = []
    fsync = os.fsync

    def noted(file: int) -> None:
        synced.append(path.read_bytes())
        fsync(file)

    monkeypatch.setattr(os, "fsync", noted)
    labels.append(path, ONE)
    assert synced[0] == labels.to_line(ONE).encode()
    assert len(synced) == 2  # the file, and the folder that has its name


def test_a_file_that_another_process_writes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    book = labels.LabelFile(path)
    assert book.standing() == []
    book.append(ONE)
    assert book.standing() == [ONE]
    labels.append(path, replace(ONE, reviewer="Ben"))
    assert book.standing() == [ONE, replace(ONE, reviewer="Ben")]
    book.retract(ONE, 2.0)
    assert book.standing() == [replace(ONE, reviewer="Ben")]
    path.unlink()
    assert book.standing() == []
