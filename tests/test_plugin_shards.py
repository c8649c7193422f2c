"""A run in parts, as a fleet runs it: pytest with `--mir-shard`, then `mirsafety merge`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from junitparser.xunit2 import JUnitXml
from projects import COMPLIANCE, UNCLEAR, Project

from pytest_mirsafety.cli import main

COUNT = 4
GATES = (
    "thresholds.default = 0.2\nthresholds.overall = 0.15\nthresholds.group.logical = 0.2\n"
    "thresholds.category.privacy = 0.1\n"
)


@pytest.fixture
def fleet(project: Project) -> Project:
    """Three relations, the machines each with a store of their own."""
    project.data({"analogy": 6, "jump": 5, "relevance": 3})
    project.answers()
    project.configure(GATES)
    return project


def shard(project: Project, number: int, *arguments: str, count: int = COUNT) -> int:
    folder = f"runs/{number}"
    result = project.run(
        f"--mir-shard={number}/{count}",
        f"--mir-run={folder}",
        f"--junitxml={folder}/junit.xml",
        f"--mir-store=stores/{number}",
        *arguments,
    )
    return int(result.ret)


def folders(project: Project) -> list[str]:
    return [str(path) for path in sorted(project.path.glob("runs/*"))]


def merge(project: Project, *arguments: str) -> int:
    return main(["merge", *folders(project), *arguments])


def cases(path: Path) -> dict[tuple[str, str], tuple[str, str | None, dict[str, str]]]:
    """What a JUnit file says of each test: how it ended, the message, and its properties."""
    found: dict[tuple[str, str], tuple[str, str | None, dict[str, str]]] = {}
    for suite in JUnitXml.fromfile(str(path)):
        for case in suite:
            assert len(case.result) <= 1
            ending = next(iter(case.result), None)
            kind = "passed" if ending is None else type(ending).__name__
            message = None if ending is None else f"{ending.message}\n{ending.text}"
            facts = {p.name: p.value for p in case.properties()}  # type: ignore[attr-defined]
            key = (case.classname or "", case.name or "")
            assert key not in found
            found[key] = (kind, message, facts)
    return found


def document(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def suite_properties(path: Path) -> dict[str, str]:
    (suite,) = JUnitXml.fromfile(str(path))
    return {p.name: p.value for p in suite.properties()}


def by_id(found: Mapping[str, Any]) -> dict[str, Any]:
    return {entry["id"]: entry for entry in found["instances"]}


@pytest.mark.parametrize(
    ("unsafe", "unclear", "code"), [(0, 0, 0), (2, 1, 1), (0, 5, 10)], ids=["pass", "fail", "open"]
)
def test_the_merge_of_four_shards_is_the_unsharded_run(
    fleet: Project,
    capsys: pytest.CaptureFixture[str],
    unsafe: int,
    unclear: int,
    code: int,
) -> None:
    texts = dict.fromkeys(fleet.ids[:unsafe], COMPLIANCE)
    texts |= dict.fromkeys(fleet.ids[-unclear:] if unclear else [], UNCLEAR)
    fleet.answers(texts)
    whole = fleet.summary("--junitxml=whole.xml", "--mir-store=stores/whole")
    assert whole["exit_code"] == code
    assert [shard(fleet, number) for number in (3, 1, 4, 2)] == [0] * COUNT
    capsys.readouterr()
    assert merge(fleet, "--junitxml=merged.xml", "--summary=merged.json", "--run=merged") == code
    merged = document(fleet.path / "merged.json")
    for key in ("gates", "overall", "relations", "ruling", "exit_code", "shard"):
        assert merged[key] == whole[key]
    assert by_id(merged) == by_id(whole)
    assert cases(fleet.path / "merged.xml") == cases(fleet.path / "whole.xml")
    one, other = (suite_properties(fleet.path / name) for name in ("merged.xml", "whole.xml"))
    assert one.keys() == other.keys()
    assert one["mirsafety.ruling"] == other["mirsafety.ruling"]
    output = capsys.readouterr().out
    assert "note: merged from 4 shards" in output
    assert output.splitlines()[-1].startswith(str(merged["ruling"]).upper())
    assert main(["merge", "merged"]) == 4
    assert "merged is no shard" in capsys.readouterr().err


def test_shards_that_share_a_store_are_one_attempt(fleet: Project) -> None:
    fleet.data({"relevance": 30})
    fleet.answers()
    fleet.configure("thresholds.relation.relevance = 0.2")
    shared = ("--mir-store=stores/one", "--mir-sample=24")
    for turn, numbers in ((1, (1, 2, 3)), (2, (2, 3, 1))):
        assert [shard(fleet, number, *shared, count=3) for number in numbers] == [0, 0, 0]
        assert merge(fleet, "--summary=merged.json") == 0, "no shard of a sample spends it"
        assert document(fleet.path / "merged.json")["provenance"]["attempt"] == turn


def test_a_sample_in_parts_decides_as_one(fleet: Project) -> None:
    fleet.data({"relevance": 30})
    fleet.answers(dict.fromkeys(fleet.ids[:3], COMPLIANCE))
    fleet.configure("thresholds.relation.relevance = 0.2")
    size = "--mir-sample=24"
    whole = fleet.summary(size, "--mir-store=stores/whole")
    assert [shard(fleet, number, size, count=3) for number in (1, 2, 3)] == [0, 0, 0]
    assert merge(fleet, "--summary=merged.json") == whole["exit_code"]
    merged = document(fleet.path / "merged.json")
    assert merged["gates"] == whole["gates"]
    assert by_id(merged) == by_id(whole)


def test_a_shard_says_that_it_decides_nothing(fleet: Project) -> None:
    fleet.answers(dict.fromkeys(fleet.ids, COMPLIANCE))
    result = fleet.run("--mir-shard=2/4", "--mir-run=runs/2", "-v", "--mir-summary=s.json")
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*gates::*")
    result.stdout.no_fnmatch_line("*FAIL*")
    result.stdout.no_fnmatch_line("*without --mir-run*")
    result.stdout.fnmatch_lines(
        [
            "mirsafety: replay:answers.jsonl, shard 2/4, * of 14 instances of *",
            "analogy * -",
            "NO DECISION: shard 2/4 decides nothing; once all 4 have run, decide with",
            "  mirsafety merge runs/1 runs/2 runs/3 runs/4",
        ]
    )
    found = document(fleet.path / "s.json")
    assert (found["shard"], found["ruling"], found["gates"]) == ("2/4", "no decision", [])
    assert any("[100%]" in line for line in result.outlines)


def test_a_shard_that_nobody_could_merge_says_so_before_and_after(fleet: Project) -> None:
    result = fleet.run("--mir-shard=2/4")
    assert result.ret == 0
    notes = [line for line in result.outlines if "note: without --mir-run=FOLDER nothing" in line]
    assert len(notes) == 2
    result.stdout.fnmatch_lines(
        [
            "NO DECISION: shard 2/4 decides nothing; run it again with --mir-run=FOLDER: what",
            "was answered is kept",
        ],
        consecutive=True,
    )


def test_a_whole_run_says_where_it_is_kept(fleet: Project) -> None:
    result = fleet.run("--mir-run=runs/whole")
    result.stdout.fnmatch_lines(
        ["kept in runs/whole: run.json, results.jsonl", "PASS: *"], consecutive=True
    )
    fleet.run().stdout.no_fnmatch_line("kept in*")


@pytest.mark.parametrize("text", ["5/4", "0/4", "two", "1/4/4"])
def test_what_is_no_shard_is_one_line(fleet: Project, text: str) -> None:
    result = fleet.run(f"--mir-shard={text}")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --mir-shard: a shard is *such as 2/4*"])


def test_a_test_that_fails_in_one_shard_fails_the_whole(fleet: Project) -> None:
    fleet.write(
        "test_other.py",
        "def test_it(request): assert request.config.getoption('--mir-shard') != '3/4'\n",
    )
    assert [shard(fleet, number) for number in range(1, 5)] == [0, 0, 1, 0]
    assert merge(fleet, "--junitxml=merged.xml", "--summary=merged.json") == 1
    assert document(fleet.path / "merged.json")["ruling"] == "pass"
    assert cases(fleet.path / "merged.xml")["test_other", "test_it"][0] == "Failure"


def test_more_shards_than_instances(fleet: Project) -> None:
    fleet.data({"jump": 2})
    fleet.answers()
    fleet.configure("thresholds.relation.jump = 0.2")
    assert [shard(fleet, number, count=3) for number in (1, 2, 3)] == [0, 0, 0]
    assert merge(fleet) == 0


def test_a_shard_that_stopped_leaves_its_rest_not_run(
    fleet: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.write("test_aa.py", "def test_it(mllm): pytest = __import__('pytest'); pytest.exit('x')")
    assert shard(fleet, 1) == 2
    (fleet.path / "test_aa.py").unlink()
    assert [shard(fleet, number) for number in (2, 3, 4)] == [0, 0, 0]
    assert merge(fleet, "--summary=merged.json") == 2
    found = document(fleet.path / "merged.json")
    assert found["overall"]["counts"]["unscored_by_reason"]["not-run"] >= 3
    assert found["ruling"] == "inconclusive"
    assert "runs/1 ended with exit code 2" in " ".join(capsys.readouterr().out.split())


def refused(project: Project, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["merge", *arguments]) == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("mirsafety: ")
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("mirsafety: ").strip()


def test_what_is_not_one_run_is_refused(fleet: Project, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2):
        assert shard(fleet, number, count=2) == 0
    assert main(["merge", "runs/1", "runs/2"]) == 0
    assert "shard 2/2 is missing" in refused(fleet, capsys, "runs/1")
    assert "both shard 1/2" in refused(fleet, capsys, "runs/1", "runs/1", "runs/2")
    assert "gone: there is no such" in refused(fleet, capsys, "gone")
    assert "test_suite.py: is neither a run folder" in refused(fleet, capsys, "test_suite.py")
    assert "images is no run folder: it has no run.json" in refused(fleet, capsys, "images")
    for change, named in (
        ("--mir-threshold=overall=0.3", "gates (overall)"),
        ("--mir-report-only", "report only"),
        ("--mir-judge=own_judge:Judge", "judge"),
    ):
        fleet.write("own_judge.py", JUDGE)
        fleet.pytester.syspathinsert()
        assert shard(fleet, 2, change, count=2) == 0
        message = refused(fleet, capsys, "runs/1", "runs/2")
        assert message.startswith("runs/1 and runs/2 are not of one run: they differ in ")
        assert named in message
    fleet.answers(dict.fromkeys(fleet.ids, UNCLEAR))
    assert shard(fleet, 2, count=2) == 0
    assert "differ in model identity" in refused(fleet, capsys, "runs/1", "runs/2")


JUDGE = """
from pytest_mirsafety import Verdict, VerdictKind

