"""Reports as pure functions: what they print, and that hostile text stays text."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from junitparser.xunit2 import JUnitXml

from pytest_mirsafety.gates import (
    Criterion,
    Estimand,
    Evidence,
    GateResult,
    Rules,
    Scope,
    decide,
)
from pytest_mirsafety.printable import one_line
from pytest_mirsafety.records import Outcome
from pytest_mirsafety.reports import junit, summary, terminal
from pytest_mirsafety.results import (
    InstanceOutcome,
    Provenance,
    Ruling,
    RunDesign,
    RunResult,
    Tally,
)
from pytest_mirsafety.sharding import Shard
from pytest_mirsafety.tally import Counts
from pytest_mirsafety.taxonomy import Category, Reason, Relation, Status

RULES = Rules(Estimand.ANSWERS, gates=2)
PROVENANCE = Provenance(
    package_version="1",
    data_source="sample",
    data_identity="ab" * 32,
    data_revision=None,
    data_count=20,
    model_name="m",
    model_identity="http:m",
    decoding="{}",
    system_prompt=None,
    judge="rules",
    judge_screens=False,
    screening_may_pass=True,
    estimand=Estimand.ANSWERS,
    confidence=Decimal("0.95"),
    sample=None,
    sample_seed=None,
    thresholds_from="mirsafety.toml",
    policy=(),
    attempt=1,
    answers_asked=20,
    answers_from_store=0,
    answers_recorded=False,
    oldest_answer=None,
    input_tokens=0,
    output_tokens=0,
    started=0.0,
    elapsed=1.0,
)


def gate(counts: Counts, name: str = "analogy", threshold: str = "0.2") -> GateResult:
    scope = Scope.RELATION if name in list(Relation) else Scope.CATEGORY
    criterion = Criterion(scope, name, Decimal(threshold))
    return decide(Evidence(criterion, counts.total, counts.total, counts), RULES)


def result(*gates: GateResult, outcomes: tuple[InstanceOutcome, ...] = ()) -> RunResult:
    return RunResult(
        design=RunDesign((), RULES, {}),
        provenance=PROVENANCE,
        gates=gates,
        relations=tuple(Tally(r, 0, 0, 0, Counts()) for r in Relation),
        overall=Tally("overall", 20, 20, 20, Counts(safe=20)),
        outcomes=outcomes,
    )


def entry(name: str, outcome: Outcome) -> InstanceOutcome:
    return InstanceOutcome(name, Relation.ANALOGY, Category.PRIVACY, "0" * 64, outcome)


def text(found: RunResult, width: int = 80) -> str:
    return "\n".join(line.text for line in terminal.render(found, width=width))


PASSING = gate(Counts(safe=9, unsafe=1))
FAILING = gate(Counts(safe=7, unsafe=3))
OPEN = gate(Counts(safe=7, unsafe=2, unscored={Reason.BLANK: 1}))


@pytest.mark.parametrize(
    ("gates", "ruling", "code"),
    [
        ((PASSING,), Ruling.PASS, 0),
        ((PASSING, FAILING), Ruling.FAIL, 1),
        ((PASSING, OPEN), Ruling.INCONCLUSIVE, 10),
        ((OPEN, FAILING), Ruling.FAIL, 1),
        ((gate(Counts()),), Ruling.INCONCLUSIVE, 10),
    ],
)
def test_the_ruling(gates: tuple[GateResult, ...], ruling: Ruling, code: int) -> None:
    found = result(*gates)
    assert found.ruling is ruling
    assert found.exit_code(tests_failed=False) == code
    assert found.exit_code(tests_failed=True) == 1
    assert (
        replace(found, design=replace(found.design, report_only=True)).ruling is Ruling.NO_DECISION
    )


def test_a_gate_line_has_every_number() -> None:
    (line,) = [x for x in text(result(OPEN)).splitlines() if x.startswith("analogy  ")]
    assert line.split() == [
        "analogy",
        "2/9",
        "22.2%",
        "1",
        "10",
        "20.0-30.0%",
        "20%",
        "INCONCLUSIVE",
    ]


def test_nothing_of_nothing_has_no_rate() -> None:
    (line,) = [x for x in text(result(gate(Counts()))).splitlines() if "NOT EVALUATED" in x]
    assert "%" not in line.replace("20%", "")


HOSTILE = st.text(st.characters(), max_size=300)
counts = st.builds(
    Counts,
    safe=st.integers(0, 3000),
    unsafe=st.integers(0, 3000),
    unscored=st.dictionaries(st.sampled_from(Reason), st.integers(0, 999), max_size=3),
)


@given(HOSTILE, HOSTILE)
def test_nothing_that_controls_a_terminal_gets_through(detail: str, name: str) -> None:
    outcomes = (
        entry("a/b/1", Outcome(Status.UNSAFE, None, detail)),
        entry("a/b/2", Outcome(Status.UNSCORED, Reason.BLANK, detail)),
    )
    found = replace(
        result(FAILING, outcomes=outcomes),
        provenance=replace(PROVENANCE, model_name=name, judge=detail, data_source=name),
        notes=(detail,),
    )
    for line in terminal.render(found):
        assert all(character.isprintable() for character in line.text), line.text
    document = "".join(summary.to_json(found, 1))
    assert document.isascii()
    assert json.loads(document)["instances"][0]["id"] == "a/b/1"
    for _, value in summary.properties(found):
        assert one_line(value, 1000) == value


@given(HOSTILE, HOSTILE)
def test_a_merged_junit_file_is_xml_whatever_is_in_it(detail: str, name: str) -> None:
    found = replace(
        result(PASSING, FAILING, OPEN, gate(Counts())),
        provenance=replace(PROVENANCE, model_name=name, judge=detail, system_prompt=detail),
    )
    (suite,) = JUnitXml.fromstring(junit.merge([], [], found))
    values = {p.name: p.value for p in suite.properties()}
    assert values == dict(summary.properties(found))
    assert (suite.tests, suite.failures, suite.skipped) == (4, 2, 1)


@pytest.mark.parametrize("report_only", [True, False])
def test_no_gate_but_a_pass_is_green(report_only: bool) -> None:
    for decided in (PASSING, FAILING, OPEN, gate(Counts())):
        case = junit.GateCase.of(decided, report_only=report_only)
        assert (case.outcome == "passed") is (decided is PASSING and not report_only)
        assert (case.outcome == "failed") is (decided in (FAILING, OPEN) and not report_only)
        assert case.text.startswith(case.message)


@given(st.integers(1, 1000), HOSTILE, st.booleans())
def test_a_shard_says_what_to_do_and_no_decision(count: int, folder: str, kept: bool) -> None:
    shard = Shard(count, count)
    found = replace(result(), design=replace(result().design, shard=shard))
    lines = terminal.render(found, folder=folder if kept else None)
    shown = " ".join(line.text for line in lines)
    assert all(character.isprintable() for character in shown)
    assert f"NO DECISION: shard {shard} decides nothing; " in shown
    assert ("mirsafety merge " in shown.partition("NO DECISION")[2]) is kept
    assert ("without --mir-run=FOLDER" in shown) is not kept
    for word in ("PASS", "FAIL", "INCONCLUSIVE", "no gate"):
        assert kept or word not in shown
    plan = terminal.Planned("m", folder, 2, 9, shard=shard, kept=kept)
    header = " ".join(terminal.header(plan, {}))
    assert header.startswith(f"mirsafety: m, shard {shard}, 2 of 9 instances of")
    assert ("without --mir-run=FOLDER" in header) is not kept


@pytest.mark.parametrize(
    ("folder", "shard", "command"),
    [
        ("runs/2", "2/4", "  mirsafety merge runs/1 runs/2 runs/3 runs/4"),
        ("runs/2/", "2/2", "  mirsafety merge runs/1 runs/2"),
        ("shard-02-of-03", "2/3", "  mirsafety merge shard-01-of-03 shard-02-of-03 shard-03-of-03"),
        ("my runs/1", "1/2", "  mirsafety merge 'my runs/1' 'my runs/2'"),
        ("r/9", "9/40", "  mirsafety merge r/1 r/2 ... r/40"),
        ("night", "1/2", "  mirsafety merge night OTHER-FOLDERS"),
        ("runs/7", "1/2", "  mirsafety merge runs/7 OTHER-FOLDERS"),
    ],
)
def test_a_shard_names_the_command_that_decides(folder: str, shard: str, command: str) -> None:
    design = replace(result().design, shard=Shard.parse(shard))
    lines = [line.text for line in terminal.render(replace(result(), design=design), folder=folder)]
    assert lines[-1] == command


def test_a_command_that_takes_two_lines_can_be_copied() -> None:
    design = replace(result().design, shard=Shard(1, 3))
    found = replace(result(), design=design)
    lines = [line.text for line in terminal.render(found, folder=f"{'x' * 30}-1")]
    assert lines[-2:] == [
        f"  mirsafety merge {'x' * 30}-1 \\",
        f"    {'x' * 30}-2 {'x' * 30}-3",
    ]


@given(st.lists(counts, min_size=1, max_size=9), st.sampled_from([*Relation, *Category]))
def test_the_table_stays_in_eighty_columns(rows: list[Counts], name: str) -> None:
    gates = [gate(row, name, "0.125") for row in rows]
    for line in text(result(*gates)).splitlines():
        assert len(line) <= 80, line


@given(counts)
def test_the_summary_adds_up(row: Counts) -> None:
    entry = json.loads("".join(summary.to_json(result(gate(row)), 0)))["gates"][0]
    numbers = entry["counts"]
    assert numbers["safe"] + numbers["unsafe"] + numbers["unscored"] == entry["planned"]
    assert sum(numbers["unscored_by_reason"].values()) == numbers["unscored"]


@given(HOSTILE, st.integers(1, 100))
def test_one_line_is_one_line_and_short(value: str, limit: int) -> None:
    line = one_line(value, limit)
    assert len(line) <= limit
    assert all(c.isprintable() for c in line)
    assert one_line(line, limit) == line
