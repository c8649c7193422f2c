"""CSV, the dataset card, and hostile texts in every format that a run is exported to."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import goldens
import pytest
from hostile import ATTACK, HOSTILE, SECRET
from hypothesis import given
from hypothesis import strategies as st
from projects import COMPLIANCE, REFUSAL, Project
from recorded_runs import OUTCOMES, world
from reported_runs import exchange, hostile, small

from pytest_mirsafety import cli
from pytest_mirsafety.exchanges import Exchange
from pytest_mirsafety.exports import card, rows, texts, upstream
from pytest_mirsafety.records import Dataset, Outcome
from pytest_mirsafety.reports import github, junit
from pytest_mirsafety.reports.instance_cases import InstanceCase
from pytest_mirsafety.results import RunResult
from pytest_mirsafety.taxonomy import Category, Relation, Status

Shown = pytest.CaptureFixture[str]
FORMULA = re.compile(r" *[=+\-@\t\r\n＝＋－＠]")  # noqa: RUF001 - they are what is meant


def table(result: RunResult, told: rows.Exchanges, *, texts: bool) -> list[dict[str, str]]:
    content = b"".join(rows.csv_lines(result.outcomes, told, texts=texts)).decode()
    csv.field_size_limit(2**22)
    return list(csv.DictReader(io.StringIO(content, newline=""), strict=True))


def documents(result: RunResult, told: rows.Exchanges, *, texts: bool) -> list[dict[str, object]]:
    content = b"".join(rows.json_lines(result.outcomes, told, texts=texts))
    return [json.loads(line) for line in content.splitlines()]


def test_a_row_for_each_instance_in_its_order() -> None:
    result = small()
    found = table(result, exchange, texts=False)
    assert [row["id"] for row in found] == [one.instance_id for one in result.outcomes]
    assert list(found[0]) == list(rows.COLUMNS)
    first, plain = found[0], documents(result, exchange, texts=False)[0]
    assert (first["status"], first["reason"], first["latency"]) == ("safe", "", "1.25")
    assert first["selected"] == "true"
    assert first["images"] == " ".join(map(str, plain["images"] if plain else []))  # type: ignore[call-overload]
    assert plain["draw"] == 0
    assert plain["reason"] is None
    assert set(plain) == set(rows.COLUMNS)


def test_texts_are_there_only_if_they_were_asked_for() -> None:
    result = small()
    for lines in (rows.csv_lines, rows.json_lines):
        without = b"".join(lines(result.outcomes, exchange, texts=False)).decode()
        for word in ("question of", "prompt of", "answer of", "reasoning of", "complies"):
            assert word not in without
        whole = b"".join(lines(result.outcomes, exchange, texts=True)).decode()
        for word in ("question of", "prompt of", "answer of", "reasoning of", "complies"):
            assert word in whole


@given(st.text() | st.sampled_from([text[:300] for text in HOSTILE]))
def test_no_cell_is_a_formula_or_controls_anything(text: str) -> None:
    shown = texts.cell(text)
    assert not FORMULA.match(shown)
    kinds = {unicodedata.category(c) for c in shown if c != "\n"}
    assert not [kind for kind in kinds if kind[0] == "C" or kind in ("Zl", "Zp")]
    if text.isprintable() and not FORMULA.match(text):
        assert shown == text


@given(st.lists(st.text(), min_size=1, max_size=8))
def test_a_text_stays_in_its_cell(answers: list[str]) -> None:
    made = world([OUTCOMES[0]] * len(answers)).whole()
    told = {
        entry.instance_id: Exchange(answer=answer)
        for entry, answer in zip(made.outcomes, answers, strict=True)
    }
    found = table(made, told.get, texts=True)
    assert [row["answer"] for row in found] == [texts.cell(answer) for answer in answers]
    plain = documents(made, told.get, texts=True)
    assert [row["answer"] for row in plain] == [texts.whole(answer) for answer in answers]


def read_card(content: bytes) -> tuple[dict[str, object], str]:
    """The front matter, as the hub's own library reads it, and the rest."""
    from huggingface_hub import DatasetCard

    found = DatasetCard(content.decode())
    facts: dict[str, object] = found.data.to_dict()  # type: ignore[no-untyped-call]
    return facts, found.text


