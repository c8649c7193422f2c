"""A run held against a baseline, as a user sees it: options, testcases, exit codes, files."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from projects import COMPLIANCE, UNCLEAR, Project

from pytest_mirsafety.cli import main
from pytest_mirsafety.digests import digest
from pytest_mirsafety.run_folder.pinned import pin, read_side

GATED = "thresholds.overall = 0.9\nregression.overall = 0.1\nregression.relation.analogy = 0.5\n"


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    """Ten instances, answered safely in `base`."""
    made = Project(pytester)
    made.suite()
    made.data({"analogy": 4, "jump": 6})
    made.configure("thresholds.overall = 0.9")
    made.answers()
    assert made.run("--mir-run=base", "-q").ret == 0
    made.configure(GATED)
    return made


def summary(project: Project, *arguments: str) -> dict[str, object]:
    document = project.summary("--mir-baseline=base", *arguments)
    (found,) = [one for one in document["regression"] if one["gate"] == "regression-overall"]  # type: ignore[attr-defined]
    return {**found, "exit_code": document["exit_code"]}


def test_a_run_that_is_no_worse_passes(project: Project) -> None:
    result = project.run("--mir-baseline=base", "--mir-run=next", "--junitxml=junit.xml", "-v")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "gates::gate?regression-analogy? PASSED*",
            "gates::gate?regression-overall? PASSED*",
            "against base: replay:answers.jsonl, of 20* UTC",
            "analogy *0 *0 *0 *4 *+0.0    +50  PASS",
            "overall *0 *0 *0 *10 *+0.0    +10  PASS",
            "PASS: every evaluated gate is within its threshold",
        ]
    )
    assert "100%" in result.stdout.str()
    xml = (project.path / "junit.xml").read_text("utf-8")
    assert 'name="gate[regression-overall]"' in xml
    assert 'name="mirsafety.newly_unsafe" value="0"' in xml
    document = json.loads((project.path / "next/run.json").read_text("utf-8"))
    assert len(document["for_people"]["regression"]) == 2
    assert document["design"]["rules"]["gates"] == 3


def test_a_run_that_is_worse_fails_though_its_rate_is_within_the_threshold(
    project: Project,
) -> None:
    project.answers({project.ids[4]: COMPLIANCE, project.ids[5]: COMPLIANCE})
    result = project.run("--mir-baseline=base")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "regression-overall: 2 newly unsafe and 0 newly safe of 10 pairs*",
            "FAIL: 1 of 3 gates above the threshold",
            "FAILED gates::gate?regression-overall?*",
        ]
    )


def test_what_has_no_verdict_now_counts_as_newly_unsafe(project: Project) -> None:
    project.answers({project.ids[4]: COMPLIANCE, project.ids[5]: UNCLEAR})
    found = summary(project)
    assert (found["decision"], found["cause"]) == ("inconclusive", "unscored")
    assert found["exit_code"] == 10


def test_an_exported_card_has_the_run_s_decision(project: Project) -> None:
    project.run("--mir-baseline=base", "--mir-run=next", "-q")
    assert main(["export", str(project.path / "next"), f"--dataset={project.path / 'hub'}"]) == 0
    assert "Decision: **pass**." in (project.path / "hub/README.md").read_text("utf-8")


def test_a_population_that_was_edited_is_one_line(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.run("--mir-baseline=base", "--mir-run=next", "-q")
    path = project.path / "next/run.json"
    document = json.loads(path.read_text("utf-8"))
    document["design"]["regression"][-1]["population"] = 0
    del document["digest"]
    path.write_text(json.dumps({**document, "digest": digest(document)}), "utf-8")
    assert main(["report", str(project.path / "next")]) == 4
    assert "does not make up its data: overall: only a sample" in capsys.readouterr().err


def test_what_the_baselines_judge_could_not_tell_counts_as_safe_there(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    declared = 'unscored.undetermined = "unsafe"\n'
    project.configure(f"thresholds.overall = 0.9\n{declared}")
    project.answers(dict.fromkeys(project.ids[:4], UNCLEAR))
    project.run("--mir-run=base", "-q")
    main(["baseline", str(project.path / "base"), f"-o={project.path / 'base.json'}"])
    capsys.readouterr()
    project.answers(dict.fromkeys(project.ids[:4], COMPLIANCE))
    for base in ("base", "base.json"):
        project.configure(f"{GATED}{declared}")
        result = project.run(f"--mir-baseline={base}", "--mir-run=next")
        assert result.ret == 10
        result.stdout.fnmatch_lines(["*4 have no verdict in the baseline*"])
        folder, limit = str(project.path / "next"), "--max-increase=0.1"
        assert main(["compare", str(project.path / base), folder, limit]) == 10


def test_a_deselected_instance_counts_as_newly_unsafe(project: Project) -> None:
    found = summary(project, "-k", "jump")
    assert (found["decision"], found["cause"]) == ("inconclusive", "partial")
    document = project.summary("--mir-baseline=base", "-k", "jump")
    decisions = {one["gate"]: one["decision"] for one in document["regression"]}  # type: ignore[attr-defined]
    assert decisions["regression-analogy"] == "not evaluated"


def test_the_shards_decide_together(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.answers({project.ids[4]: COMPLIANCE, project.ids[5]: COMPLIANCE})
    for shard in ("1", "2"):
        result = project.run(
            "--mir-baseline=base", f"--mir-shard={shard}/2", f"--mir-run=part{shard}", "-q"
        )
        assert result.ret == 0
        result.stdout.no_fnmatch_line("*regression*")
    parts = [str(project.path / f"part{shard}") for shard in ("1", "2")]
    code = main(["merge", *parts, f"--run={project.path / 'whole'}"])
    assert code == 1
    assert "regression-overall: 2 newly unsafe" in capsys.readouterr().out
    assert main(["compare", str(project.path / "base"), str(project.path / "whole")]) == 0


def test_a_pinned_file_is_the_same_baseline(project: Project) -> None:
    assert main(["baseline", str(project.path / "base"), "-o", str(project.path / "b.json")]) == 0
    project.configure(f'baseline = "b.json"\n{GATED}')
    project.answers(dict.fromkeys(project.ids[4:6], COMPLIANCE))
    result = project.run("--mir-run=next")
    assert result.ret == 1
    assert (project.path / "next/baseline.json").read_bytes() == (
        project.path / "b.json"
    ).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mir-baseline=nowhere"], "nowhere: there is no such run folder or baseline file"),
        ([], "[regression] is configured, and no baseline to hold the run against"),
        (["--mir-baseline=base", "--mir-run=base"], "--mir-run and --mir-baseline name one folder"),
        (
            ["--mir-baseline=base", "--mir-stop=decided"],
            "--mir-stop=decided: a regression gate depends on every answer",
        ),
        (
            ["--mir-baseline=base", "--mir-sample=9"],
            "--mir-sample: regression.relation.analogy needs a threshold of the same name",
        ),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_asked(
    project: Project, arguments: list[str], message: str
) -> None:
    result = project.run(*arguments)
    assert result.ret == 4
    (line,) = [one for one in result.stderr.lines if one.startswith("ERROR")]
    assert message in line
    assert (project.path / "base/run.json").exists()
    assert json.loads((project.path / "base/run.json").read_text("utf-8"))["finished"]


def test_other_data_are_refused(project: Project) -> None:
    project.data({"analogy": 4, "jump": 7})
    project.answers()
    result = project.run("--mir-baseline=base")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: baseline *base is not comparable: data: *"])


def test_an_unfinished_baseline_is_refused(project: Project) -> None:
    path = project.path / "base/run.json"
    path.write_text('{"format": "mirsafety-run", "schema_version": 1, "finished": false}', "utf-8")
    result = project.run("--mir-baseline=base")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: *base/run.json: the run has not ended*"])


def test_without_a_baseline_it_may_report(project: Project) -> None:
    result = project.run("--mir-report-only")
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*regression*")


def test_a_baseline_alone_is_a_comparison(project: Project) -> None:
    project.configure("thresholds.overall = 0.9")
    project.answers({project.ids[4]: COMPLIANCE})
    result = project.run("--mir-baseline=base", "--mir-summary=summary.json")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["overall *1 *0 *0 *10 *+10.0 *-  no gate", "newly unsafe (1)", "  privacy/jump/1"]
    )
    document = json.loads((project.path / "summary.json").read_text("utf-8"))
    assert "regression" not in document
    found = document["comparison"]
    assert found["newly_unsafe"] == ["privacy/jump/1"]
    assert found["rows"][-1]["high"] == 0.1
    assert found["base"]["data_count"] == 10


def test_the_report_is_the_same_from_whatever_folder(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.run("--mir-baseline=base", "--mir-run=next", "--mir-report")
    reports = [project.path / "next" / name for name in ("report.html", "report.md")]
    before = [path.read_bytes() for path in reports]
    assert b"Against the baseline: replay:answers.jsonl, of 20" in before[1]
    assert str(project.path).encode() not in b"".join(before)
    monkeypatch.chdir(project.path / "next")
    assert main(["report", "."]) == 0
    assert [path.read_bytes() for path in reports] == before


def test_its_gates_are_told_beforehand(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = project.run("--mir-baseline=base", "--mir-dry-run", "-m", "analogy")
    result.stdout.fnmatch_lines(
        ["regression-analogy *+50% *4 *4", "regression-overall *+10% *10 *4"]
    )
    monkeypatch.chdir(project.path)
    assert main(["plan", "--data=jsonl:instances.jsonl"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^regression-overall +10 +\+10%$", printed, re.MULTILINE)


def test_a_report_decides_nothing(project: Project) -> None:
    project.answers(dict.fromkeys(project.ids[4:6], COMPLIANCE))
    result = project.run("--mir-baseline=base", "--mir-report-only", "-v")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["gates::gate?regression-overall? SKIPPED*", "overall *(FAIL)"])


def test_regression_alone_is_no_threshold(project: Project) -> None:
    project.configure("regression.overall = 0.1")
    result = project.run("--mir-baseline=base")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: no threshold is configured*"])


def test_require_all_takes_one_that_is_not_evaluated_for_open(project: Project) -> None:
    project.configure(
        'require = "all"\nthresholds.overall = 0.9\nregression.relation.causality = 0.1'
    )
    assert project.run("--mir-baseline=base").ret == 10
    project.configure("thresholds.overall = 0.9\nregression.relation.causality = 0.1")
    assert project.run("--mir-baseline=base").ret == 0


# The command.


def compare(project: Project, *arguments: str) -> int:
    base, candidate = project.path / "base", project.path / "next"
    return main(["compare", str(base), str(candidate), *arguments])


@pytest.fixture
def compared(project: Project, capsys: pytest.CaptureFixture[str]) -> Project:
    """Of ten instances, one is newly unsafe in `next`."""
    project.answers({project.ids[4]: COMPLIANCE})
    project.configure("thresholds.overall = 0.9")
    assert project.run("--mir-run=next", "-q").ret == 0
    capsys.readouterr()
    return project


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 0),
        (["--max-increase=0.1"], 0),
        (["--max-increase=0.05"], 1),
        (["--max-increase=jump=0.2", "--max-increase=analogy=0"], 0),
        (["--max-increase=jump=0.1"], 1),
        (["--fail-on-alarm"], 0),
        (["--allow-different=data"], 0),
    ],
)
def test_the_exit_code_is_the_gates(compared: Project, arguments: list[str], code: int) -> None:
    assert compare(compared, *arguments) == code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-increase=anology=0.1"], "unknown gate 'anology'; did you mean 'analogy'?"),
        (["--max-increase=2"], "takes a share such as 0.02"),
        (["--max-increase=-0.1"], "takes a share such as 0.02"),
        (["--max-increase=0.1", "--max-increase=0.2"], "overall is given twice"),
        (["--allow-different=model"], "--allow-different takes data and judge, not 'model'"),
        (["--plot=trend.pdf"], "must end in .svg or .png"),
    ],
)
def test_what_is_wrong_is_one_line(
    compared: Project, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(compared, *arguments) == 4
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_reports_are_written_beside_what_is_read(
    compared: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    out = compared.path / "out"
    files = [f"--markdown={out / 'c.md'}", f"--json={out / 'c.json'}", f"--plot={out / 't.svg'}"]
    files.append(f"--html={out / 'c.html'}")
    assert compare(compared, *files) == 0
    printed = capsys.readouterr().out
    assert "newly unsafe (1)\n  privacy/jump/1\n" in printed
    document = json.loads((out / "c.json").read_text("utf-8"))
    assert document["newly_unsafe"] == ["privacy/jump/1"]
    assert document["rows"][-1]["newly_unsafe"] == 1
    assert "- privacy/jump/1\n" in (out / "c.md").read_text("utf-8")
    assert "<li>privacy/jump/1</li>" in (out / "c.html").read_text("utf-8")
    picture = (out / "t.svg").read_text("utf-8")
    assert "attack success rate (%)" in picture
    inside = compared.path / "base/c.json"
    assert compare(compared, f"--json={inside}") == 4
    assert not inside.exists()


def test_a_run_against_itself_is_named(
    compared: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job that names one folder twice would be green for ever."""
    base, following, pinned = (str(compared.path / name) for name in ("base", "next", "b.json"))
    assert main(["baseline", base, "-o", pinned]) == 0
    for pair in ([base, base], [pinned, base]):
        assert main(["compare", *pair]) == 0
        assert "SAME RUN:  base and candidate are one run" in capsys.readouterr().out
    assert main(["compare", base, following]) == 0
    assert "SAME RUN" not in capsys.readouterr().out


def test_no_name_in_a_baseline_is_a_command_of_the_runner(
    compared: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    side = read_side(compared.path / "base")
    terms = replace(side.terms, model_name="##[add-mask]PASS", judge=side.terms.judge)
    pin(replace(side, terms=terms), compared.path / "base.json")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    main(["compare", str(compared.path / "base.json"), str(compared.path / "next")])
    printed = capsys.readouterr().out
    assert "## [add-mask]PASS" in printed
    assert "##[" not in printed


def test_three_runs_are_a_trend(compared: Project, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(compared.path / name) for name in ("base", "next", "base")]
    assert main(["compare", *paths]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^overall +0.0% +10.0% +0.0%$", printed, re.MULTILINE)


def test_a_baseline_is_not_written_into_a_run(compared: Project) -> None:
    inside = Path(compared.path / "base/pinned.json")
    assert main(["baseline", str(compared.path / "base"), "-o", str(inside)]) == 4
    assert not inside.exists()
