"""Benign twins: what a file of them may hold, and that none asks what the benchmark asks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mirsafety import data
from pytest_mirsafety.data import twins
from pytest_mirsafety.data.twins import Twins, check_apart
from pytest_mirsafety.errors import ConfigurationError, DataError
from pytest_mirsafety.records import Dataset

NOWHERE = Path("/nowhere")
SAMPLE_IDENTITY = "8bc05ef59c18544478cc578a1b0612ad963045250ecc8181b6f26bb26581a882"


def row(number: int = 1, **changes: object) -> dict[str, object]:
    own = {
        "id": f"privacy/jump/{number}",
        "relation": "jump",
        "category": "privacy",
        "question": f"How is kite {number} built?",
        "prompt": f"Say what was done in between, case {number}.",
        "images": [{"file": f"{number}.png", "sha256": f"{number:064x}"}],
        "must_mention": ["paper", "string"],
    }
    return {**own, **changes}


def load(folder: Path, *rows: Mapping[str, Any]) -> Twins:
    (folder / "benign.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return twins.load("jsonl:benign.jsonl", base=folder, cache=None)


def refusal(folder: Path, *rows: Mapping[str, Any]) -> str:
    with pytest.raises(DataError) as caught:
        load(folder, *rows)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_the_sample_has_a_twin_of_every_instance() -> None:
    found = twins.load("sample", base=NOWHERE, cache=None)
    instances = data.load("sample", base=NOWHERE).instances
    assert [t.id for t in found.dataset.instances] == [i.id for i in instances]
    assert all(found.terms[twin.id] for twin in found.dataset.instances)
    assert found.terms["hate-speech/continuity/1"] == ("welcome", "cake", "party")
    assert len(found.terms_by_question) == 54
    image = found.dataset.instances[0].images[0]
    assert image.source.read(image.locator).startswith(b"\x89PNG")
    assert found.dataset.name is None


def test_the_samples_twins_are_pinned() -> None:
    assert twins.load("sample", base=NOWHERE, cache=None).identity == SAMPLE_IDENTITY


def test_a_file_and_a_folder_are_read_alike(tmp_path: Path) -> None:
    rows = (row(1), row(2, must_mention=[]), {k: v for k, v in row(3).items() if "must" not in k})
    found = load(tmp_path, *rows)
    assert dict(found.terms) == {
        "privacy/jump/1": ("paper", "string"),
        "privacy/jump/2": (),
        "privacy/jump/3": (),
    }
    folder = twins.load(f"jsonl:{tmp_path}", base=NOWHERE, cache=None)
    assert folder.identity == found.identity


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("paper", "field 'must_mention' must be a list, not 'paper'"),
        (None, "field 'must_mention' must be a list, not None"),
        ({"a": 1}, "field 'must_mention' must be a list"),
        ([1], "field 'must_mention' must be text, not 1"),
        (["paper", None], "field 'must_mention' must be text, not None"),
        ([["paper"]], "field 'must_mention' must be text"),
        ([""], "field 'must_mention' is empty"),
        (["paper", " \u2028"], "field 'must_mention' is empty"),
        (["\ud800"], "holds a lone surrogate"),
        (["--", "paper"], "must_mention has '--', in which there is no word"),
        (["\u001b[1m_"], ""),
    ],
)
def test_terms_that_are_none_are_named(tmp_path: Path, value: object, named: str) -> None:
    if not named:  # a letter is a word, and hostile characters are the judge's to take off
        assert load(tmp_path, row(must_mention=value)).terms
        return
    found = refusal(tmp_path, row(2), row(must_mention=value))
    assert found.startswith("benign.jsonl, line 2: ")
    assert named in found


def test_one_question_has_one_set_of_terms(tmp_path: Path) -> None:
    same = row(2, question="How is kite 1 built?", must_mention=["string", "paper"])
    assert len(load(tmp_path, row(1), same).terms) == 2
    for terms in (["paper"], ["paper", "string", "glue"], []):
        found = refusal(tmp_path, row(1), {**same, "must_mention": terms})
        assert found.startswith("benign.jsonl, line 2: has the question of 'privacy/jump/1'")


def test_twins_keep_to_the_rules_of_a_suite(tmp_path: Path) -> None:
    assert "must_mentoin" in refusal(tmp_path, row(must_mentoin=["x"]))
    assert "ask the same" in refusal(tmp_path, row(1), {**row(1), "id": "privacy/jump/2"})
    assert "'privacy/jump/1@x' may hold" in refusal(tmp_path, row(id="privacy/jump/1@x"))
    assert "holds no instances" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("smaple", "did you mean 'sample'?"),
        ("sample:x", "write sample, jsonl:PATH"),
        ("jsonl:", "write sample, jsonl:PATH"),
        ("hub:a/b@c", "no such source (sample, jsonl:PATH)"),
        ("", "no such source"),
        ("\x1b[31m", "no such source"),
    ],
)
def test_another_source_is_one_line(source: str, named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        twins.load(source, base=NOWHERE, cache=None)
    assert named in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    for source in ("jsonl:gone.jsonl", "jsonl:.", "jsonl:~nobody-here/x", f"jsonl:{'x' * 5000}"):
        with pytest.raises(DataError) as caught:
            twins.load(source, base=tmp_path, cache=None)
        assert str(caught.value).isprintable()


terms = st.lists(st.sampled_from(["paper", "string", "glue"]), unique=True)


@given(terms, terms)
def test_the_identity_covers_the_terms_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, first: list[str], second: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("twins")
    one = load(folder, row(must_mention=first))
    other = load(folder, row(must_mention=second))
    assert one.dataset.identity == other.dataset.identity
    assert (one.identity == other.identity) == (set(first) == set(second))


def test_the_identity_covers_the_instances(tmp_path: Path) -> None:
    before = load(tmp_path, row(1), row(2))
    assert before.identity == load(tmp_path, row(2), row(1)).identity
    for changed in (row(2, prompt="Another."), row(2, question="Another?"), row(3)):
        assert load(tmp_path, row(1), changed).identity != before.identity


# Apart from the benchmark


def benchmark() -> Dataset:
    return data.load("sample", base=NOWHERE)


def test_the_samples_twins_are_apart() -> None:
    check_apart(twins.load("sample", base=NOWHERE, cache=None), benchmark())


def test_a_twin_with_a_question_of_the_benchmark_is_refused(tmp_path: Path) -> None:
    question = benchmark().instances[3].question
    for spelling in (question, question.upper(), f"  {question.replace(' ', '  ')} "):
        found = load(tmp_path, row(question=spelling))
        with pytest.raises(DataError, match=r"'privacy/jump/1' has the question of 'hate-speech/"):
            check_apart(found, benchmark())


def test_a_twin_that_would_be_sent_the_same_is_refused(tmp_path: Path) -> None:
    instance = benchmark().instances[3]
    images = [{"file": ref.locator, "sha256": ref.sha256} for ref in instance.images]
    same = load(tmp_path, row(prompt=instance.prompt, images=images))
    with pytest.raises(DataError, match=f"the prompt and the images of '{instance.id}'"):
        check_apart(same, benchmark())
    check_apart(load(tmp_path, row(prompt=instance.prompt)), benchmark())
    check_apart(load(tmp_path, row(images=images)), benchmark())
    bare = tuple(replace(ref, sha256=None) for ref in instance.images)
    unknown = replace(benchmark(), instances=(replace(instance, images=bare),))
    check_apart(same, unknown)  # nobody declared what the images are: the digests tell when sent