def test_a_small_runs_card() -> None:
    content = card.card(small(), texts=False, license_id=None)
    goldens.check("dataset-card.md", content.decode())
    facts, _ = read_card(content)
    assert "license" not in facts
    assert facts["size_categories"] == ["n<1K"]
    assert facts["configs"] == [
        {"config_name": "default", "data_files": [{"split": "test", "path": card.DATA}]}
    ]


@pytest.mark.parametrize(
    ("number", "size"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**6, "1M<n<10M"), (10**9, "10M<n<100M")],
)
def test_sizes_are_the_hubs(number: int, size: str) -> None:
    assert card._size(number) == size


def test_a_card_with_texts_warns_and_names_its_licence() -> None:
    facts, text = read_card(card.card(small(), texts=True, license_id="cc-by-4.0"))
    assert facts["license"] == "cc-by-4.0"
    assert "not-for-all-audiences" in str(facts["tags"])
    assert "`answer`" in text
    facts, text = read_card(card.card(small(), texts=False, license_id=None))
    assert "not-for-all-audiences" not in str(facts["tags"])
    assert "It holds no prompt, no answer and no image." in text
    assert "`answer`" not in text


# Hostile texts


def hostile_upstream() -> bytes:
    made = world([Outcome(Status.UNSAFE, detail=text) for text in HOSTILE])
    everything = tuple(
        replace(one, prompt=text) for one, text in zip(made.instances, HOSTILE, strict=True)
    )
    told = {one.id: Exchange(answer=one.prompt) for one in everything}
    run = replace(made.recorded(), provenance=replace(made.provenance, judge=HOSTILE[3]))
    data = Dataset("d", None, run.provenance.data_identity, everything)
    found = upstream.results(run, data, told.get, upstream.folder_name(HOSTILE[0]))
    assert (found.asr, found.scored, found.failed) == ("100.00%", len(HOSTILE), 0)
    for name, content in found.files.items():
        assert re.fullmatch(r"(infer|harmbench)/[A-Za-z0-9._-]+/Privacy/[A-Za-z_]+\.json", name), (
            name
        )
        assert json.loads(content)
    return b"".join(found.files.values())


def hostile_junit() -> bytes:
    result, told = hostile()
    suite = ET.Element("testsuite")
    content = junit.merge([], [], result)
    for entry in result.outcomes:
        case = InstanceCase(Relation.JUMP, Category.PRIVACY, answer=told(entry.instance_id).answer)
        case.judge = result.provenance.judge
        for name, value in case.properties(entry.outcome, "full"):
            ET.SubElement(suite, "property", name=name, value=value)
    ET.fromstring(content)  # noqa: S314 - our own
    written = ET.tostring(suite)
    again = ET.fromstring(written)  # noqa: S314 - our own
    assert len(again) == len(suite)
    return content + written


def hostile_card() -> bytes:
    result, _ = hostile()
    content = card.card(result, texts=False, license_id=None)
    facts, text = read_card(content)
    assert set(facts) == {*("pretty_name", "task_categories", "tags", "size_categories", "configs")}
    unescaped = re.sub(r"\\.", "", text)
    assert "<" not in unescaped.replace("| <= ", "| ").replace("| >= ", "| ")
    assert not re.search(r"\]\(|https?:|www\.|!\[", unescaped)
    return content


def nameless(result: RunResult) -> RunResult:
    """The judge's name is shown; without it nothing hostile is left to be."""
    entries = (
        replace(e, verdict=e.verdict and replace(e.verdict, judge="judge-1"))
        for e in result.outcomes
    )
    return replace(result, outcomes=tuple(entries))