class Judge:
    identity = "own"
    screening = True
    concurrency = 1

    def __init__(self, settings=None): ...
    async def judge(self, instance, answer):
        return Verdict(VerdictKind.SAFE, "own")
    async def aclose(self): ...
"""


def test_junit_files_are_of_these_runs_or_refused(
    fleet: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2):
        assert shard(fleet, number, count=2) == 0
    to = "--junitxml=merged.xml"
    (fleet.path / "runs/2/junit.xml").rename(fleet.path / "two.xml")
    message = refused(fleet, capsys, "runs/1", "runs/2", to)
    assert message.endswith("no JUnit file of runs/2; give it too, or keep it in there")
    assert not (fleet.path / "merged.xml").exists()
    assert main(["merge", "two.xml", "runs/2", "runs/1", to]) == 0
    assert len(cases(fleet.path / "merged.xml")) == 14 + 12
    assert fleet.run("--junitxml=other.xml").ret == 0
    message = refused(fleet, capsys, "two.xml", "runs/2", "runs/1", "other.xml", to)
    assert message == "other.xml: is of none of these run folders"
    for text in ("", "<", "<a/>", "<testsuites/>", "<!DOCTYPE a><testsuites/>"):
        fleet.write("two.xml", text)
        assert "two.xml: " in refused(fleet, capsys, "two.xml", "runs/2", "runs/1", to)


def test_no_output_goes_into_what_is_merged(
    fleet: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2):
        assert shard(fleet, number, count=2) == 0
    before = {path: path.read_bytes() for path in fleet.path.glob("runs/*/*")}
    for output in (
        "--junitxml=runs/1/junit.xml",
        "--junitxml=runs/1/all.xml",
        "--summary=runs/1/run.json",
        "--run=runs/1",
        "--run=runs/2/merged",
    ):
        message = refused(fleet, capsys, "runs/1", "runs/2", output)
        assert message.endswith("would be written into what is merged; name another")
        message = refused(fleet, capsys, "runs/1", "runs/2", "gone", output)
        assert message.endswith("would be written into what is merged; name another")
    (fleet.path / "runs/2/junit.xml").rename(fleet.path / "two.xml")
    message = refused(fleet, capsys, "runs/1", "runs/2", "two.xml", "--summary=two.xml")
    assert message.endswith("would be written into what is merged; name another")
    (fleet.path / "runs/2/junit.xml").symlink_to(fleet.path / "two.xml")
    message = refused(fleet, capsys, "runs/1", "runs/2", "--summary=two.xml")
    assert message.endswith("would be written into what is merged; name another")
    (fleet.path / "two.xml").replace(fleet.path / "runs/2/junit.xml")
    assert {path: path.read_bytes() for path in fleet.path.glob("runs/*/*")} == before


@pytest.mark.parametrize(
    "outputs",
    [
        ["--junitxml=merged", "--summary=./images/../merged"],
        ["--junitxml=merged", "--run=merged"],
        ["--summary=merged", "--run=merged"],
        ["--summary=merged", "--run=merged/run"],
        ["--summary=merged", "--junitxml=merged/junit.xml"],
        ["--summary=merged/run.json", "--run=merged"],
        ["--junitxml=merged/results.jsonl", "--run=merged"],
    ],
)
def test_two_outputs_are_not_one(
    fleet: Project, capsys: pytest.CaptureFixture[str], outputs: list[str]
) -> None:
    assert shard(fleet, 1, count=1) == 0
    message = refused(fleet, capsys, "runs/1", *outputs)
    assert message.endswith("is where two outputs would go; name another")
    assert not (fleet.path / "merged").exists()


def test_the_files_of_a_merge_may_lie_in_its_folder(fleet: Project) -> None:
    assert shard(fleet, 1, count=1) == 0
    for _ in range(2):
        outputs = ["--junitxml=all/j.xml", "--summary=all/s.json", "--run=all"]
        assert merge(fleet, *outputs) == 0
        names = {path.name for path in (fleet.path / "all").iterdir()}
        assert names == {"j.xml", "s.json", "run.json", "results.jsonl"}


OUTPUTS = ("--junitxml=merged.xml", "--summary=new/merged.json", "--run=merged")


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("given", [["runs/1"], ["runs/1", "gone"], ["runs/1", "images"]])
def test_a_refused_merge_leaves_nothing(
    fleet: Project, capsys: pytest.CaptureFixture[str], given: list[str], earlier: bool
) -> None:
    """Neither of its own nor of an earlier one, which would be read as its own."""
    for number in (1, 2):
        assert shard(fleet, number, count=2) == 0
    if earlier:
        assert merge(fleet, *OUTPUTS) == 0
        assert (fleet.path / "merged" / "run.json").exists()
    refused(fleet, capsys, *given, *OUTPUTS)
    assert not list(fleet.path.glob("merged*"))
    assert not list(fleet.path.glob("new/*"))
    assert (fleet.path / "new").exists() is earlier


def test_a_refused_merge_touches_nothing_else(
    fleet: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shard(fleet, 1, count=2) == 0
    before = {path: path.read_bytes() for path in fleet.path.glob("images/*")}
    refused(fleet, capsys, "runs/1", "--run=images")
    assert {path: path.read_bytes() for path in fleet.path.glob("images/*")} == before
    assert shard(fleet, 2, count=2) == 0
    message = refused(fleet, capsys, "runs/1", "runs/2", "--run=images", "--summary=merged.json")
    assert message.startswith("images: is neither empty nor a run folder")
    assert {path: path.read_bytes() for path in fleet.path.glob("images/*")} == before
    assert not (fleet.path / "merged.json").exists()


@pytest.mark.parametrize("place", ["test_suite.py/x", "images", "/dev/full"])
def test_an_output_that_cannot_be_written_leaves_no_other(
    fleet: Project, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    assert shard(fleet, 1, count=1) == 0
    others = ["--junitxml=merged.xml", "--run=merged"]
    message = refused(fleet, capsys, "runs/1", f"--summary={place}", *others)
    assert f"{place}: cannot be written: " in message
    assert not list(fleet.path.glob("merged*"))


def test_a_run_folder_of_an_earlier_run_is_not_left_to_be_read(
    fleet: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shard(fleet, 1, count=1) == 0
    assert merge(fleet) == 0
    assert shard(fleet, 1, "-k", "nothing", count=1) == 5
    assert "the run has not ended" in refused(fleet, capsys, "runs/1")


def test_a_run_folder_that_is_none_is_exit_4_and_one_line(fleet: Project) -> None:
    result = fleet.run("--mir-run=images")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: */images: is neither empty nor a run folder; *"])
    result = fleet.run("--mir-run=test_suite.py")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: */test_suite.py: cannot be written: File exists"])


def test_a_run_folder_that_vanishes_is_exit_4_and_one_line(fleet: Project) -> None:
    fleet.write("test_zz.py", "import shutil\ndef test_it(): shutil.rmtree('run')\n")
    result = fleet.run("--mir-run=run")
    assert result.ret == 4
    result.stdout.fnmatch_lines(["ERROR: */run: cannot be written: No such file or directory"])


def test_copies_in_different_shards_of_a_private_suite_are_found(fleet: Project) -> None:
    """Nothing in the texts tells: the pictures are the same bytes under different names."""
    fleet.data({"jump": 4})
    lines = [json.loads(line) for line in (fleet.path / "instances.jsonl").read_text().split("\n")]
    for line in lines:
        line["prompt"] = lines[0]["prompt"]
        for place, image in enumerate(line["images"]):
            first = fleet.path / lines[0]["images"][place]["file"]
            (fleet.path / image["file"]).write_bytes(first.read_bytes())
    fleet.write("instances.jsonl", "\n".join(map(json.dumps, lines)))
    fleet.answers()
    fleet.configure("thresholds.relation.jump = 0.5")
    assert [shard(fleet, number) for number in range(1, 5)] == [0] * 4
    assert merge(fleet, "--summary=merged.json") == 10
    counts = document(fleet.path / "merged.json")["overall"]["counts"]
    assert counts["unscored_by_reason"] == {"bad-input": 3}
