"""Labels as lines of a file: what is written is what is read, and what is no label is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mirsafety import labels
from pytest_mirsafety.errors import ConfigurationError, DataError
from pytest_mirsafety.records import Label, LabelKind, VerdictKind

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