def hostile_table() -> bytes:
    result, told = hostile()
    found = table(result, told, texts=True)
    assert len(found) == len(result.outcomes)
    assert not [cell for row in found for cell in row.values() if FORMULA.match(cell)]
    return b"".join(rows.csv_lines(nameless(result).outcomes, told, texts=False))


def hostile_lines() -> bytes:
    result, told = hostile()
    assert len(documents(result, told, texts=True)) == len(result.outcomes)
    return b"".join(rows.json_lines(nameless(result).outcomes, told, texts=False))


def hostile_annotations() -> bytes:
    result, _ = hostile()
    environ = {"GITHUB_ACTIONS": "true", "OPENAI_API_KEY": SECRET}
    lines = list(github.conclude(result, 1, environ))
    assert all(line.isprintable() for line in lines)
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    "export",
    [
        *(hostile_upstream, hostile_junit, hostile_card, hostile_table),
        *(hostile_lines, hostile_annotations),
    ],
)
def test_hostile_texts_stay_texts(
    export: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    content = export().decode()
    assert SECRET not in content
    controls = {c for c in content if c < " " or 0x7F <= ord(c) < 0xA0} - {"\n"}
    assert not controls
    assert not re.search("[\u202a-\u202e\u2066-\u2069\ufeff]", content)
    if export in (hostile_table, hostile_lines, hostile_annotations):
        assert ATTACK not in content, "no texts"


# As a user asks for them


def test_what_is_exported_is_read_by_others(project: Project, capsys: Shown) -> None:
    pandas = pytest.importorskip("pandas")
    from pyarrow import json as arrow

    project.answers({project.ids[0]: COMPLIANCE, project.ids[1]: ""}, input_tokens=7)
    project.run("--mir-run=run")
    arguments = ["export", "run", "--csv=out/t.csv", "--dataset=hub"]
    assert cli.main(arguments) == 0
    said = capsys.readouterr().out
    assert "out/t.csv: 20 rows, digests in place of texts" in said
    assert "the card names no licence" in said
    for frame in (
        pandas.read_csv("out/t.csv"),
        pandas.read_json("hub/data/results.jsonl", lines=True),
        arrow.read_json("hub/data/results.jsonl").to_pandas(),
    ):
        assert len(frame) == 20
        assert dict(frame.status.value_counts()) == {"safe": 18, "unsafe": 1, "unscored": 1}
        assert set(frame.input_tokens) == {7}
    text = "".join(
        path.read_text("utf-8")
        for path in (*Path("hub").rglob("*.*"), Path("out/t.csv"))
        if path.is_file()
    )
    for word in (COMPLIANCE, REFUSAL, "What links", "Question 1"):
        assert word not in text
    assert cli.main([*arguments[:3], "--text", "--dataset=hub2", "--license=mit"]) == 0
    assert "keep them as private as the run" in capsys.readouterr().out
    frame = pandas.read_csv("out/t.csv").set_index("id")
    assert frame.answer[project.ids[0]] == COMPLIANCE
    assert frame.prompt[project.ids[0]].startswith("What links")
    assert 'license: "mit"' in Path("hub2/README.md").read_text("utf-8")


def test_a_redacted_run_has_no_texts_to_give(project: Project, capsys: Shown) -> None:
    project.answers({project.ids[0]: COMPLIANCE})
    project.run("--mir-run=run", "--mir-redact")
    capsys.readouterr()
    assert cli.main(["export", "run", "--csv=t.csv", "--dataset=hub", "--text"]) == 0
    assert COMPLIANCE not in Path("t.csv").read_text("utf-8")
    said = capsys.readouterr().out
    assert said.count("digests in place of texts (the run was redacted)") == 2
    assert "not-for-all-audiences" not in Path("hub/README.md").read_text("utf-8")
    assert cli.main(["export", "run", "--upstream=out"]) == 4
