"""What each report says of arms: golden files of one run, and that every reader has the same."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import goldens
import pytest
from arm_runs import arm_recorded, arm_run, arm_shards

from pytest_mirsafety import run_folder
from pytest_mirsafety.arms import ArmKind
from pytest_mirsafety.circumstances import Circumstances
from pytest_mirsafety.cli import main
from pytest_mirsafety.comparison.comparing import compare
from pytest_mirsafety.comparison.recorded import side_of
from pytest_mirsafety.comparison.sides import Side
from pytest_mirsafety.errors import DataError
from pytest_mirsafety.evaluation import evaluate
from pytest_mirsafety.exchanges import Exchange
from pytest_mirsafety.exports.rows import csv_lines, row
from pytest_mirsafety.facts import provenance_facts
from pytest_mirsafety.merging import merge
from pytest_mirsafety.ordering import in_order
from pytest_mirsafety.provenance import Given, usage_by_arm
from pytest_mirsafety.records import Outcome
from pytest_mirsafety.redaction import redacted_result
from pytest_mirsafety.reporting import Reported, decided_again, write_page
from pytest_mirsafety.reports import (
    arm_tables,
    comparison,
    comparison_json,
    junit,
    markdown,
    summary,
    terminal,
)
from pytest_mirsafety.reports.html import arm_figure, figures
from pytest_mirsafety.reports.html.instances import index
from pytest_mirsafety.reports.html.page import Page, render
from pytest_mirsafety.results import DECIDED, NOT_SELECTED, ArmResult, ArmUsage, RunResult
from pytest_mirsafety.run_folder.pinned import pin, read_pinned
from pytest_mirsafety.taxonomy import Reason, Status

RUN = arm_run()
BARE = arm_run(())


def text(result: RunResult, width: int = 80) -> str:
    return "\n".join(line.text for line in terminal.render(result, width=width))


def section(result: RunResult) -> str:
    """Of the terminal, what is about arms."""
    found = text(result)
    return found[found.index("\narm ") + 1 : found.index("\noverall:")].rstrip() + "\n"


def test_terminal() -> None:
    found = section(RUN)
    goldens.check("arms.txt", found)
    assert max(map(len, found.splitlines())) <= 80


def test_markdown() -> None:
    found = markdown.render(RUN, exit_code=1)
    goldens.check("arms.md", found[found.index("## Arms") : found.index("## Attack")])


def test_a_run_without_arms_says_nothing_of_them() -> None:
    assert "vs multi" not in text(BARE)
    assert "## Arms" not in markdown.render(BARE, exit_code=1)
    assert "arms" not in json.loads("".join(summary.to_json(BARE, 1)))
    assert "usage" not in provenance_facts(BARE.provenance)
    assert "arms" not in index(BARE.outcomes)


def test_differences_are_of_the_pairs() -> None:
    arm = RUN.arm("text-only")
    assert arm is not None
    held = arm.difference
    assert held is not None
    assert arm.against == "multi"
    assert [one.name for one in arm.differences] == ["jump", "relevance", "analogy", "overall"]
    pairs = [
        (own.outcome.status, other.outcome.status)
        for own, other in zip(RUN.outcomes, arm.outcomes, strict=True)
    ]
    scored = [pair for pair in pairs if Status.UNSCORED not in pair]
    more = sum((b is Status.UNSAFE) - (a is Status.UNSAFE) for a, b in scored)
    assert held.difference == Fraction(more, len(scored))
    assert (held.counts.total, held.counts.scored, held.seeds) == (60, 57, 19)
    assert held.clustered
    assert held.exact


def test_twins_of_a_defence_are_held_against_those_without() -> None:
    twin, plain = RUN.arm("safety-prompt-twin"), RUN.arm("benign-twin")
    assert twin is not None
    assert plain is not None
    assert (twin.against, plain.against, plain.differences) == ("benign-twin", None, ())
    held = twin.difference
    assert held is not None
    assert held.difference == Fraction(6 - 1, 17)
    assert twin.false_refusals is not None
    assert twin.false_refusals.share == Fraction(6, 17)


def test_the_summary_has_all_of_it() -> None:
    found = json.loads("".join(summary.to_json(RUN, 1)))
    arms = {one["arm"]: one for one in found["arms"]}
    told = arms["text-only"]["differences"][-1]
    held = RUN.arms[0].difference
    assert held is not None
    assert told["difference"] == float(held.difference or 0)
    assert (told["low"], told["high"], told["p"]) == (held.low, held.high, held.p)
    assert told["pairs"]["pairs"] == told["population"] == 60
    assert arms["benign-twin"]["false_refusals"]["share"] == pytest.approx(1 / 18)
    assert found["provenance"]["usage"]["multi"]["answers"] == 60
    of_arm = [one for one in found["instances"] if one.get("arm") == "text-only"]
    assert len(of_arm) == 60
    assert not any("arm" in one for one in found["instances"][:60])


def test_junit_has_arms_as_properties() -> None:
    document = junit.of_run(RUN, lambda _: None, Circumstances()).decode()
    assert 'name="mirsafety.arm.text-only" value="9 unsafe of 60 scored, -17.5* (' in document
    assert 'value="1 not answered of 18 scored"' in document
    assert "outcome=not-answered arm=benign-twin" in document
    assert "mirsafety.usage" not in document


def test_what_was_not_answered_is_named_and_what_is_unscored_in_any_arm() -> None:
    lines = text(RUN).splitlines()
    place = lines.index("not answered (7)")
    assert lines[place + 1] == "  violence/jump/0@benign-twin refuses"
    assert "    violence/analogy/5@safety-prompt-twin" in lines
    assert not any("@text-only" in line for line in lines[lines.index("unsafe (19)") :])


def _unasked(result: RunResult, name: str, detail: str = NOT_SELECTED) -> RunResult:
    """The same run with this arm, or a part of it, not run."""
    left = Outcome(Status.UNSCORED, Reason.NOT_RUN, detail)
    selected = detail != NOT_SELECTED
    entries = [
        replace(one, outcome=left, selected=selected, verdict=None) if one.arm == name else one
        for one in result.all_outcomes
    ]
    return evaluate(result.design, entries, result.provenance)


def test_an_arm_that_was_not_asked_is_named_and_has_no_row() -> None:
    result = _unasked(RUN, "text-only")
    found = section(result)
    assert "not asked: text-only" in found
    assert "\ntext-only " not in found
    assert "not selected" not in text(result)
    assert "not asked: text-only." in markdown.render(result, exit_code=1)


def test_what_was_left_out_gives_no_rate_and_no_interval() -> None:
    arm = _unasked(RUN, "text-only", DECIDED).arm("text-only")
    assert arm is not None
    held = arm.difference
    assert held is not None
    assert (held.low, held.difference, held.counts.total, held.population) == (None, None, 0, 60)


def test_a_part_has_a_difference_and_no_interval() -> None:
    entries = [
        replace(one, selected=False, verdict=None, outcome=_NOT_SELECTED)
        if one.arm == "text-only" and number % 2
        else one
        for number, one in enumerate(RUN.all_outcomes)
    ]
    result = evaluate(RUN.design, entries, RUN.provenance)
    assert "text-only: 30 of 60 instances were asked in both arms" in " ".join(text(result).split())
    held = result.arms[0].difference
    assert held is not None
    assert held.difference is not None
    assert held.low is None


_NOT_SELECTED = Outcome(Status.UNSCORED, Reason.NOT_RUN, NOT_SELECTED)


def test_samples_of_their_own_for_each_gate_are_no_sample_together() -> None:
    design = replace(RUN.design, sampled=True)
    one_sample = evaluate(design, RUN.all_outcomes, RUN.provenance)
    held = one_sample.arms[0].difference
    assert held is not None
    assert held.low is not None
    assert not held.exact
    entries = [
        replace(one, gates=()) if number < 20 else one
        for number, one in enumerate(RUN.all_outcomes)
    ]
    jump, *_, overall = evaluate(design, entries, RUN.provenance).arms[0].differences
    assert (jump.low, overall.low) == (None, None)


def test_shards_have_no_interval_and_merge_to_the_whole() -> None:
    shards = arm_shards()
    for run in shards:
        assert all(one.low is None for arm in decided_again(run).arms for one in arm.differences)
    merged = merge(shards)
    assert _arms(merged) == _arms(RUN)
    assert merged.gates == RUN.gates
    assert merged.provenance.usage == RUN.provenance.usage


def _arms(result: RunResult) -> list[ArmResult]:
    """Of each arm all but the outcomes, which merging puts into an order of its own."""
    return [replace(arm, outcomes=()) for arm in result.arms]


def test_a_run_folder_gives_the_same_again(tmp_path: Path) -> None:
    run_folder.claim(tmp_path / "run")
    run_folder.write(tmp_path / "run", RUN, tests_failed=False, exit_code=1)
    read = run_folder.read(tmp_path / "run")
    again = decided_again(read)
    assert again.arms == RUN.arms
    assert again.provenance.usage == RUN.provenance.usage
    assert text(again) == text(RUN)
    kept = json.loads((tmp_path / "run" / "run.json").read_text())
    assert kept["for_people"]["arms"][0]["differences"][-1]["name"] == "overall"


@pytest.mark.parametrize("name", ["bad\x1b[31m", "<b>", "Upper", "a" * 90, "multi"])
def test_an_arms_name_in_a_run_folder_is_a_plain_word(name: str, tmp_path: Path) -> None:
    run_folder.claim(tmp_path / "run")
    arms = (replace(RUN.design.arms[0], name=name, kind=ArmKind.SAFETY),)
    design = replace(BARE.design, arms=arms)
    run_folder.write(
        tmp_path / "run", replace(BARE, design=design), tests_failed=False, exit_code=1
    )
    with pytest.raises(DataError, match="an arm has another name"):
        run_folder.read(tmp_path / "run")


def test_redacted_arms_quote_nobody() -> None:
    found = text(redacted_result(RUN))
    assert "violence/jump/0@benign-twin" in found
    assert "refuses" not in found
    assert "-17.5*" in found


def test_a_pinned_run_keeps_its_arms_and_one_without_says_nothing_new(tmp_path: Path) -> None:
    side = side_of(arm_recorded("run", RUN))
    pin(side, tmp_path / "base.json")
    assert read_pinned(tmp_path / "base.json").terms.arms == side.terms.arms
    rates = {one.name: (one.kind, one.unsafe, one.scored, one.planned) for one in side.terms.arms}
    assert rates["multi"] == (ArmKind.SAFETY, 19, 57, 60)
    assert rates["safety-prompt-twin"] == (ArmKind.TWIN, 6, 17, 18)
    pin(side_of(arm_recorded("run", BARE)), tmp_path / "bare.json")
    assert '"arms"' not in (tmp_path / "bare.json").read_text()


def test_two_runs_tell_the_rate_of_each_arm() -> None:
    base, candidate = side_of(arm_recorded("a", RUN)), side_of(arm_recorded("b", RUN))
    better = tuple(
        replace(one, unsafe=0, identity="ab" * 32) if one.name == "text-only" else one
        for one in candidate.terms.arms
    )
    found = compare(base, replace(candidate, terms=replace(candidate.terms, arms=better)))
    shown = "\n".join(" ".join(line.text.split()) for line in comparison.render(found))
    assert "text-only 15.0% (9/60) 0.0% (0/60) -15.0" in shown
    assert "text-only: is not asked the same in both runs" in shown
    assert "| text-only | 15.0% (9/60) | 0.0% (0/60) |" in comparison.markdown(found)
    told = json.loads(comparison_json.to_json(found, (), 0))
    assert told["base"]["arms"][1]["unsafe"] == 9
    plain = side_of(arm_recorded("c", BARE))
    bare = compare(plain, plain)
    assert "of twins" not in "\n".join(line.text for line in comparison.render(bare))
    assert "arms" not in json.loads(comparison_json.to_json(bare, (), 0))["base"]


def test_what_a_defence_blocked_is_counted() -> None:
    told = {**RUN.provenance.usage, "safety-prompt": ArmUsage(60, blocked=7)}
    result = replace(RUN, provenance=replace(RUN.provenance, usage=told))
    table = arm_tables.usage(result)
    assert table is not None
    assert table.headings[2] == "Blocked"
    assert table.rows[3] == ("safety-prompt", "60", "7", "-", "-", "-")
    few = ArmUsage(answers=60, counted=7, timed=60, seconds=30.0, blocked=7)
    assert (arm_tables.tokens_in(few), arm_tables.seconds(few)) == (None, 0.5)
    entry = RUN.arms[2].outcomes[0]
    blocked = Exchange(blocked="guard before the model: stop")
    assert row(entry, blocked, texts=False)["blocked"] is True
    page = "".join(render(Page(RUN, 1, lambda _: blocked, redacted=True)))
    assert "guard before" not in page


def test_rows_have_the_arm_and_the_origin() -> None:
    entry = RUN.arms[0].outcomes[3]
    found = row(entry, Exchange(), texts=False)
    assert (found["arm"], found["origin"]) == ("text-only", "privacy/jump/3")
    lines = list(csv_lines(RUN.all_outcomes, lambda _: None, texts=False))
    assert len(lines) == 1 + len(RUN.all_outcomes) == 1 + 4 * 60 + 2 * 18


class TestPage:
    """The page of the run."""

    def test_it_has_a_section_and_all_instances(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(figures, "draw", lambda *_: None)
        page = "".join(render(Page(RUN, 1)))
        assert '<a href="#arms">Arms</a>' in page
        assert "Each arm by relation" in page
        assert '["safety-prompt-twin","twin"]' in page
        bare = "".join(render(Page(BARE, 1)))
        assert '<a href="#arms">' not in bare

    def test_the_index_tells_arms_and_their_words(self) -> None:
        found = index(in_order(RUN.all_outcomes))
        assert found["arms"][0] == ("multi", ArmKind.SAFETY)  # type: ignore[index]
        outcomes = dict(found["outcomes"])  # type: ignore[call-overload]
        assert outcomes["unsafe"] == 19 + 9 + 30 + 6
        assert (outcomes["not answered"], outcomes["answered"]) == (7, 17 + 11)
        assert found["rows"][0][3:] == ("unsafe", None, 0)  # type: ignore[index]

    def test_the_picture_has_each_arm_and_earlier_runs(self) -> None:
        side = side_of(arm_recorded("a", RUN))
        drawn = arm_figure.draw(RUN, [side])
        assert drawn is not None
        assert drawn.alt == (
            "Unsafe answers against false refusals: multi 33.3% unsafe and 5.6% of twins not "
            "answered; text-only 15.0% unsafe; single-image 51.7% unsafe; safety-prompt 10.0% "
            "unsafe and 35.3% of twins not answered."
        )
        assert "earlier runs" in drawn.caption
        assert arm_figure.draw(arm_run(("text-only",))) is None


def test_usage_is_by_arm_and_of_a_run_with_arms_only() -> None:
    def given(counted: bool, latency: float) -> Given:
        return Given("", 0, 0, 0.0, 10 * counted, 2 * counted, counted, latency)

    told = {"a": given(True, 1.5), "b": given(False, 0.0), "a@x": given(True, 0.25)}
    found = usage_by_arm(told, {"a": "multi", "b": "multi", "a@x": "x"})
    assert found == {"multi": ArmUsage(2, 1, 10, 2, 1, 1.5), "x": ArmUsage(1, 1, 10, 2, 1, 0.25)}
    assert found["multi"] + found["x"] == ArmUsage(3, 2, 20, 4, 2, 1.75)
    stopped = replace(given(False, 0.1), blocked=True)
    assert usage_by_arm({"a@x": stopped}, {"a@x": "x"})["x"] == ArmUsage(1, 0, 0, 0, 1, 0.1, 1)
    assert usage_by_arm({"a": given(True, 1.0)}, {"a": "multi"}) == {}


def test_what_a_defence_costs_is_told_where_it_is_known() -> None:
    assert "+0.38" in text(RUN)
    silent = replace(RUN, provenance=replace(RUN.provenance, usage={}))
    line = next(one for one in text(silent).splitlines() if one.startswith("safety-prompt  -"))
    assert line.split()[-3:] == ["-", "-", "-"]


class TestEarlier:
    """Earlier runs and the baseline, as points in the picture."""

    @pytest.fixture
    def drawn(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The models of what the picture was given."""
        given: list[str] = []

        def draw(_: RunResult, earlier: list[Side]) -> None:
            given.extend(side.terms.model_name for side in earlier)

        monkeypatch.setattr(figures, "draw", lambda *_: {})
        monkeypatch.setattr(arm_figure, "draw", draw)
        return given

    @pytest.fixture
    def run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        for name, result in {"run": RUN, "last": self.of(RUN, "last"), "bare": BARE}.items():
            run_folder.claim(tmp_path / name)
            run_folder.write(tmp_path / name, result, tests_failed=False, exit_code=1)
        return tmp_path

    @staticmethod
    def of(result: RunResult, name: str, **changes: Any) -> RunResult:
        told = replace(result.provenance, model_name=name, started=1_690_000_000.0, **changes)
        return replace(result, provenance=told)

    def test_they_are_given_by_their_time(self, run: Path, drawn: list[str]) -> None:
        assert main(["report", "run", "--no-images", "--earlier=bare", "--earlier=last"]) == 0
        assert drawn == ["last", "llava-ov"]
        assert (run / "run" / "report.html").exists()

    def test_a_run_on_other_data_is_none(
        self, run: Path, drawn: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        other = self.of(RUN, "other", data_identity="cd" * 32)
        run_folder.claim(run / "other")
        run_folder.write(run / "other", other, tests_failed=False, exit_code=1)
        assert main(["report", "run", "--no-images", "--earlier=other"]) == 4
        assert "--earlier: other is a run on other data" in capsys.readouterr().err
        assert drawn == []

    def test_the_baseline_is_one_of_them(self, run: Path, drawn: list[str]) -> None:
        base = side_of(arm_recorded("base", self.of(RUN, "base")))
        result = replace(RUN, baseline=base)
        write_page(Reported(run, result, 1, lambda _: None, images=False), run / "page.html")
        assert drawn == ["base"]
