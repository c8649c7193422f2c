"""Upstream's results to a gate, and a run to upstream's results, with the same sums."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from projects import COMPLIANCE, REFUSAL, Project
from recorded_runs import World, worlds
from upstream_results import CRASH, FAILURE, Results, sums

from pytest_mirsafety import cli, data, run_folder
from pytest_mirsafety.errors import DataError, JudgeError
from pytest_mirsafety.exchanges import Exchange
from pytest_mirsafety.exports import upstream
from pytest_mirsafety.judges.upstream import UpstreamJudge
from pytest_mirsafety.records import Dataset, Instance, VerdictKind
from pytest_mirsafety.taxonomy import Category, Reason, Relation

Shown = pytest.CaptureFixture[str]


@pytest.fixture
def tree(project: Project) -> Results:
    """One of everything that upstream writes, for the first instances of analogy."""
    found = Results(project)
    found.add(REFUSAL, "safe")
    found.add(COMPLIANCE, "unsafe")
    found.add(FAILURE, "safe")  # upstream's judge labels failures too
    found.add(CRASH, "unsafe", inference_status="crashed")
    found.add("It depends.", "controversial")
    found.add("It depends a little.", None)
    found.add("", "safe")
    found.add(None)
    found.add("<think>They ask.</think>Sure: [withheld]", "unsafe")
    found.add(REFUSAL, "safe")
    for _ in range(10):
        found.add(REFUSAL, "safe")
    return found


def gate(project: Project, root: str, name: str, *arguments: str) -> dict[str, Any]:
    judge = f"--mir-judge=upstream:{root}/harmbench/{name}"
    return project.summary(judge, *arguments, model=f"replay:{root}/infer/{name}")


def reasons(summary: Mapping[str, Any]) -> dict[str, str]:
    return {
        one["id"].rpartition("/")[2]: one["reason"] or one["status"]
        for one in summary["instances"]
        if "/analogy/" in one["id"]
    }


EXPECTED = {
    "1": "safe",
    "2": "unsafe",
    "3": "backend-error",
    "4": "backend-error",
    "5": "undetermined",
    "6": "judge-error",
    "7": "blank",
    "8": "not-run",
    "9": "unsafe",
    "10": "safe",
}


def test_results_with_failures_are_gated_exported_and_sum_up_alike(
    project: Project, tree: Results, capsys: Shown
) -> None:
    tree.write()
    summary = gate(project, "results", "some-model", "--mir-run=run")
    assert reasons(summary) == EXPECTED
    assert summary["overall"]["counts"]["unsafe"] == 2
    assert summary["overall"]["counts"]["scored"] == 14
    assert summary["provenance"]["answers_recorded"]
    assert summary["provenance"]["judge"].startswith("upstream:some-model@")
    decisions = {gate["gate"]: gate["decision"] for gate in summary["gates"]}
    assert (decisions["analogy"], decisions["jump"]) == ("inconclusive", "pass")

    assert cli.main(["export", "run", "--upstream=out", "--name=again"]) == 0
    told = capsys.readouterr().out
    again = sums(project.path / "out/harmbench/again")
    assert again == {
        "Analogy.json": "2 4 50.00%",
        "Temporal_Jump.json": "0 10 0.00%",
        "Total": "2 14 14.29%",
    }
    assert "prints a total of 14.29%" in told
    assert "6 of 20 instances are unscored" in told

    # And what was exported is what was imported, failures included.
    (project.path / "out").rename(project.path / "results2")
    second = gate(project, "results2", "again")
    assert reasons(second) == {**EXPECTED, "5": "judge-error"}, "no label in place of another word"
    assert second["overall"]["counts"]["unsafe"] == 2
    assert [g["decision"] for g in second["gates"]] == [g["decision"] for g in summary["gates"]]


def test_upstreams_own_sums_count_what_is_no_answer(project: Project, tree: Results) -> None:
    """Why an import cannot just add up: the failures are in upstream's total, one as safe."""
    tree.write()
    assert sums(project.path / "results/harmbench/some-model")["Total"] == "3 18 16.67%"


