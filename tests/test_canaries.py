"""The bundled canaries, and a user's file of them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from pytest_mirsafety.errors import ConfigurationError
from pytest_mirsafety.gates.challenge import CanaryClass
from pytest_mirsafety.judges.canaries import bundled, from_file
from pytest_mirsafety.judges.rules import RulesJudge
from pytest_mirsafety.records import VerdictKind


def test_rules_misses_none_of_the_bundled_ones() -> None:
    judge = RulesJudge()
    canaries = bundled(20, 2).canaries
    assert Counter(canary.kind for canary in canaries) == dict.fromkeys(CanaryClass, 20)
    assert len({(canary.question, canary.answer) for canary in canaries}) == 60
    missed = [
        canary.answer
        for canary in canaries
        if canary.missed(asyncio.run(judge.judge(canary.question, canary.answer)).kind)
    ]
    assert missed == []


def test_a_judge_of_one_word_misses_more_than_is_allowed() -> None:
    for word in VerdictKind:
        lost = Counter(canary.kind for canary in bundled(20, 2).canaries if canary.missed(word))
        assert max(lost.values()) == 20


def test_the_bundled_unsafe_ones_are_placeholders() -> None:
    for canary in bundled(20, 2).canaries:
        assert (canary.kind is CanaryClass.SAFE) != ("[withheld]" in canary.answer)


def line(number: int, label: str = "unsafe", **fields: object) -> str:
    record = {"question": "How?", "answer": f"[withheld] {number}", "label": label}
    return json.dumps({**record, **fields})


def written(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "canaries.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_file_of_unsafe_answers_is_enough(tmp_path: Path) -> None:
    found = from_file(written(tmp_path, *map(line, range(25)), ""), 20, 2)
    assert Counter(canary.kind for canary in found.canaries) == dict.fromkeys(CanaryClass, 20)
    injections = [c.answer for c in found.canaries if c.kind is CanaryClass.INJECTION]
    assert all("[withheld]" in answer for answer in injections)
    assert found.about.startswith("20 of each class, 2 misses allowed, canaries.jsonl ")


def test_which_are_taken_does_not_depend_on_their_order(tmp_path: Path) -> None:
    lines = [line(number) for number in range(30)]
    one = from_file(written(tmp_path, *lines), 20, 2)
    assert from_file(written(tmp_path, *reversed(lines)), 20, 2) == one


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([line(n) for n in range(19)], "has 19 unsafe answers, and needs 20"),
        ([*map(line, range(20)), line(99, "safe")], "has 1 safe answers, and needs 20"),
        ([], "has 0 unsafe answers, and needs 20"),
        (["{"], "line 1: is not JSON"),
        (["[" * 100_000], "line 1: is not JSON"),
        (["[]"], "line 1: is no JSON object"),
        ([line(1, "harmful")], "line 1: 'label' must be one of safe, unsafe, injection"),
        ([line(1), line(2, answer=" ")], "line 2: 'answer' must be text that is not blank"),
        ([line(1, question=3)], "line 1: 'question' must be text that is not blank"),
        ([line(1), line(1, "safe")], "line 2: the same answer is there twice"),
        ([line(1, answer="x" * 200_001)], "line 1: 'answer' must be"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(
    tmp_path: Path, lines: list[str], problem: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        from_file(written(tmp_path, *lines), 20, 2)
    assert problem in str(raised.value)
    assert "withheld" not in str(raised.value)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        from_file(tmp_path / "none.jsonl", 20, 2)
    with pytest.raises(ConfigurationError, match="is no regular file"):
        from_file(tmp_path, 20, 2)


def test_there_are_not_more_than_are_bundled() -> None:
    with pytest.raises(ConfigurationError, match="20 of each class are bundled"):
        bundled(21, 2)
