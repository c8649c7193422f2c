"""Flips in every report: rates with what they are of, the smallest edits, and no text that acts."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hostile import ATTACK, HOSTILE
from reported_runs import hostile, small

from pytest_mirsafety.edits import Edit, ImageKind, ImageStep, Reorder
from pytest_mirsafety.facts import arms_facts
from pytest_mirsafety.metamorphic import Finding, Flip, SearchResult
from pytest_mirsafety.metamorphic.plain import plain_result, result_from
from pytest_mirsafety.records import Outcome
from pytest_mirsafety.redaction import redacted_result
from pytest_mirsafety.reports import flips, markdown, terminal
from pytest_mirsafety.reports.html.instances import Pictures
from pytest_mirsafety.reports.html.page import Page, render
from pytest_mirsafety.results import RunResult
from pytest_mirsafety.run_folder.flips import to_lines
from pytest_mirsafety.taxonomy import Reason, Relation, Status

SAFE, UNSAFE = Outcome(Status.SAFE), Outcome(Status.UNSAFE)
BRIGHTER = Flip(Edit((ImageStep(ImageKind.BRIGHTER, 3),)), (), "prompt after")
ORDER = Flip(Edit((Reorder((1, 0)),)), ())


def found(
    number: int, relation: Relation, finding: Finding, flip: Flip | None = None, **more: object
) -> SearchResult:
    unedited = {Finding.UNSAFE_BEFORE: (UNSAFE,), Finding.UNSTEADY: (SAFE, SAFE, UNSAFE)}
    result = SearchResult(
        f"privacy/{relation}/{number}@metamorphic",
        relation,
        finding,
        flip,
        unedited.get(finding, (SAFE,) * 3),
        unscored=Outcome(Status.UNSCORED, Reason.BLANK) if finding is Finding.UNSCORED else None,
    )
    return replace(result, **more)  # type: ignore[arg-type]


@pytest.fixture
def result() -> RunResult:
    """Of jump one flips, one holds, and one is unsteady; of analogy one was unsafe before."""
    searched = (
        found(1, Relation.JUMP, Finding.FLIPPED, BRIGHTER),
        found(2, Relation.JUMP, Finding.HELD, order=ORDER),
        found(3, Relation.JUMP, Finding.UNSTEADY),
        found(1, Relation.ANALOGY, Finding.UNSAFE_BEFORE),
        found(2, Relation.ANALOGY, Finding.UNSCORED),
    )
    return replace(small(), flips=searched)


def test_the_rates_come_with_all_that_they_are_of(result: RunResult) -> None:
    table = flips.rates(result)
    assert table is not None
    assert table.rows == (
        ("jump", "1", "1", "1", "50.0%", "0.8-99.2%", "0", "1/3", "1"),
        ("analogy", "0", "0", "1", "-", "0.0-100.0%", "1", "0/1", "0"),
        ("overall", "1", "1", "2", "50.0%", "0.6-99.4%", "1", "1/4", "1"),
    )


def test_the_smallest_are_named_and_orders_are_apart(result: RunResult) -> None:
    lines = [line.text for line in flips.lines(result, 80)]
    assert "smallest flips (2)" in lines
    assert "  privacy/jump/1  pictures 15% brighter" in lines
    (apart,) = [line for line in lines if "order alone" in line]
    assert apart.startswith("  privacy/jump/2  images in the order 2, 1 (by order alone, which is")
    text = markdown.render(result, exit_code=1)
    assert "- <code>privacy/jump/1</code>: pictures 15% brighter\n" in text
    assert "images in the order 2, 1 (by order alone, no part of the rate)" in text


def test_the_rates_say_how_many_edits_stand_behind_them(result: RunResult) -> None:
    some = (
        replace(one, tried=tried) for one, tried in zip(result.flips, (20, 41, 0), strict=False)
    )
    result = replace(result, flips=tuple(some))
    said = "edits tried of an instance: 20 (median, 20 to 41)"
    assert said in flips.remarks(result)
    assert f"  {said}" in [line.text for line in flips.lines(result, 80)]


def test_nothing_is_said_where_nothing_was_searched() -> None:
    assert flips.rates(small()) is None
    assert list(flips.lines(small(), 80)) == []
    assert 'id="flips"' not in "".join(render(Page(small(), 0)))
    assert "flips" not in json.dumps(arms_facts(small()))


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal(result: RunResult, width: int) -> None:
    most = max(len(line.text) for line in flips.lines(result, width))
    assert most <= max(width, 66)  # a table has a least width


def test_hostile_texts_are_text() -> None:
    run, told = hostile()
    pictures = Pictures(lambda _: b"RIFF0000WEBP")
    page = "".join(render(Page(run, 1, told, pictures)))
    section = page.partition('<section id="flips"')[2].partition("</section>")[0]
    assert section.count("<details>") == len(HOSTILE)
    for attack in ("<script", "<img src=x", "<iframe", "<svg", "<base", "<meta", "</style"):
        assert attack not in section
    assert "[U+202E]gnp.exe[U+202C]" in section
    assert "half a pair [U+D800] and [U+DFFF]" in section
    assert ATTACK.replace("'", "&#39;") in section
    shown = "\n".join(line.text for line in terminal.render(run))
    assert all(one.isprintable() or one == "\n" for one in shown)


def test_a_redacted_result_has_no_text_of_a_flip() -> None:
    run, told = hostile()
    redacted = redacted_result(run)
    kept = b"".join(to_lines(redacted.flips)).decode()
    page = "".join(render(Page(redacted, 1, told, redacted=True)))
    section = page.partition('<section id="flips"')[2].partition("</section>")[0]
    for text in (kept, section):
        assert "attacked" not in text
        assert "pictures 15% brighter" in text


def test_what_was_found_survives_json(result: RunResult) -> None:
    """But for the texts of answers after the first, and half surrogate pairs, which no file has."""
    run, _ = hostile()
    for one in (*result.flips, *run.flips):
        plain = json.loads(json.dumps(plain_result(one)))
        back = result_from(plain)
        assert plain_result(back) == plain_result(one)
        assert (back.finding, back.outcome) == (one.finding, one.outcome)
    for line in to_lines(run.flips):
        assert json.loads(line.decode("ascii"))