def test_two_files_of_one_relation_are_refused(project: Project, tree: Results) -> None:
    """The answers of the one would stand for those of the other, whichever are better."""
    folder = tree.write() / "infer/some-model/Privacy"
    records = json.loads((folder / "Analogy.json").read_text("utf-8"))
    for record in records:
        record["answer"] = REFUSAL
    (folder / "ANALOGY.json").write_text(json.dumps(records), "utf-8")
    result = project.run(model="replay:results/infer/some-model")
    assert result.ret == 4
    assert "Privacy/Analogy.json: a second answer for" in result.stderr.str().replace("\n", " ")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: d.pop("judge_result"), "has no list 'judge_result'"),
        (lambda d: d["judge_result"].append(3), "record 11: must be an object, not int"),
        (lambda d: d["judge_result"][0].pop("question"), "record 1: 'question' is missing"),
        (lambda d: d["judge_result"][0].update(answer=None), "record 1: 'answer' is missing"),
        (lambda d: d["judge_result"][0].update(answer=3), "record 1: 'answer' cannot be int"),
        (lambda d: d["judge_result"][0].update(question="another"), "no instance there has its"),
        (lambda d: d["judge_result"].append(d["judge_result"][2]), "record 11: there are more"),
    ],
)
def test_labels_that_cannot_be_are_refused_on_one_line(
    project: Project, tree: Results, change: Callable[[Any], object], named: str
) -> None:
    path = tree.write() / "harmbench/some-model/Privacy/Temporal_Jump.json"
    document = json.loads(path.read_text("utf-8"))
    change(document)
    path.write_text(json.dumps(document), "utf-8")
    dataset = data.load("jsonl:instances.jsonl", base=project.path)
    with pytest.raises(DataError) as caught:
        UpstreamJudge.from_path(path.parent.parent, dataset.instances)
    line = str(caught.value)
    assert line.startswith("labels: Privacy/Temporal_Jump.json")
    assert named in line
    assert line.isprintable()


def test_a_folder_without_labels_is_exit_4(project: Project, tree: Results) -> None:
    (tree.write() / "empty").mkdir()
    for folder, named in (
        ("gone", "No such file"),
        ("results/empty", "holds no <Category>/<Relation>.json"),
        ("results/harmbench", "give the folder of one model, harmbench/<model>"),
    ):
        result = project.run(f"--mir-judge=upstream:{folder}", model="replay:answers.jsonl")
        assert result.ret == 4
        assert named in result.stderr.str().replace("\n", " ")


def test_a_configured_folder_of_labels_is_beside_the_configuration(
    project: Project, tree: Results
) -> None:
    tree.write("conf/results")
    text = 'judge = "upstream:results/harmbench/some-model"\ndata = "jsonl:../instances.jsonl"\n'
    project.write("conf/mirsafety.toml", f"{text}thresholds.overall = 0.9")
    summary = project.summary(
        "--mir-config=conf/mirsafety.toml", model="replay:conf/results/infer/some-model"
    )
    assert reasons(summary) == EXPECTED


def instance(number: int, question: str = "q") -> Instance:
    name = f"privacy/analogy/{number}"
    return Instance(name, Relation.ANALOGY, Category.PRIVACY, question, name, ())


def judge_of(root: Path, entries: list[dict[str, object]]) -> UpstreamJudge:
    path = root / "Privacy" / "Analogy.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"judge_result": entries}), "utf-8")
    return UpstreamJudge.from_path(root, [instance(n) for n in range(4)])


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["safe", "unsafe", "Safe", " safe", "safe\n", "", None, 1, True]),
            st.text(),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_only_the_two_words_alone_are_verdicts(
    tmp_path_factory: pytest.TempPathFactory, labels: list[object]
) -> None:
    entries = [{"question": "q", "answer": "a", "label": label} for label in labels]
    judge = judge_of(tmp_path_factory.mktemp("labels"), entries)
    verdict = asyncio.run(judge.judge("q", "a"))
    if set(labels) in ({"safe"}, {"unsafe"}):
        assert verdict.kind == labels[0]
    else:
        assert verdict.kind is VerdictKind.UNDETERMINED
    with pytest.raises(JudgeError, match="no label is recorded"):
        asyncio.run(judge.judge("q", "another"))
    with pytest.raises(JudgeError, match="no label is recorded"):
        asyncio.run(judge.judge("another", "a"))


def test_the_identity_is_of_every_label(tmp_path: Path) -> None:
    entry: dict[str, object] = {"question": "q", "answer": "a", "label": "safe"}
    first = judge_of(tmp_path, [entry]).identity
    assert judge_of(tmp_path, [entry]).identity == first
    assert judge_of(tmp_path, [{**entry, "label": "unsafe"}]).identity != first


# Export


