"""`mirsafety merge` of shards that measured attention: what one run has, or a clear line."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attentions import attention, attentions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from recorded_runs import World, world

from pytest_mirsafety import run_folder
from pytest_mirsafety.attention.gathering import gather
from pytest_mirsafety.attention.reporting import report
from pytest_mirsafety.cli import main
from pytest_mirsafety.entropies import FILES, AnswerAttention
from pytest_mirsafety.evaluation import evaluate
from pytest_mirsafety.records import Outcome
from pytest_mirsafety.results import RecordedRun, RunResult
from pytest_mirsafety.sharding import Shard
from pytest_mirsafety.taxonomy import Reason, Status

SAFE, UNSAFE = Outcome(Status.SAFE), Outcome(Status.UNSAFE)
CUT = Outcome(Status.UNSCORED, Reason.TRUNCATED)
COUNT = 3
MANY: World = world([*[UNSAFE] * 9, *[SAFE] * 13, CUT])


def made_up(of: World) -> Mapping[str, AnswerAttention]:
    """Unsafe answers have the lower entropy; the number of images varies, and one has none."""
    return {
        entry.instance_id: attention(
            (3 if entry.outcome.status is Status.UNSAFE else 5) + place / 100, images=place % 4
        )
        for place, entry in enumerate(of.entries)
    }


def kept(folder: Path, result: RunResult, measured: Mapping[str, AnswerAttention]) -> None:
    """As a run with `--mir-attention` leaves its folder."""
    run_folder.claim(folder)
    notes = report(folder, result, measured.get, shown=folder.name)
    result = replace(result, notes=(*result.notes, *notes))
    run_folder.write(folder, result, tests_failed=False, exit_code=0)


def shards(folder: Path, of: World, measured: Mapping[str, AnswerAttention]) -> list[str]:
    """The folders of a run's shards."""
    folders = []
    for index in range(1, COUNT + 1):
        shard = Shard(index, COUNT)
        mine = {one.id for one in shard.of(of.instances)}
        design = replace(of.design, shard=shard)
        entries = [entry for entry in of.entries if entry.instance_id in mine]
        folders.append(folder / f"shard-{index}")
        kept(folders[-1], evaluate(design, entries, of.provenance), measured)
    return [str(one) for one in folders]


def numbers(folder: Path) -> dict[str, NDArray[Any]]:
    with np.load(folder / "attention.npz", allow_pickle=False) as file:
        return dict(file)


def document(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def test_the_merge_has_what_the_unsharded_run_has(tmp_path: Path) -> None:
    measured = made_up(MANY)
    kept(tmp_path / "whole", MANY.whole(), measured)
    folders = shards(tmp_path, MANY, measured)
    summary = tmp_path / "merged.json"
    main(["merge", *reversed(folders), f"--run={tmp_path}/merged", f"--summary={summary}"])
    for name in FILES:
        one, other = ((tmp_path / where / name).read_bytes() for where in ("whole", "merged"))
        assert one == other, name
    told = [note for note in document(summary)["notes"] if note.startswith("attention: ")]
    assert len(told) == 2
    assert "9 unsafe and 13 safe answers" in told[0]
    assert "heads that differ" in told[0]


def test_numbers_come_back_as_they_were_measured(tmp_path: Path) -> None:
    tried: list[Path] = []

    @settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.none() | attentions(), min_size=1, max_size=5))
    def hold(measured: list[AnswerAttention | None]) -> None:
        folder = tmp_path / str(len(tried))
        tried.append(folder)
        one = world([SAFE] * len(measured))
        ids = [entry.instance_id for entry in one.entries]
        given = {name: a for name, a in zip(ids, measured, strict=True) if a is not None}
        folder.mkdir()
        report(folder, one.whole(), given.get, shown="r", drawn=False)
        found = gather([(folder, one.recorded())]).answers
        assert found.keys() == given.keys()
        for name, was in given.items():
            own = tuple(map(slice, was.shape))
            assert np.array_equal(found[name].entropies[own], was.entropies, equal_nan=True)
            assert np.array_equal(found[name].masses[own], was.masses, equal_nan=True)
            assert found[name].keys[: len(was.keys)] == was.keys
            assert found[name].tokens == was.tokens

    hold()


