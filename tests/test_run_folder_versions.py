"""Folders of version 1, as that version wrote them, are read by everything that reads folders."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from projects import COMPLIANCE, REFUSAL, UNCLEAR, Project
from published import complaints

from pytest_mirsafety import labels, run_folder, whole_files
from pytest_mirsafety.circumstances import Circumstances
from pytest_mirsafety.cli import main
from pytest_mirsafety.commands import review
from pytest_mirsafety.digests import digest
from pytest_mirsafety.errors import DataError
from pytest_mirsafety.labelling import Label, LabelKind
from pytest_mirsafety.records import VerdictKind

GOLDEN = Path(__file__).parent / "run_folders" / "version-1"
WHOLE = GOLDEN / "whole"
ANSWERS = {
    "privacy/analogy/1": COMPLIANCE,
    "privacy/analogy/2": UNCLEAR,
    "privacy/analogy/3": "",
    "privacy/analogy/4": REFUSAL,
    "privacy/jump/1": "I'm sorry, I can't.\0\x1b[2J\r\n\u202e <script>alert(1)</script>",
    "privacy/jump/2": REFUSAL,
}


@pytest.mark.parametrize("name", ["whole", "shard-1", "shard-2"])
def test_its_folders_are_read_and_fit_its_schemas(name: str) -> None:
    run = run_folder.read(GOLDEN / name)
    assert not complaints(GOLDEN / name)
    assert (run.circumstances, run.redacted) == (Circumstances(), False)
    exchanges = run_folder.Exchanges([(GOLDEN / name, run)])
    for entry in run.outcomes:
        found = exchanges(entry.instance_id)
        assert found is not None
        assert found.answer == ANSWERS[entry.instance_id]
        assert (found.question, found.prompt, found.prompt_sha256) == (None, None, None)


@pytest.mark.parametrize("redact", [False, True])
def test_its_shards_are_merged(tmp_path: Path, redact: bool) -> None:
    options = [f"--run={tmp_path / 'run'}", f"--junitxml={tmp_path / 'junit.xml'}"]
    options += ["--redact"] * redact
    code = main(["merge", str(GOLDEN / "shard-2"), str(GOLDEN / "shard-1"), *options])
    whole, merged = run_folder.read(WHOLE), run_folder.read(tmp_path / "run")
    assert (code, merged.exit_code) == (whole.exit_code, whole.exit_code)
    assert not complaints(tmp_path / "run")
    assert merged.redacted is redact
    plain = {e.instance_id: (e.outcome.status, e.answer_sha256) for e in whole.outcomes}
    assert {e.instance_id: (e.outcome.status, e.answer_sha256) for e in merged.outcomes} == plain
    exchanges = run_folder.Exchanges([(tmp_path / "run", merged)])
    for name, answer in ANSWERS.items():
        found = exchanges(name)
        assert found is not None
        assert found.answer == (None if redact else answer)


def test_it_is_reviewed(project: Project) -> None:
    project.data({"analogy": 4, "jump": 2})
    given = dict.fromkeys(("sample", "safe", "unsafe", "unscored", "reviewer", "data"))
    where = {"folder": WHOLE, "labels": Path("labels.jsonl"), "seed": "1", "blind": False}
    made = review.prepare(Namespace(**given, **where))
    assert {item.drawn.entry.instance_id: item.answer for item in made.items} == ANSWERS


def test_it_is_calibrated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_folder.read(WHOLE)
    path = tmp_path / "labels.jsonl"
    for entry in run.outcomes:
        label = Label(
            entry.instance_id,
            entry.request_key or "",
            entry.answer_sha256 or "",
            LabelKind.SAFE,
            "Ana",
            1.0,
            run.digest,
            run.provenance.judge,
            VerdictKind.UNDETERMINED if entry.verdict is None else entry.verdict.kind,
        )
        labels.append(path, label)
    assert main(["calibrate", str(WHOLE), f"--labels={path}"]) in (0, 1, 10)
    assert "6 answers" in capsys.readouterr().out


def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(WHOLE, folder)
    return folder


def forge(folder: Path, name: str, **fields: object) -> str:
    """Put keys into run.json or the first line, mend every digest, and read."""
    manifest: dict[str, Any] = json.loads((folder / run_folder.MANIFEST).read_text("utf-8"))
    if name == run_folder.RESULTS:
        first, *rest = (folder / name).read_bytes().splitlines(keepends=True)
        line = json.dumps({**json.loads(first), **fields}).encode() + b"\n"
        manifest["results"]["sha256"] = whole_files.replace(folder / name, [line, *rest])
    else:
        manifest |= fields
    del manifest["digest"]
    text = json.dumps({**manifest, "digest": digest(manifest)})
    (folder / run_folder.MANIFEST).write_text(text, "utf-8")
    with pytest.raises(DataError) as caught:
        run_folder.read(folder)
    assert str(caught.value).isprintable()
    return str(caught.value).removeprefix(str(folder))


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("results.jsonl", {"prompt": "p"}, "line 1: prompt: "),
        ("results.jsonl", {"question": None}, "line 1: question: "),
        ("results.jsonl", {"reasoning": "r"}, "line 1: reasoning: "),
        ("results.jsonl", {"arm": "multi"}, "line 1: arm: "),
        ("results.jsonl", {"latency": 1.0}, "line 1: latency: "),
        ("results.jsonl", {"prompt_sha256": None}, "line 1: prompt_sha256: "),
        ("run.json", {"redacted": False}, "redacted: "),
        ("run.json", {"environments": []}, "environments: "),
        ("run.json", {"ended": 1.0}, "ended: "),
        ("run.json", {"schema_version": 2}, "redacted: Field required"),
    ],
)
def test_it_has_no_key_of_version_2(
    tmp_path: Path, name: str, fields: dict[str, object], expected: str
) -> None:
    assert expected in forge(copy(tmp_path), name, **fields)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([run_folder.MANIFEST, run_folder.RESULTS]),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(["cut", "drop", "flip", "insert"]),
    st.binary(min_size=1, max_size=3),
)
def test_no_edit_of_it_is_read_as_another_run(
    tmp_path: Path, name: str, place: float, edit: str, put: bytes
) -> None:
    folder = copy(tmp_path)
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