def test_an_export_can_be_gone_on_with_by_upstream(project: Project) -> None:
    """Failures are marked as its harness marks those that it asks again; not-run has no record."""
    project.answers({project.ids[0]: COMPLIANCE, project.ids[1]: "", project.ids[2]: "It depends."})
    lines = (project.path / "answers.jsonl").read_text("utf-8").splitlines()
    project.write("answers.jsonl", "\n".join(lines[:-1]))
    project.run("--mir-run=run", "-k", "not jump/1]")
    assert cli.main(["export", "run", "--upstream=out"]) == 0
    analogy, jump = (
        json.loads(path.read_text("utf-8"))
        for path in sorted((project.path / "out/infer/replay-answers.jsonl/Privacy").iterdir())
    )
    assert [r["item_index"] for r in analogy] == list(range(10))
    assert [r["item_index"] for r in jump] == list(range(1, 10)), "the first was left out by -k"
    assert jump[-1]["inference_status"] == "failed"
    assert jump[-1]["answer"].startswith("[INFERENCE_FAILED: backend-error: no recorded answer")
    assert list(analogy[0]) == ["item_index", "original_question", "revised_prompt", "answer"]
    assert analogy[0]["original_question"] == project.instances[0]["question"]
    labels = json.loads(
        (project.path / "out/harmbench/replay-answers.jsonl/Privacy/Analogy.json").read_text()
    )
    assert labels["ASR"] == 12.5
    assert len(labels["judge_result"]) == 8, "a blank one and an undetermined one have no label"
    assert labels["judge_result"][0] == {
        "question": project.instances[0]["question"],
        "answer": COMPLIANCE,
        "label": "unsafe",
    }


@given(worlds())
def test_any_runs_labels_sum_up_to_its_counts(made: World) -> None:
    run = made.recorded()
    dataset = Dataset("d", None, run.provenance.data_identity, made.instances)
    found = upstream.results(run, dataset, lambda _: Exchange(answer="a"), "m")
    counts = made.whole().overall.counts
    assert (found.unsafe, found.scored) == (counts.unsafe, counts.scored)
    assert found.records + found.missing == len(run.outcomes)
    labels = [
        entry["label"]
        for name, content in found.files.items()
        if name.startswith("harmbench/")
        for entry in json.loads(content)["judge_result"]
    ]
    assert (labels.count("unsafe"), len(labels)) == (counts.unsafe, counts.scored)


def test_what_cannot_be_exported_is_refused(project: Project, capsys: Shown) -> None:
    project.run("--mir-run=run")
    project.run("--mir-run=shard", "--mir-shard=1/2")
    (project.path / "out/infer/m").mkdir(parents=True)
    for arguments, named in (
        ([], "name at least one of --upstream"),
        (["--upstream=run/out"], "would be written into the run"),
        (["--csv=run/results.jsonl"], "would be written into the run"),
        (["--upstream=out", "--name=m"], "is there already"),
        (["--upstream=out", "--name=../m"], "--name: a folder's name"),
        (["--upstream=out2", "--data=sample"], "is not the data that the run asked"),
        (["--upstream=out2", "--data=jsonl:gone.jsonl"], "gone.jsonl"),
        (["--dataset=images"], "is no empty folder"),
        (["--dataset=d", "--license=MIT License"], "--license: an identifier"),
        (["--csv=answers.jsonl/table.csv"], "cannot be written"),
    ):
        assert cli.main(["export", "run", *arguments]) == 4, arguments
        error = capsys.readouterr().err
        assert named in error
        assert error.count("\n") == 1
    assert cli.main(["export", "shard", "--csv=t.csv"]) == 4
    assert "is shard 1/2 of a run" in capsys.readouterr().err
    assert not (project.path / "out2").exists()


def test_no_placeholder_stands_for_an_answer_that_is_not_kept(project: Project) -> None:
    """Upstream's judge would find a placeholder harmless."""
    project.run("--mir-run=run")
    recorded = run_folder.read(project.path / "run")
    dataset = data.load("jsonl:instances.jsonl", base=project.path)
    with pytest.raises(DataError, match="is not kept"):
        upstream.results(recorded, dataset, lambda _: None, "m")


@pytest.mark.parametrize(
    ("model", "folder"),
    [
        ("llava-ov", "llava-ov"),
        ("vllm:org/model", "vllm-org-model"),
        ("http://127.0.0.1:8000/v1#m", "http-127.0.0.1-8000-v1-m"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", "model"),
        ("\x00\u202e", "model"),
        ("x" * 500, "x" * 100),
    ],
)
def test_a_models_name_is_a_folders(model: str, folder: str) -> None:
    assert upstream.folder_name(model) == folder


def test_reasons_cover_all_that_an_import_can_meet() -> None:
    met = {value for value in EXPECTED.values() if value not in ("safe", "unsafe")}
    assert met == set(Reason) - {
        Reason.TRUNCATED,  # upstream records no finish reason
        Reason.FILTERED,
        Reason.BAD_INPUT,  # nothing is read of the images
        Reason.MODE_UNKNOWN,
        Reason.UNSAFE_BEFORE,
    }
