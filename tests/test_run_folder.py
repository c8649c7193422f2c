"""The run folder: what is written is what is read, and nothing else is taken for a run."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from published import complaints
from recorded_runs import OUTCOMES, World, world, worlds

from pytest_mirsafety import run_folder
from pytest_mirsafety.circumstances import Circumstances, Commit, Environment, Host
from pytest_mirsafety.digests import digest
from pytest_mirsafety.errors import ConfigurationError, DataError
from pytest_mirsafety.exchanges import Exchange
from pytest_mirsafety.printable import one_line
from pytest_mirsafety.records import ModelIdentity, Outcome, SentImages
from pytest_mirsafety.results import RecordedRun, RunResult, ids_digest
from pytest_mirsafety.sharding import Shard
from pytest_mirsafety.taxonomy import Status

SHARED = settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
_NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
CIRCUMSTANCES = st.builds(
    Circumstances,
    ended=st.none() | st.floats(0, 2**35),
    model=st.none() | st.builds(ModelIdentity, _NAMES, _NAMES, st.none() | _NAMES),
    environments=st.lists(
        st.builds(
            Environment,
            packages=st.dictionaries(_NAMES, _NAMES, max_size=3),
            host=st.builds(
                Host,
                _NAMES,
                _NAMES,
                st.none() | st.integers(1, 512),
                st.lists(_NAMES, max_size=2).map(tuple),
            ),
            commit=st.none() | st.builds(Commit, _NAMES, st.none() | st.booleans()),
        ),
        max_size=2,
    ).map(tuple),
)
RESULT = world(OUTCOMES).whole()
EXCHANGE = Exchange(
    question="How?",
    prompt="What links them?",
    answer="No.",
    reasoning="Hm.",
    finish_reason="stop",
    input_tokens=7,
    output_tokens=2,
    latency=0.5,
    created=1.0,
    images=SentImages(("ab" * 32, "cd" * 32), "ef" * 32),
)


def written(folder: Path, result: RunResult = RESULT) -> Path:
    run_folder.claim(folder)
    run_folder.write(folder, result, tests_failed=False, exit_code=0, exchanges=lambda _: EXCHANGE)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        run_folder.read(folder)
    message = str(caught.value)
    assert message.startswith(str(folder))
    assert one_line(message, 500) == message
    return message.removeprefix(str(folder))


@SHARED
@given(
    worlds(),
    st.sampled_from([None, Shard(2, 3)]),
    st.booleans(),
    st.integers(0, 255),
    CIRCUMSTANCES,
)
def test_what_is_written_is_what_is_read(
    tmp_path: Path,
    made: World,
    shard: Shard | None,
    failed: bool,
    code: int,
    circumstances: Circumstances,
) -> None:
    result = replace(made, design=replace(made.design, shard=shard)).whole()
    run_folder.claim(tmp_path / "run")
    where = circumstances
    run_folder.write(
        tmp_path / "run", result, tests_failed=failed, exit_code=code, circumstances=where
    )
    assert not complaints(tmp_path / "run")
    assert run_folder.read(tmp_path / "run") == RecordedRun(
        where=str(tmp_path / "run"),
        design=result.design,
        provenance=result.provenance,
        outcomes=result.outcomes,
        notes=result.notes,
        tests_failed=failed,
        exit_code=code,
        digest=manifest(tmp_path / "run")["digest"],
        circumstances=where,
    )


@SHARED
@given(st.text(max_size=600), st.text(max_size=600))
def test_hostile_text_is_kept_as_one_line_or_as_it_is(
    tmp_path: Path, detail: str, prompt: str
) -> None:
    made = world([Outcome(Status.UNSAFE, detail=detail)])
    provenance = replace(made.provenance, system_prompt=prompt, data_source=detail)
    folder = written(tmp_path / "run", replace(made, provenance=provenance).whole())
    for name in (run_folder.MANIFEST, run_folder.RESULTS):
        assert (folder / name).read_bytes().isascii()
    found = run_folder.read(folder)
    assert found.provenance == provenance
    assert found.outcomes[0].outcome.detail == one_line(detail, 400)


@SHARED
@given(
    st.sampled_from([run_folder.MANIFEST, run_folder.RESULTS]),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(["cut", "drop", "flip", "insert"]),
    st.binary(min_size=1, max_size=3),
)
def test_no_edit_is_read_as_another_run(
    tmp_path: Path, name: str, place: float, edit: str, put: bytes
) -> None:
    for file in tmp_path.glob("run/*"):
        file.unlink()
    folder = written(tmp_path / "run")
    before = run_folder.read(folder)
    content = (folder / name).read_bytes()
    at = int(place * len(content))
    after = {
        "cut": content[:at],
        "drop": content[:at] + content[at + len(put) :],
        "flip": content[:at] + put + content[at + len(put) :],
        "insert": content[:at] + put + content[at:],
    }[edit]
    (folder / name).write_bytes(after)
    try:
        assert run_folder.read(folder) == before
    except DataError as error:
        assert str(error).startswith(str(folder))  # noqa: PT017 - either is right


def manifest(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / run_folder.MANIFEST).read_text("utf-8"))
    return document


def put(folder: Path, document: dict[str, Any]) -> None:
    """Write a manifest with a digest that fits it: what a careful forger would leave."""
    document.pop("digest", None)
    text = json.dumps({**document, "digest": digest(document)})
    (folder / run_folder.MANIFEST).write_text(text, "utf-8")


@pytest.mark.parametrize(
    ("keys", "value", "expected"),
    [
        (["schema_version"], 4, "has schema_version 4; this version reads 1, 2 and 3"),
        (["schema_version"], "1", "has schema_version '1'"),
        (["format"], "other", "is no run's"),
        (["finished"], False, "the run has not ended, or was killed; run it again"),
        (["finished"], 1, "the run has not ended"),
        (["more"], 1, "more: "),
        (["exit_code"], 2**31, "exit_code: "),
        (["exit_code"], True, "exit_code: "),
        (["tests_failed"], 0, "tests_failed: "),
        (["notes"], [1], "notes.0: "),
        (["design", "gates"], [{"population": 10}], "design.gates.0.criterion: "),
        (["design", "gates", 0, "criterion", "scope"], "planet", "criterion.scope: "),
        (["design", "gates", 0, "criterion", "name"], "anology", "did you mean 'analogy'?"),
        (["design", "gates", 0, "criterion", "threshold"], "1.5", "must be 0 to 1"),
        (["design", "gates", 0, "criterion", "threshold"], "NaN", "threshold: "),
        (["design", "gates", 0, "criterion", "threshold"], "1E-99", "more than nine decimals"),
        (["design", "gates", 0, "population"], 11, "a count that cannot be"),
        (["design", "gates", 0, "population"], -1, "a count that cannot be"),
        (["design", "rules", "confidence"], "0.4", "confidence must be"),
        (["design", "rules", "confidence"], "0.9", "are not those of the report"),
        (["design", "rules", "gates"], 2, "for another number of gates"),
        (["design", "shard"], {"index": 3, "count": 2}, "such as 2/4"),
        (["design", "more"], 1, "design.more: "),
        (["design", "populations", "anology"], 1, "design.populations.anology"),
        (["design", "populations", "jump"], 1, "do not add up"),
        (["provenance", "data_count"], 10**9, "do not add up"),
        (["provenance", "started"], 1e300, "a time is none"),
        (["provenance", "oldest_answer"], -1.0, "a time is none"),
        (["provenance", "attempt"], -1, "negative"),
        (["provenance", "input_tokens"], 1.5, "input_tokens: "),
        (["provenance", "cost_usd"], 1e308, "cost more than there is"),
        (["provenance", "judge"], None, "judge: "),
        (["redacted"], None, "redacted: "),
        (["redacted"], 0, "redacted: "),
        (["ended"], -1.0, "a time is none"),
        (["ended"], "now", "ended: "),
        (["model"], "m", "model: "),
        (["model"], {"provider": "http"}, "model.model: "),
        (["environments"], {}, "environments: "),
        (["environments"], [{"packages": {}}], "environments.0.host: "),
        (["environments"], [{"packages": {"a": 1}, "host": {}}], "packages.a: "),
        (["results", "records"], 9, "does not hold the 9 records"),
        (["results", "records"], 10**12, "results.records: "),
        (["results", "sha256"], "0" * 64, "does not hold the 10 records"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(
    tmp_path: Path, keys: list[Any], value: object, expected: str
) -> None:
    folder = written(tmp_path / "run")
    document = manifest(folder)
    where: Any = document
    for key in keys[:-1]:
        where = where[key]
    where[keys[-1]] = value
    put(folder, document)
    message = refusal(folder)
    assert expected.replace("nine", "9") in message
    assert message.startswith(("/run.json: ", "/results.jsonl: "))


def test_a_value_that_was_edited_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "run")
    path = folder / run_folder.MANIFEST
    path.write_text(path.read_text("utf-8").replace('"0.2"', '"0.9"', 1), "utf-8")
    assert "/run.json: is not as the run wrote it" in refusal(folder)


def test_a_number_that_json_does_not_have_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "run")
    document = manifest(folder)
    document["provenance"]["elapsed"] = float("nan")
    put(folder, document)
    assert refusal(folder).startswith("/run.json: ")


def test_two_gates_of_one_name_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "run")
    document = manifest(folder)
    document["design"]["gates"] *= 2
    document["design"]["rules"]["gates"] = 2
    put(folder, document)
    assert "a gate is there twice" in refusal(folder)


def forge(folder: Path, number: int, **fields: object) -> None:
    """Change a record and every digest that would tell."""
    path = folder / run_folder.RESULTS
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number - 1] = json.dumps({**json.loads(lines[number - 1]), **fields}).encode() + b"\n"
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"id": "privacy/analogy/0"}, "the instance privacy/analogy/0 is there twice"),
        ({"id": ""}, "id: "),
        ({"id": "a b"}, "id: "),
        ({"id": "a\x1b[2J"}, "id: "),
        ({"id": "a" * 201}, "id: "),
        ({"relation": "Analogy"}, "relation: "),
        ({"category": "theft"}, "category: "),
        ({"seed": "ab"}, "seed: "),
        ({"gates": []}, "gates: it counts for analogy"),
        ({"gates": ["analogy", "overall"]}, "gates: it counts for analogy"),
        ({"gates": "analogy"}, "gates: "),
        ({"relation": "jump"}, "gates: it counts for none"),
        ({"selected": 1}, "selected: "),
        ({"selected": False}, "an instance that was not selected is not-run"),
        ({"status": "fine"}, "status: "),
        ({"status": "safe"}, "a reason exactly when it is unscored"),
        ({"reason": None}, "a reason exactly when it is unscored"),
        ({"reason": "tired"}, "reason: "),
        ({"detail": "x" * 401}, "detail: "),
        ({"detail": None}, "detail: "),
        ({"request_key": "ab"}, "request_key: "),
        ({"more": 1}, "more: "),
        ({"detail": "another"}, "does not hold the 10 records"),
        ({"arm": "other"}, "arm: "),
        ({"arm": None}, "arm: "),
        ({"finish_reason": "x" * 201}, "finish_reason: "),
        ({"input_tokens": 1.5}, "input_tokens: "),
        ({"output_tokens": -1}, "output_tokens: "),
        ({"latency": -0.1}, "latency: "),
        ({"latency": "fast"}, "latency: "),
        ({"created": 1e300}, "created: "),
        ({"prompt_sha256": "ab"}, "prompt_sha256: "),
        ({"prompt_sha256": None}, "prompt: is not the one whose digest it has"),
        ({"prompt": "another"}, "prompt: is not the one whose digest it has"),
        ({"prompt": 1}, "prompt: is no text"),
        ({"question": ["q"]}, "question: is no text"),
        ({"reasoning": {}}, "reasoning: is no text"),
        ({"images": []}, "images: "),
        ({"images": ["ab" * 32]}, "composed: there are no images that it is made of"),
    ],
)
def test_a_record_that_cannot_be_is_refused_with_its_line(
    tmp_path: Path, fields: dict[str, object], expected: str
) -> None:
    folder = written(tmp_path / "run")
    forge(folder, 4, **fields)
    message = refusal(folder)
    assert expected in message
    assert message.startswith(("/results.jsonl, line 4: ", "/results.jsonl: does"))


@pytest.mark.parametrize(
    "content",
    [b"", b"[", b"1\n", b"\xff\n", b"[" * 60_000, b"x" * 70_000, b"\n", b"{}\n", b'{"id":1}' * 9],
)
def test_what_is_no_record_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = written(tmp_path / "run")
    (folder / run_folder.RESULTS).write_bytes(content)
    assert refusal(folder).startswith("/results.jsonl")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"1", b"\xff", b"[" * 100_000, b"{}", b"1" * 5000, b"null", b'"a"']
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = written(tmp_path / "run")
    (folder / run_folder.MANIFEST).write_bytes(content)
    assert refusal(folder).startswith("/run.json: is no")


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path: Path) -> None:
    folder = written(tmp_path / "run")
    os.truncate(folder / run_folder.MANIFEST, 2**40)
    assert "is larger than" in refusal(folder)


@pytest.mark.parametrize("name", [run_folder.MANIFEST, run_folder.RESULTS])
def test_a_pipe_keeps_nobody_waiting(tmp_path: Path, name: str) -> None:
    folder = written(tmp_path / "run")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert "is no regular file" in refusal(folder)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = written(tmp_path / "run")
    (folder / run_folder.RESULTS).unlink()
    assert "/results.jsonl: cannot be read: No such file" in refusal(folder)
    (folder / run_folder.MANIFEST).unlink()
    assert refusal(folder) == " is no run folder: it has no run.json"
    (tmp_path / "baseline.json").write_text("{}")
    assert refusal(tmp_path / "baseline.json") == " is a file: name the run folder (--mir-run)"


def test_a_run_that_died_left_no_result(tmp_path: Path) -> None:
    """Whatever had been written when it was killed, and whatever an earlier run had left."""
    folder = written(tmp_path / "run")
    whole = (folder / run_folder.RESULTS).read_bytes()
    run_folder.claim(folder)
    assert "the run has not ended" in refusal(folder)
    assert not (folder / run_folder.RESULTS).exists()
    (folder / run_folder.RESULTS).write_bytes(whole)
    assert "the run has not ended" in refusal(folder)


def test_files_of_two_runs_make_none(tmp_path: Path) -> None:
    one = written(tmp_path / "one")
    other = written(tmp_path / "other", world(OUTCOMES[::-1]).whole())
    (one / run_folder.RESULTS).replace(other / run_folder.RESULTS)
    assert "does not hold the 10 records that the run wrote" in refusal(other)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    for name, text in (("notes.txt", "mine"), ("run.json", '{"mine": 1}'), ("run.json", "[")):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text, "utf-8")
        with pytest.raises(ConfigurationError, match="neither empty nor a run folder"):
            run_folder.claim(folder)
        assert [p.name for p in folder.iterdir()] == [name]
        assert (folder / name).read_text("utf-8") == text


def test_other_files_in_a_run_folder_stay(tmp_path: Path) -> None:
    folder = written(tmp_path / "run")
    (folder / "junit.xml").write_text("<testsuites/>", "utf-8")
    written(folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {"run.json", "results.jsonl", "junit.xml"}


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigurationError, match="cannot be written: "):
            run_folder.claim(folder)
    with pytest.raises(ConfigurationError, match="cannot be written: No such file"):
        run_folder.write(tmp_path / "gone", RESULT, tests_failed=False, exit_code=0)


def test_a_run_that_lacks_an_instance_is_none(tmp_path: Path) -> None:
    """Also where every digest of a file was made to fit: what was planned is known apart."""
    planned = ids_digest(entry.instance_id for entry in RESULT.outcomes)
    result = replace(RESULT, design=replace(RESULT.design, planned=planned))
    folder = written(tmp_path / "run", result)
    assert run_folder.read(folder).design.planned == planned
    path = folder / run_folder.RESULTS
    fewer = b"".join(path.read_bytes().splitlines(keepends=True)[:-1])
    path.write_bytes(fewer)
    document = manifest(folder)
    document["results"] = {
        "records": len(RESULT.outcomes) - 1,
        "sha256": hashlib.sha256(fewer).hexdigest(),
    }
    put(folder, document)
    assert "does not hold the instances that were planned" in refusal(folder)


def test_what_a_run_that_never_ended_would_have_replaced_is_kept(tmp_path: Path) -> None:
    folder, previous = tmp_path / "run", tmp_path / "run" / run_folder.PREVIOUS
    before = written(folder)
    for name in ("report.html", "attention.npz", "labels.jsonl"):
        (folder / name).write_text(name, "utf-8")
    kept = run_folder.read(folder)
    for _ in range(3):  # as by options that are misspelt, one after the other
        run_folder.claim(folder)
        assert "the run has not ended" in refusal(folder)
        assert replace(run_folder.read(previous), where=kept.where) == kept
    assert (previous / "report.html").read_text("utf-8") == "report.html"
    assert (folder / "labels.jsonl").read_text("utf-8") == "labels.jsonl"
    run_folder.write(before, RESULT, tests_failed=False, exit_code=0)
    assert not previous.exists()
    assert sorted(path.name for path in folder.iterdir()) == [
        *("labels.jsonl", "results.jsonl", "run.json")
    ]


def test_what_somebody_put_beside_a_previous_run_stays(tmp_path: Path) -> None:
    folder = written(tmp_path / "run")
    run_folder.claim(folder)
    note = folder / run_folder.PREVIOUS / "note.txt"
    note.write_text("mine", "utf-8")
    run_folder.write(folder, RESULT, tests_failed=False, exit_code=0)
    run_folder.claim(folder)
    assert note.read_text("utf-8") == "mine"
    run_folder.read(folder / run_folder.PREVIOUS)
