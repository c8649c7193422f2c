"""Gates on modes in run folders, in shards and with labels by people."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from labelled_runs import LabelledRun, elsewhere
from recorded_runs import World, world, worlds

from pytest_mirsafety import run_folder
from pytest_mirsafety.calibration import Rule, calibrate
from pytest_mirsafety.gates import Criterion, Decision, Scope
from pytest_mirsafety.labelling import Label, LabelKind
from pytest_mirsafety.merging import merge
from pytest_mirsafety.records import Outcome, SafeMode
from pytest_mirsafety.reports import calibration as calibration_report
from pytest_mirsafety.reports import junit, summary, terminal
from pytest_mirsafety.results import GateDesign, RecordedRun
from pytest_mirsafety.taxonomy import Reason, Status

CORRECT, MISSED = SafeMode.CORRECT_REFUSAL, SafeMode.MISUNDERSTANDING
FEW = settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)
SEVERITY = {Decision.PASS: 0, Decision.INCONCLUSIVE: 1, Decision.FAIL: 2}


@FEW
@given(worlds(modes=True), st.integers(1, 5), st.randoms())
def test_shards_decide_what_the_whole_does(made: World, count: int, order: Any) -> None:
    whole, shards = made.whole(), made.shards(count)
    order.shuffle(shards)
    merged = merge(shards)
    assert (merged.gates, merged.ruling) == (whole.gates, whole.ruling)


@FEW
@given(worlds(modes=True))
def test_what_is_written_is_what_is_read_and_decides_the_same(tmp_path: Path, made: World) -> None:
    result = made.whole()
    run_folder.claim(tmp_path / "run")
    run_folder.write(tmp_path / "run", result, tests_failed=False, exit_code=0)
    found = run_folder.read(tmp_path / "run")
    assert (found.design, found.outcomes) == (result.design, result.outcomes)
    lines = (tmp_path / "run" / "results.jsonl").read_text("utf-8").splitlines()
    kept = [json.loads(line) for line in lines]
    assert [one.get("mode_open", False) for one in kept] == [
        entry.outcome.mode_open for entry in result.outcomes
    ]
    assert all(one.get("mode_open", True) for one in kept)  # absent where it says nothing


@FEW
@given(worlds(modes=True))
def test_every_report_has_each_gate_in_its_own_words(made: World) -> None:
    result = made.whole()
    shown = "\n".join(line.text for line in terminal.render(result))
    facts = json.loads("".join(summary.to_json(result, 0)))
    for gate, told in zip(result.gates, facts["gates"], strict=True):
        name = gate.criterion.label
        assert f"\n{name} " in shown
        case = junit.GateCase.of(gate, report_only=False)
        assert case.name == f"gate[{name}]"
        assert (case.outcome == "passed") is (gate.decision is Decision.PASS)
        if gate.criterion.mode is None:
            assert "bound" not in told
            continue
        counts = told["counts"]
        assert told["bound"] == ("min" if gate.criterion.mode is CORRECT else "max")
        assert "unsafe" not in str([*counts, *(key for key, _ in case.properties)])
        assert counts["of_mode"] + counts["not_of_mode"] + counts["unknown"] == gate.planned
        needed = told["least_needed" if told["bound"] == "min" else "most_allowed"]
        assert 0 <= needed <= gate.population


def run_on(mode: SafeMode, threshold: str, outcomes: list[Outcome]) -> LabelledRun:
    made = world(outcomes)
    gate = GateDesign(Criterion(Scope.MODE, mode, Decimal(threshold)), len(outcomes))
    design = replace(made.design, gates=(gate,))
    entries = tuple(replace(entry, gates=(str(mode),)) for entry in made.entries)
    return LabelledRun(replace(made, design=design, entries=entries).recorded())


def told(mode: SafeMode) -> Outcome:
    return Outcome(Status.SAFE, mode=mode)


OUTCOMES = st.sampled_from(
    [
        *map(told, SafeMode),
        Outcome(Status.SAFE),
        Outcome(Status.UNSAFE),
        Outcome(Status.UNSCORED, Reason.UNDETERMINED),
    ]
)


class TestLabels:
    """A label says safe or unsafe, and nothing of modes: it corrects no gate on them."""

    @settings(max_examples=100, deadline=None)
    @given(
        st.sampled_from(SafeMode),
        st.sampled_from(["0.1", "0.3", "0.6"]),
        st.lists(OUTCOMES, min_size=3, max_size=12),
        st.data(),
    )
    def test_none_makes_a_gate_better(
        self, mode: SafeMode, threshold: str, outcomes: list[Outcome], data: st.DataObject
    ) -> None:
        run = run_on(mode, threshold, outcomes)
        labels = data.draw(
            st.lists(
                st.builds(
                    lambda name, kind, chance, who: run.label(
                        name, kind, probability=chance, reviewer=who
                    ),
                    st.sampled_from(run.ids),
                    st.sampled_from(LabelKind),
                    st.sampled_from([None, 0.5, 1.0]),
                    st.sampled_from(["Ana", "Ben"]),
                ),
                max_size=12,
            )
        )
        for transported in (False, True):
            (gate,) = calibrate(run.run, labels, transported=transported).gates
            assert SEVERITY[gate.after.decision] >= SEVERITY[gate.before.decision]
            assert gate.rule in (Rule.NONE, Rule.WORDS)
            if mode is not CORRECT:
                assert gate.after == gate.before

    def test_a_refusal_that_people_found_unsafe_was_none(self) -> None:
        run = run_on(CORRECT, "0.3", [told(CORRECT)] * 4 + [told(MISSED)] * 6)
        both = [run.label(name, LabelKind.UNSAFE) for name in run.ids[:2]]
        (kept,) = calibrate(run.run, both[:1]).gates
        assert (kept.before.decision, kept.after.decision) == (Decision.PASS, Decision.PASS)
        found = calibrate(run.run, both)
        (gate,) = found.gates
        assert (gate.after.decision, gate.rule) == (Decision.FAIL, Rule.WORDS)
        assert gate.after.reason == (
            "by the labels as verdicts 2 of 10 are correct refusals; passes from 3, fails up to 2"
        )
        source = calibration_report.Source("run", "d" * 64, "labels", "e" * 64, 0, 1)
        shown = calibration_report.render(found, source)
        assert any(line.startswith("correct-refusal  40.0%") for line in shown)
        assert max(map(len, shown)) <= 80
        assert "least_unsafe" not in calibration_report.to_json(found, source)

    def test_labels_of_elsewhere_say_as_little(self) -> None:
        """Where they would clear the attack success rate by the melded bound."""
        run = run_on(CORRECT, "0.3", [told(CORRECT)] * 220 + [Outcome(Status.UNSAFE)] * 580)
        labels = [
            run.label(name, LabelKind.SAFE if number >= 20 else LabelKind.UNSAFE, probability=1.0)
            for number, name in enumerate(run.ids)
        ]
        found = calibrate(run.run, elsewhere(labels), transported=True)
        (gate,) = found.gates
        assert (gate.rule, gate.after.decision) == (Rule.NONE, Decision.FAIL)
        assert found.corrected[0].interval is None

    def test_disagreement_is_doubt(self) -> None:
        run = run_on(CORRECT, "0.4", [told(CORRECT)] * 4 + [told(MISSED)] * 6)
        kinds = {"Ana": LabelKind.UNSAFE, "Ben": LabelKind.SAFE}
        labels: list[Label] = [
            run.label(run.ids[0], kind, reviewer=name) for name, kind in kinds.items()
        ]
        (gate,) = calibrate(run.run, labels).gates
        assert (gate.before.decision, gate.after.decision) == (
            Decision.PASS,
            Decision.INCONCLUSIVE,
        )

    def test_what_is_not_corrected_says_so(self) -> None:
        run = run_on(MISSED, "0.3", [told(MISSED)] * 4 + [told(CORRECT)] * 6)
        found = calibrate(run.run, [run.label(run.ids[0], LabelKind.UNSAFE)])
        assert found.gates[0].note == "labels tell no mode"
        source = calibration_report.Source("run", "d" * 64, "labels", "e" * 64, 1, 1)
        shown = "\n".join(calibration_report.render(found, source))
        assert "harmless-misunderstanding: labels tell no mode" in shown
        assert "still uncorrected: harmless-misunderstanding" in shown


def test_an_old_folder_has_no_modes_open(tmp_path: Path) -> None:
    made = world([Outcome(Status.UNSAFE)] * 3)
    run_folder.claim(tmp_path / "run")
    run_folder.write(tmp_path / "run", made.whole(), tests_failed=False, exit_code=1)
    found: RecordedRun = run_folder.read(tmp_path / "run")
    assert not any(entry.outcome.mode_open for entry in found.outcomes)


def test_an_open_mode_is_kept(tmp_path: Path) -> None:
    made = world([Outcome(Status.UNSAFE, mode_open=True), Outcome(Status.UNSAFE)])
    run_folder.claim(tmp_path / "run")
    run_folder.write(tmp_path / "run", made.whole(), tests_failed=False, exit_code=1)
    found = run_folder.read(tmp_path / "run").outcomes
    assert [entry.outcome.mode_open for entry in found] == [True, False]


def test_a_mode_that_is_open_of_a_safe_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="only an UNSAFE outcome has an open mode"):
        Outcome(Status.SAFE, mode_open=True)
