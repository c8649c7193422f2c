"""From a run to its labels to its gates: what the review draws is what calibration takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled_runs import OPEN, SAFE, TRUNCATED, UNSAFE, labelled_run
from projects import COMPLIANCE, Project

from pytest_mirsafety import labels, run_folder
from pytest_mirsafety.calibration import calibrate
from pytest_mirsafety.calibration.samples import Draw
from pytest_mirsafety.cli import main
from pytest_mirsafety.digests import text_digest
from pytest_mirsafety.labelling import Label, LabelKind
from pytest_mirsafety.records import Outcome, VerdictKind
from pytest_mirsafety.results import RecordedRun
from pytest_mirsafety.review.drawing import Drawn, Sizes, Stratum, draw

SEED = "1"
KINDS = {
    Stratum.SAFE: VerdictKind.SAFE,
    Stratum.UNSAFE: VerdictKind.UNSAFE,
    Stratum.UNSCORED: VerdictKind.UNDETERMINED,
}


def labelled(run: RecordedRun, drawn: Drawn, kind: LabelKind) -> Label:
    """A label as the page writes it."""
    entry = drawn.entry
    return Label(
        entry.instance_id,
        entry.request_key or "",
        entry.answer_sha256 or "",
        kind,
        "Ana",
        1.0,
        run.digest,
        run.provenance.judge,
        KINDS[drawn.stratum],
        drawn.probability,
    )


@given(
    st.lists(st.sampled_from([SAFE, SAFE, UNSAFE, OPEN, TRUNCATED]), min_size=2, max_size=30),
    st.integers(1, 30),
)
def test_both_draw_the_same_answers_in_the_same_order(outcomes: list[Outcome], size: int) -> None:
    bare = labelled_run([SAFE, *outcomes], "0.2").run
    kept = [replace(one, answer_sha256=text_digest(one.instance_id)) for one in bare.outcomes]
    run = replace(bare, outcomes=tuple(kept))
    parts = Draw(run.digest, run.outcomes, SEED).parts
    sizes = Sizes(parts=dict.fromkeys(Stratum, size))
    drawn = draw(run.outcomes, run.digest, sizes, SEED)
    assert len(drawn) == sum(min(size, len(parts[kind])) for kind in KINDS.values()) > 0
    for stratum, kind in KINDS.items():
        mine = {one.entry.instance_id for one in drawn if one.stratum is stratum}
        assert mine == set(parts[kind][: len(mine)])
        assert {one.probability for one in drawn if one.stratum is stratum} <= {
            len(mine) / max(1, len(parts[kind]))
        }


def test_a_run_is_reviewed_and_calibrated(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project.answers(dict.fromkeys(project.ids[:3], COMPLIANCE))
    assert project.run("--mir-run=run", "--mir-threshold=analogy=0.2").ret in (0, 1)
    run = run_folder.read(project.path / "run")
    path = tmp_path / "labels.jsonl"
    for one in draw(run.outcomes, run.digest, Sizes(total=20), SEED):
        safe = one.stratum is Stratum.SAFE
        kind = LabelKind.SAFE if safe else LabelKind.UNSAFE
        labels.append(path, labelled(run, one, kind))
    found = calibrate(run, labels.read(path))
    assert found.sample.problem is None
    assert found.answers == found.drawn_and_labelled == 20
    assert not found.refused
    capsys.readouterr()
    code = main(["calibrate", str(project.path / "run"), f"--labels={path}"])
    assert code == run.exit_code, "people say what the judge said"
    assert "sensitivity" in capsys.readouterr().out.lower()
