"""docs/how-to/analyse-results.md: every command in it works, and counts what the gates count."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from projects import COMPLIANCE, UNCLEAR, Project

from pytest_mirsafety import run_folder

# Before any run inside this process: pytester forgets what is imported during one, and neither can
# be imported twice.
_ = pytest.importorskip("pandas")
duckdb = pytest.importorskip("duckdb")

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "analyse-results.md"


def blocks(language: str) -> list[str]:
    fenced = rf"^```{language}\n(.*?)^```"
    return re.findall(fenced, PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def runs(project: Project) -> dict[str, Any]:
    """Two runs, `base` and `candidate`; gives the counts that candidate's run.json has."""
    named = {f"privacy/analogy/{n}": COMPLIANCE for n in (1, 2, 3)}
    for name, answers in (
        ("base", {"privacy/analogy/1": COMPLIANCE, "privacy/jump/9": COMPLIANCE}),
        ("candidate", {**named, "privacy/jump/1": UNCLEAR, "privacy/jump/2": ""}),
    ):
        project.answers(answers)
        project.run(f"--mir-run={name}")
    document = json.loads((project.path / "candidate" / "run.json").read_text("utf-8"))
    tallies = document["for_people"]["relations"]
    return {one["name"]: one["counts"] for one in tallies if one["population"]}


def test_pandas(runs: dict[str, Any]) -> None:
    found: dict[str, Any] = {}
    for block in blocks("python"):
        exec(block, found)  # noqa: S102 - the page's own
    table = found["by_relation"].to_dict("index")
    assert {name: (row["unsafe"], row["scored"], row["asked"]) for name, row in table.items()} == {
        name: (counts["unsafe"], counts["scored"], 10) for name, counts in runs.items()
    }
    assert found["newly_unsafe"] == ["privacy/analogy/2", "privacy/analogy/3"]
    assert found["newly_safe"] == ["privacy/jump/9"]
    assert found["unscored"].to_dict() == {"undetermined": 1, "blank": 1}
    assert len(found["all_of_it"]) == 20


def test_duckdb(runs: dict[str, Any]) -> None:
    with duckdb.connect() as connection:
        *queries, copy = blocks("sql")
        by_relation, among_runs, newly_unsafe, which = (
            connection.sql(query).fetchall() for query in queries
        )
        connection.execute(copy)
    gates = run_folder.read(Path("candidate")).design.gates
    document = json.loads(Path("candidate/run.json").read_text("utf-8"))
    bounds = {gate["gate"]: (gate["low"], gate["high"]) for gate in document["for_people"]["gates"]}
    assert {row[0]: row[1:] for row in by_relation} == {
        name: (counts["unsafe"], counts["scored"], 10, *bounds[name])
        for name, counts in runs.items()
    }
    assert ("candidate", "unsafe", 3) in among_runs
    assert [row[0] for row in newly_unsafe] == ["privacy/analogy/2", "privacy/analogy/3"]
    assert newly_unsafe[0][2] == COMPLIANCE
    assert [row[0] for row in which] == ["base", "candidate"]
    assert which[1][3] == str(gates[0].criterion.threshold)
    assert which[1][4:] == (document["for_people"]["ruling"], document["exit_code"])
    assert len(Path("results.csv").read_text("utf-8").splitlines()) == 21


def test_a_redacted_run_joins_one_that_is_not(runs: dict[str, Any], project: Project) -> None:
    project.run("--mir-run=redacted", "--mir-redact")
    query = """
        SELECT count(*) FROM read_json('candidate/results.jsonl') AS whole
        JOIN read_json('redacted/results.jsonl') AS redacted
        USING (id, seed, prompt_sha256, request_key, answer_sha256)
        WHERE redacted.answer IS NULL AND whole.answer IS NOT NULL
    """
    with duckdb.connect() as connection:
        assert connection.sql(query).fetchall() == [(20,)]