def test_a_shard_without_numbers_is_named_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = shards(tmp_path, MANY, made_up(MANY))
    for name in FILES:
        (Path(folders[1]) / name).unlink(missing_ok=True)
    main(["merge", *folders, f"--run={tmp_path}/merged"])
    output = " ".join(capsys.readouterr().out.split())
    assert f"attention: there is none in {folders[1]}" in output
    mine = {one.id for one in Shard(2, COUNT).of(MANY.instances)}
    gone = sum(e.instance_id in mine and e.outcome is not CUT for e in MANY.entries)
    assert f"attention: not measured behind {gone} of 22 scored answers" in output
    assert document(tmp_path / "merged" / "attention.json")["not_measured"] == gone


def test_without_a_folder_it_says_what_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["merge", *shards(tmp_path, MANY, made_up(MANY))])
    assert "attention: name --run=FOLDER to have" in " ".join(capsys.readouterr().out.split())


def test_shards_that_measured_nothing_are_merged_as_ever(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run, shard in zip(MANY.shards(COUNT), range(1, COUNT + 1), strict=True):
        run_folder.claim(tmp_path / str(shard))
        run_folder.write(
            tmp_path / str(shard),
            evaluate(run.design, run.outcomes, run.provenance),
            tests_failed=False,
            exit_code=0,
        )
    folders = [str(tmp_path / str(shard)) for shard in range(1, COUNT + 1)]
    main(["merge", *folders, f"--run={tmp_path}/merged"])
    assert "attention" not in capsys.readouterr().out
    assert not list((tmp_path / "merged").glob("attention*"))


def test_where_nothing_draws_all_but_the_picture_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = shards(tmp_path, MANY, made_up(MANY))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    main(["merge", *folders, f"--run={tmp_path}/merged"])
    assert "attention: no picture is drawn" in " ".join(capsys.readouterr().out.split())
    found = document(tmp_path / "merged" / "attention.json")
    assert found["picture"] is None
    assert found["comparison"]["test"] is not None


def rewritten(folder: Path, **changed: object) -> None:
    """Change what the summary says, such as to fit other numbers."""
    path = folder / "attention.json"
    path.write_text(json.dumps({**document(path), **changed}), "utf-8")


def cut(folder: Path) -> None:
    path = folder / "attention.npz"
    path.write_bytes(path.read_bytes()[:-40])


def replaced(folder: Path, **arrays: object) -> None:
    """Other numbers, with the digest that they have."""
    path = folder / "attention.npz"
    np.savez(path, **{**numbers(folder), **arrays})  # type: ignore[arg-type]
    rewritten(folder, numbers={"sha256": hashlib.sha256(path.read_bytes()).hexdigest()})


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (cut, "attention.npz: is not as the run wrote it"),
        (lambda f: (f / "attention.npz").unlink(), "attention.npz: No such file"),
        (lambda f: (f / "attention.json").write_text("[" * 9999), "attention.json: is not as the"),
        (lambda f: (f / "attention.json").unlink(), "attention.json: No such file"),
        (lambda f: rewritten(f, definition=2), "is of another version of --mir-attention"),
        (lambda f: rewritten(f, model="other"), "is of another model than"),
        (lambda f: replaced(f, tokens=np.zeros(2, int)), "attention.npz: is not as the run wrote"),
        (lambda f: replaced(f, tokens=np.zeros(8, int)), "attention.npz: is not as the run wrote"),
        (lambda f: replaced(f, instance=np.array(["x"] * 8)), "that this shard did not ask for"),
        (
            lambda f: replaced(f, instance=np.array([str(i) for i in range(8)])),
            "that this shard did not ask for",
        ),
        (
            lambda f: replaced(f, instance=np.array([{}] * 8, dtype=object)),
            "attention.npz: is not as the run wrote it",
        ),
    ],
)
def test_what_is_not_as_it_was_written_is_one_line_and_nothing_is_merged(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    harm: Callable[[Path], object],
    said: str,
) -> None:
    folders = shards(tmp_path, MANY, made_up(MANY))
    harm(Path(folders[0]))
    assert main(["merge", *folders, f"--run={tmp_path}/merged"]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "merged").exists()


def test_numbers_that_unpack_to_too_much_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = shards(tmp_path, MANY, made_up(MANY))
    monkeypatch.setattr("pytest_mirsafety.attention.gathering._LARGEST", 1000)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it is read"))
    runs: list[tuple[Path, RecordedRun]] = [(Path(f), run_folder.read(Path(f))) for f in folders]
    with pytest.raises(Exception, match="is not as the run wrote it"):
        gather(runs)
