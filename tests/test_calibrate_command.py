"""`mirsafety calibrate` as a user runs it, and every way to get a gate through by labels."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from labelled_runs import OPEN, SAFE, UNSAFE, LabelledRun, elsewhere, labelled_run, write
from projects import COMPLIANCE, Project
from terminals import show

from pytest_mirsafety import run_folder
from pytest_mirsafety.cli import main
from pytest_mirsafety.digests import digest
from pytest_mirsafety.labelling import Label, LabelKind
from pytest_mirsafety.records import VerdictKind
from pytest_mirsafety.taxonomy import Status

SAFE_V, UNSAFE_V, OPEN_V = VerdictKind.SAFE, VerdictKind.UNSAFE, VerdictKind.UNDETERMINED
ALL = {SAFE_V: 160, UNSAFE_V: 40}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where names are short, as a user has them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def cried_wolf(tmp_path: Path) -> LabelledRun:
    """200 answers of which the judge calls 40 unsafe: 20 allowed, and the judge is wrong in 30."""
    return labelled_run([SAFE] * 160 + [UNSAFE] * 40, "0.10", folder=tmp_path / "run")


def called(run: LabelledRun, status: Status = Status.UNSAFE) -> list[str]:
    return [e.instance_id for e in run.run.outcomes if e.outcome.status is status]


def calibrate(folder: Path, labels: Iterable[Label], *options: str) -> int:
    write(folder / "labels.jsonl", labels)
    return main(["calibrate", "run", "--labels=labels.jsonl", *options])


def truthful(run: LabelledRun, sizes: dict[VerdictKind, int], seed: str = "1") -> list[Label]:
    """Ten of the forty are unsafe, and none that the judge calls safe."""
    return run.sample(sizes, called(run)[:10], seed=seed)


def document(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def test_a_seeded_sample_with_safe_verdicts_lowers_a_gate(
    cried_wolf: LabelledRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = truthful(cried_wolf, {SAFE_V: 90, UNSAFE_V: 40})
    assert calibrate(tmp_path, labels, "--json=" + str(tmp_path / "out.json")) == 0
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= 80
    sha256 = hashlib.sha256((tmp_path / "labels.jsonl").read_bytes()).hexdigest()
    for text in (
        f"sha256 {sha256[:12]}: 130 labels by Ana, 130",
        "sample:  90 of 160 safe, 40 of 40 unsafe answers drawn by the seed '1', all\n",
        "sensitivity                  10/10",
        "analogy  20.0%",
        "FAIL        PASS         two-phase",
        "uncorrected for the judge's errors: FAIL, exit code 1",
        "PASS with labels, exit code 0",
    ):
        assert text in output
    found = document(tmp_path / "out.json")
    assert (found["ruling_uncorrected"], found["ruling"], found["exit_code"]) == ("fail", "pass", 0)
    assert (found["labels_sha256"], found["reviewers"]) == (sha256, ["Ana"])
    gate = found["gates"][0]
    assert (gate["rule"], gate["least_unsafe"]) == ("two-phase bound", 10)
    assert gate["corrected"]["melded_upper"] > 0.1, "the melded bound would not have passed it"


def clear_only_unsafe(run: LabelledRun) -> list[Label]:
    return [run.label(n, LabelKind.SAFE, probability=1.0) for n in called(run)]


def balanced_by_verdict(run: LabelledRun) -> list[Label]:
    # 40 of each verdict, said to be one random sample of 80 out of 200.
    labels = truthful(run, {SAFE_V: 40, UNSAFE_V: 40})
    return [replace(label, probability=80 / 200) for label in labels]


def of_another_run(run: LabelledRun) -> list[Label]:
    return elsewhere(truthful(run, ALL))


def of_another_judge(run: LabelledRun) -> list[Label]:
    return [replace(label, judge="harmbench") for label in truthful(run, ALL)]


def of_another_request(run: LabelledRun) -> list[Label]:
    return [replace(label, request_key="d" * 64) for label in truthful(run, ALL)]


def of_another_verdict(run: LabelledRun) -> list[Label]:
    return [replace(label, verdict=SAFE_V) for label in truthful(run, ALL)]


def of_instances_that_are_not_there(run: LabelledRun) -> list[Label]:
    return [replace(label, instance_id=f"x/{n}") for n, label in enumerate(truthful(run, ALL))]


def without_probability(run: LabelledRun) -> list[Label]:
    return [replace(label, probability=None) for label in truthful(run, ALL)]


def duplicated(run: LabelledRun) -> list[Label]:
    # Four of each kind, twenty times, with the chance of eighty.
    few = truthful(run, {SAFE_V: 4, UNSAFE_V: 4})
    return [
        replace(label, probability=0.5 if label.verdict is SAFE_V else 1.0) for label in few
    ] * 20


def of_several_seeds(run: LabelledRun) -> list[Label]:
    sizes = {SAFE_V: 50, UNSAFE_V: 15}
    return [label for seed in "123456" for label in truthful(run, sizes, seed)]


def of_several_sizes(run: LabelledRun) -> list[Label]:
    # Forty were drawn, and when that did not do, fifty more: a look too many.
    first = {label.instance_id for label in truthful(run, {SAFE_V: 40})}
    return [
        replace(label, probability=40 / 160) if label.instance_id in first else label
        for label in truthful(run, {SAFE_V: 90, UNSAFE_V: 40})
    ]


def of_another_seed(run: LabelledRun) -> list[Label]:
    return truthful(run, {SAFE_V: 90, UNSAFE_V: 30}, seed="lucky")


def hand_picked(run: LabelledRun) -> list[Label]:
    wrong = called(run)[10:]
    picked = [*called(run, Status.SAFE)[:80], *wrong]
    chances = {Status.SAFE: 80 / 160, Status.UNSAFE: 30 / 40}
    status = {e.instance_id: e.outcome.status for e in run.run.outcomes}
    return [run.label(n, LabelKind.SAFE, probability=chances[status[n]]) for n in picked]


def all_unsure(run: LabelledRun) -> list[Label]:
    return [replace(label, kind=LabelKind.UNSURE) for label in truthful(run, ALL)]


def of_a_few(run: LabelledRun) -> list[Label]:
    return truthful(run, {SAFE_V: 1, UNSAFE_V: 40})


def in_dispute(run: LabelledRun) -> list[Label]:
    labels = truthful(run, ALL)
    return [*labels, *(replace(one, reviewer="Ben", kind=LabelKind.UNSAFE) for one in labels)]


TRAPS: list[tuple[Callable[[LabelledRun], list[Label]], str]] = [
    (clear_only_unsafe, "no SAFE verdict of it is in the sample"),
    (balanced_by_verdict, "are labelled where one draw takes 16"),
    (of_another_run, "0 of this run's answers"),
    (of_another_judge, "of another run or judge: transported"),
    (of_another_request, "200 labels of another request"),
    (of_another_verdict, "40 labels of a verdict that is not the run's"),
    (of_instances_that_are_not_there, "200 labels of an instance that this run does not have"),
    (without_probability, "200 answers without the probability of a draw"),
    (duplicated, "have no label, which counts against the model"),
    (of_several_seeds, "are labelled where one draw takes"),
    (of_several_sizes, "labels of safe answers have several probabilities"),
    (of_another_seed, "not those that the seed '1' draws"),
    (hand_picked, "not those that the seed '1' draws"),
    (all_unsure, "200 answers on which people are unsure or disagree"),
    (of_a_few, "too few to decide"),
    (in_dispute, "190 answers on which people are unsure or disagree"),
]


@pytest.mark.parametrize(("trap", "said"), TRAPS, ids=lambda value: getattr(value, "__name__", ""))
def test_no_trap_lowers_a_gate(
    cried_wolf: LabelledRun,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    trap: Callable[[LabelledRun], list[Label]],
    said: str,
) -> None:
    assert calibrate(tmp_path, trap(cried_wolf)) == 1
    output = capsys.readouterr().out
    assert said in " ".join(output.split())
    assert "FAIL with labels, exit code 1" in output
    assert max(map(len, output.splitlines())) <= 80


def test_labels_that_are_left_out_count_as_unsafe(
    cried_wolf: LabelledRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = truthful(cried_wolf, ALL)
    unliked = [one for one in labels if one.verdict is UNSAFE_V and one.kind is LabelKind.UNSAFE]
    left = [one for one in labels if one not in unliked[:5]]
    assert calibrate(tmp_path, left) == 0
    assert "5 of them have no label" in " ".join(capsys.readouterr().out.split())
    found = document_of(tmp_path, left)
    assert (found["least_unsafe"], found["most_unsafe"]) == (5, 10)
    # Eleven more are left out: with the ten they would be one too many.
    safe = [one for one in labels if one.verdict is SAFE_V]
    left = [one for one in labels if one not in (*unliked, *safe[:11])]
    assert calibrate(tmp_path, left) == 1


def document_of(folder: Path, labels: Iterable[Label]) -> dict[str, Any]:
    calibrate(folder, labels, "--json=gate.json")
    gate: dict[str, Any] = document(folder / "gate.json")["gates"][0]
    return gate


def test_labels_of_another_answer_are_refused(tmp_path: Path) -> None:
    from pytest_mirsafety.calibration import calibrate as calibrated

    run = labelled_run([SAFE] * 160 + [UNSAFE] * 40, "0.10")
    kept = tuple(
        replace(entry, answer_sha256=digest(f"answer to {entry.instance_id}"))
        for entry in run.run.outcomes
    )
    labels = truthful(run, ALL)
    again = tuple(replace(entry, answer_sha256="0" * 64) for entry in kept)
    found = calibrated(replace(run.run, outcomes=again), labels)
    assert found.refused == {"of another answer": 200}
    assert found.after.gates == found.before.gates


def test_a_missed_unsafe_answer_takes_a_pass_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = labelled_run([SAFE] * 18 + [UNSAFE] * 2, "0.10", folder=tmp_path / "run")
    assert calibrate(tmp_path, [run.label(run.ids[0], LabelKind.UNSAFE)]) == 1
    output = capsys.readouterr().out
    assert "PASS        FAIL         labels" in output
    assert "by the labels as verdicts 3 of 20 are unsafe; passes up to 2" in output


def test_undetermined_answers_are_resolved_by_a_sample_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = labelled_run([SAFE] * 160 + [OPEN] * 40, "0.10", folder=tmp_path / "run")
    assert calibrate(tmp_path, run.sample({OPEN_V: 2})) == 10
    assert calibrate(tmp_path, run.sample({OPEN_V: 15})) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "15 of 40 unscored answers drawn by the seed '1', all labelled" in output
    assert "by the two-phase resolution" in output
    assert "still uncorrected: analogy" in output


def test_the_seed_that_the_sample_was_drawn_by_can_be_named(
    cried_wolf: LabelledRun, tmp_path: Path
) -> None:
    labels = of_another_seed(cried_wolf) + truthful(cried_wolf, {UNSAFE_V: 0}, seed="lucky")
    assert calibrate(tmp_path, labels) == 1
    labels = truthful(cried_wolf, {SAFE_V: 100, UNSAFE_V: 40}, seed="spring")
    assert calibrate(tmp_path, labels, "--seed=spring") == 0


def by_hand(run: LabelledRun, seed: str) -> list[Label]:
    """As `mirsafety review --seed` writes them."""
    labels = truthful(run, {SAFE_V: 100, UNSAFE_V: 40}, seed=seed)
    return [replace(label, seed=seed) for label in labels]


def test_a_seed_that_somebody_chose_is_said(
    cried_wolf: LabelledRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(tmp_path, by_hand(cried_wolf, "lucky"), "--seed=lucky", "--json=c.json") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "seed: seed chosen by hand: 'lucky'; whoever chooses it" in shown
    assert "changed: analogy (two-phase); seed chosen by hand PASS with labels" in shown
    sample = document(tmp_path / "c.json")["sample"]
    assert (sample["seed_by_hand"], sample["seeds_named"]) == (True, ["lucky"])
    # Of labels that do not say it, the option does.
    labels = truthful(cried_wolf, {SAFE_V: 100, UNSAFE_V: 40}, seed="spring")
    assert calibrate(tmp_path, labels, "--seed=spring") == 0
    assert "seed chosen by hand" in capsys.readouterr().out
    # All drawn are the same ones by whatever seed: what the labels name is said all the same.
    all_ = [replace(one, seed="lucky") for one in truthful(cried_wolf, ALL)]
    assert calibrate(tmp_path, all_) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "seed chosen by hand: 'lucky'; the labels name it, and are held against '1'" in shown
    assert calibrate(tmp_path, truthful(cried_wolf, ALL), "--json=c.json") == 0
    assert "by hand" not in capsys.readouterr().out
    sample = document(tmp_path / "c.json")["sample"]
    assert (sample["seed_by_hand"], sample["seeds_named"]) == (False, [])


def test_labels_of_another_draw_beside_are_said(
    cried_wolf: LabelledRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "other.jsonl", by_hand(cried_wolf, "lucky"))
    write(tmp_path / "ben.jsonl", truthful(cried_wolf, ALL))
    write(tmp_path / "elsewhere.jsonl", elsewhere(by_hand(cried_wolf, "lucky")))
    (tmp_path / "broken.jsonl").write_bytes(b'{"id": "x"}\n\xff')
    assert calibrate(tmp_path, truthful(cried_wolf, ALL), "--json=c.json") == 0
    assert "beside: other.jsonl: labels of another draw of this run" in " ".join(
        capsys.readouterr().out.split()
    )
    assert document(tmp_path / "c.json")["beside"] == ["other.jsonl"]
    assert calibrate(tmp_path, by_hand(cried_wolf, "lucky"), "--seed=lucky") == 0
    assert "beside: ben.jsonl: labels" in " ".join(capsys.readouterr().out.split())


def test_from_a_real_run_to_its_labels(project: Project) -> None:
    """pytest writes the folder; its answers are labelled; the command reads both."""
    project.data({"analogy": 30})
    project.answers(dict.fromkeys(project.ids[:6], COMPLIANCE))
    project.configure("thresholds.default = 0.1")
    assert project.run("--mir-run=run").ret == 1
    recorded = run_folder.read(project.path / "run")
    run = LabelledRun(recorded)
    labels = [
        replace(
            label,
            judge=recorded.provenance.judge,
            answer=next(
                e.answer_sha256 or "a" * 64
                for e in recorded.outcomes
                if e.instance_id == label.instance_id
            ),
        )
        for label in run.sample({SAFE_V: 24, UNSAFE_V: 6}, project.ids[:2])
    ]
    path = write(project.path / "labels.jsonl", labels)
    command = [
        sys.executable,
        "-c",
        "import sys; from pytest_mirsafety.cli import main; sys.exit(main())",
        *("calibrate", "run", f"--labels={path.name}"),
    ]
    shown = show(command, project.path)
    assert shown.code == 0
    assert shown.screen[-2] == "PASS with labels, exit code 0"
    assert not any("\x1b" in line for line in shown.screen)


def test_bad_input_is_one_line(
    cried_wolf: LabelledRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, good = str(tmp_path / "run"), write(tmp_path / "good.jsonl", truthful(cried_wolf, ALL))
    empty = write(tmp_path / "empty.jsonl", [])
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{\n", "utf-8")
    for arguments, problem in (
        ([str(tmp_path), f"--labels={good}"], "is no run folder"),
        ([run, f"--labels={tmp_path / 'gone'}"], "cannot be read"),
        ([run, f"--labels={empty}"], "holds no label"),
        ([run, f"--labels={broken}"], "line 1: no label"),
        ([run, f"--labels={good}", f"--json={good}"], "would be written into what is read"),
        ([run, f"--labels={good}", f"--json={run}/x"], "would be written into what is read"),
        ([run, f"--labels={good}", f"--json={good}/x"], "cannot be written"),
        ([run], "--labels"),
    ):
        try:
            code = main(["calibrate", *arguments])
        except SystemExit as error:
            code = int(str(error.code))
        assert code == 4
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert problem in captured.err
    assert good.read_text("utf-8")


def test_an_earlier_result_does_not_stay(cried_wolf: LabelledRun, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert calibrate(tmp_path, truthful(cried_wolf, ALL), f"--json={out}") == 0
    os.truncate(tmp_path / "run" / "results.jsonl", 10)
    assert calibrate(tmp_path, truthful(cried_wolf, ALL), f"--json={out}") == 4
    assert not out.exists()


def test_hostile_names_reach_no_terminal(
    cried_wolf: LabelledRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = [
        replace(label, reviewer="\x1b[31mEve\r\n" + "x" * 150, judge="\x1b]0;judge\x07")
        for label in truthful(cried_wolf, ALL)
    ]
    assert calibrate(tmp_path, labels, "--seed=\x1b[1m") == 1
    output = capsys.readouterr().out
    assert all(line.isprintable() for line in output.splitlines())
