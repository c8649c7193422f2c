"""What `--mir-attention` writes into the run folder, and the sentences that go into the reports."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attentions import attention
from numpy.typing import NDArray
from PIL import Image
from recorded_runs import world

from pytest_mirsafety import run_folder
from pytest_mirsafety.attention.comparing import compare
from pytest_mirsafety.attention.picture import alternative, draw
from pytest_mirsafety.attention.reporting import report
from pytest_mirsafety.entropies import FILES, AnswerAttention
from pytest_mirsafety.errors import ConfigurationError
from pytest_mirsafety.records import Outcome
from pytest_mirsafety.results import RunResult
from pytest_mirsafety.sharding import Shard
from pytest_mirsafety.taxonomy import Reason, Status

SAFE, UNSAFE = Outcome(Status.SAFE), Outcome(Status.UNSAFE)
CUT = Outcome(Status.UNSCORED, Reason.TRUNCATED)
Measured = Callable[[str], AnswerAttention | None]


def run(*outcomes: Outcome) -> RunResult:
    return world(outcomes).whole()


def lower_when_unsafe(result: RunResult) -> Mapping[str, AnswerAttention]:
    """Unsafe answers have the lower entropy, and twice the tokens; the number of images varies."""
    return {
        entry.instance_id: attention(
            (3 if entry.outcome.status is Status.UNSAFE else 5) + place / 100,
            images=place % 3,
            tokens=20 if entry.outcome.status is Status.UNSAFE else 10,
        )
        for place, entry in enumerate(result.outcomes)
    }


def document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "attention.json").read_text("utf-8"))
    return found


def numbers(folder: Path) -> dict[str, NDArray[Any]]:
    with np.load(folder / "attention.npz", allow_pickle=False) as file:
        return dict(file)


def test_all_that_was_measured_is_there_and_compared(tmp_path: Path) -> None:
    result = run(*[UNSAFE] * 8, *[SAFE] * 12, CUT)
    measured = lower_when_unsafe(result)
    sentences = report(tmp_path, result, measured.get, shown="runs/1")
    arrays = numbers(tmp_path)
    outcomes = {entry.instance_id: str(entry.outcome.status) for entry in result.outcomes}
    assert dict(zip(arrays["instance"], arrays["outcome"], strict=True)) == outcomes
    assert arrays["instance"].tolist() == sorted(e.instance_id for e in result.outcomes)
    assert arrays["image_entropy"].shape == (21, 2, 2, 3)
    for place, name in enumerate(arrays["instance"].tolist()):
        one = measured[name]
        assert np.array_equal(arrays["prompt_entropy"][place], one.entropies[0])
        own = arrays["image_entropy"][place]
        assert np.array_equal(own[: one.images], one.entropies[1:])
        assert np.isnan(own[one.images :]).all()
        assert arrays["image_keys"][place].tolist() == [5] * one.images + [0] * (2 - one.images)
    found = document(tmp_path)
    assert (
        found["numbers"]["sha256"]
        == hashlib.sha256((tmp_path / "attention.npz").read_bytes()).hexdigest()
    )
    assert (found["answers"], found["not_measured"], found["definition"]) == (21, 0, 1)
    comparison = found["comparison"]
    assert comparison["unsafe"] == {
        "answers": 8,
        "mean_entropy": {"prompt": pytest.approx(0.3035), "images": pytest.approx(0.4235, abs=0.1)},
        "median_tokens": 20,
    }
    assert comparison["measures"]["prompt"]["cliffs_delta"] == [[-1] * 3] * 2
    assert comparison["measures"]["prompt"]["differing"] == 6
    assert comparison["measures"]["prompt"]["mean_difference"][0][0] == pytest.approx(-0.21)
    assert len(sentences) == 2
    assert (
        "8 unsafe and 12 safe answers, median 20 and 10 tokens, mean entropy over the"
        in (sentences[0])
    )
    assert "(false discovery rate 5%): 6 of 6 over the prompt" in sentences[0]
    assert sentences[1].endswith("in runs/1: attention.npz, attention.json, attention.png")
    with Image.open(tmp_path / "attention.png") as picture:
        picture.load()
        assert picture.info["Description"] == found["picture"]["alternative"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def test_what_was_not_measured_is_counted(tmp_path: Path) -> None:
    result = run(*[UNSAFE] * 8, *[SAFE] * 12, CUT)
    measured = lower_when_unsafe(result)
    gone = [entry.instance_id for entry in result.outcomes[6:9]]
    rest = {name: one for name, one in measured.items() if name not in gone}
    sentences = report(tmp_path, result, rest.get, shown="r")
    assert "not measured behind 3 of 20 scored answers" in sentences[0]
    assert "6 unsafe and 11 safe answers" in sentences[1]
    assert document(tmp_path)["not_measured"] == 3
    assert not set(gone) & set(numbers(tmp_path)["instance"].tolist())


@pytest.mark.parametrize(("unsafe", "safe"), [(4, 20), (0, 6), (7, 0)])
def test_too_few_are_kept_and_not_compared(tmp_path: Path, unsafe: int, safe: int) -> None:
    result = run(*[UNSAFE] * unsafe, *[SAFE] * safe)
    sentences = report(tmp_path, result, lower_when_unsafe(result).get, shown="r")
    assert "not tested: 5 unsafe and 5 safe answers are needed to compare" in sentences[0]
    found = document(tmp_path)
    assert found["picture"] is None
    assert found["comparison"]["test"] is None
    assert found["comparison"]["measures"]["prompt"]["cliffs_delta"] is None
    assert not (tmp_path / "attention.png").exists()
    assert len(numbers(tmp_path)["instance"]) == unsafe + safe


def test_nothing_measured_writes_nothing(tmp_path: Path) -> None:
    sentences = report(tmp_path, run(SAFE, CUT), lambda _: None, shown="r")
    assert "not measured behind 1 of 1 scored answers" in sentences[0]
    assert sentences[1:] == ["attention: nothing was measured"]
    assert list(tmp_path.iterdir()) == []


def test_a_shard_keeps_its_numbers_and_compares_nothing(tmp_path: Path) -> None:
    result = run(*[UNSAFE] * 8, *[SAFE] * 12)
    shard = replace(result, design=replace(result.design, shard=Shard(1, 2)))
    sentences = report(tmp_path, shard, lower_when_unsafe(result).get, shown="r")
    assert sentences[0] == "attention: a shard compares nothing; mirsafety merge does"
    assert document(tmp_path)["comparison"] is None
    assert len(numbers(tmp_path)["instance"]) == 20


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    result = run(SAFE)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        report(tmp_path / "none", result, lower_when_unsafe(result).get, shown="r")


def test_a_new_run_takes_away_what_an_older_one_measured(tmp_path: Path) -> None:
    run_folder.claim(tmp_path)
    result = run(*[UNSAFE] * 8, *[SAFE] * 12)
    report(tmp_path, result, lower_when_unsafe(result).get, shown="r")
    (tmp_path / "mine.txt").touch()
    run_folder.claim(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "run.json"]


@pytest.mark.parametrize("images", [True, False])
def test_a_picture_of_any_name_and_shape_is_drawn(tmp_path: Path, images: bool) -> None:
    values = np.random.default_rng(1).random((20, 2, 3, 40))
    values[:, 0, 1] = np.nan
    if not images:
        values[:, 1] = np.nan
    outcomes = [place % 3 == 0 for place in range(20)]
    found = compare(values, outcomes, [str(place) for place in range(20)], permutations=99)
    name = "a $\\frac{1}{$ \u202e\x1b[31m \u4e2d\u6587 " * 9
    draw(tmp_path / "p.png", found, name)
    words = alternative(found, name)
    assert words.isascii()
    assert words.isprintable()
    assert ("over the images" in words) is images
    assert " of 80 heads, 0 marked" in words
    with Image.open(tmp_path / "p.png") as picture:
        assert min(picture.size) > 400
