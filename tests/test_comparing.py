"""Two runs held against each other: what is paired, what is refused, what is said."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import goldens
import pytest
from compared_runs import OUTCOMES, side
from gate_evidence import overall
from hostile import HOSTILE
from hypothesis import given, settings

from pytest_mirsafety.comparison.comparing import Comparison, compare
from pytest_mirsafety.comparison.sides import Side
from pytest_mirsafety.comparison.trend import trend
from pytest_mirsafety.errors import DataError
from pytest_mirsafety.gates import Cause, Decision, Estimand
from pytest_mirsafety.reports.comparison import markdown, render
from pytest_mirsafety.reports.comparison_tables import sentence
from pytest_mirsafety.reports.html import comparison as page
from pytest_mirsafety.reports.increases import bounds_cell

PASS, FAIL, INCONCLUSIVE = Decision.PASS, Decision.FAIL, Decision.INCONCLUSIVE


def changed(side: Side, **terms: Any) -> Side:
    return replace(side, terms=replace(side.terms, **terms))


def decision(found: Comparison) -> Decision:
    (gate,) = found.gates
    return gate.decision


def test_each_relation_is_counted_and_ids_are_named() -> None:
    found = compare(side("sssusu?s"), side("susssu??"))
    names = [row.name for row in found.rows]
    assert names == ["jump", "analogy", "temporal", "logical", "privacy", "overall"]
    all_of = found.overall.counts
    assert (all_of.newly_unsafe, all_of.newly_safe, all_of.unsafe_twice) == (1, 1, 1)
    assert (all_of.total, all_of.scored, all_of.unscored) == (8, 6, 2)
    assert found.changes.newly_unsafe == ("privacy/jump/1",)
    assert found.changes.newly_safe == ("privacy/jump/3",)
    assert found.changes.newly_unscored == ("privacy/jump/7",)
    bounds = found.overall.bounds
    assert bounds is not None
    assert (bounds.low, bounds.high) == (Fraction(-1, 8), Fraction(2, 8))


@settings(max_examples=60, deadline=None)
@given(OUTCOMES, OUTCOMES)
def test_groups_add_up_and_both_ways_mirror(before: str, after: str) -> None:
    length = min(len(before), len(after))
    one, other = side(before[:length]), side(after[:length])
    found, back = compare(one, other), compare(other, one)
    for scope in ("relation", "category"):
        assert length == sum(row.counts.total for row in found.rows if row.scope == scope)
    assert found.changes.newly_unsafe == back.changes.newly_safe
    forth, mirrored = found.overall.bounds, back.overall.bounds
    assert forth is not None
    assert mirrored is not None
    assert (forth.low, forth.high) == (-mirrored.high, -mirrored.low)


@pytest.mark.parametrize(
    ("terms", "name"),
    [
        ({"data_identity": "cd" * 32}, "data"),
        ({"judge": "other"}, "judge"),
        ({"policy": ("undetermined counts as unsafe",)}, "what unscored answers count as"),
        ({"estimand": Estimand.MODEL}, "estimand"),
        ({"confidence": Decimal("0.9")}, "confidence"),
    ],
)
def test_what_is_not_comparable_is_refused_with_the_reason(terms: Any, name: str) -> None:
    base, candidate = side("ssss"), changed(side("ssss"), **terms)
    with pytest.raises(DataError, match=f"are not comparable: {name}: "):
        compare(base, candidate, [overall("1")])
    if name in ("estimand", "confidence"):
        with pytest.raises(DataError):
            compare(base, candidate, [overall("1")], allow=("data", "judge"))
        return
    found = compare(base, candidate, [overall("1")], allow=("data", "judge"))
    assert decision(found) is INCONCLUSIVE
    assert sentence(found).startswith("REPORT ONLY: ")


def test_other_models_are_what_is_compared() -> None:
    base = side("ssss")
    candidate = changed(base, model_identity="other", decoding='{"temperature":0}')
    found = compare(base, candidate, [overall("0")])
    assert [one.name for one in found.differs] == ["model", "decoding"]
    assert decision(found) is PASS


def test_another_question_of_the_same_id_is_no_pair() -> None:
    base = side("ssss")
    items = tuple(replace(one, seed="ef" * 32) for one in base.items)
    found = compare(replace(base, items=items), base, [overall("0.5")])
    assert found.overall.counts.scored == 0
    assert decision(found) is PASS  # all are safe: even a base that was safe throughout
    worse = compare(replace(base, items=items), side("ssus"), [overall("0.2")])
    assert decision(worse) is INCONCLUSIVE


@pytest.mark.parametrize(
    ("base", "candidate", "cause"),
    [
        ({"pass_is_void": True}, {}, Cause.CANARY),
        ({"fail_is_void": True}, {}, Cause.CANARY),
        ({}, {"pass_is_void": True}, Cause.CANARY),
        ({"pass_allowed": False}, {}, Cause.JUDGE),
        ({}, {"pass_allowed": False}, Cause.JUDGE),
    ],
)
def test_a_judge_that_is_not_trusted_lets_nothing_pass(
    base: Any, candidate: Any, cause: Cause
) -> None:
    found = compare(
        changed(side("ssss"), **base), changed(side("ssss"), **candidate), [overall("1")]
    )
    assert (decision(found), found.gates[0].cause) == (INCONCLUSIVE, cause)


def test_whose_screening_judge_lets_nothing_pass_is_said() -> None:
    own, base = (
        compare(changed(side("ssss"), **one), changed(side("ssss"), **other), [overall("1")])
        for one, other in (({}, {"pass_allowed": False}), ({"pass_allowed": False}, {}))
    )
    assert own.gates[0].reason.endswith("no PASS can rest on a screening judge")
    assert "set allow_screening_judge" in own.gates[0].next_step
    assert base.gates[0].reason.endswith("no PASS can rest on a screening judge in the baseline")
    assert base.gates[0].next_step.startswith("take a baseline whose run had allow_screening_judge")


def test_a_sentence_and_the_table_round_alike() -> None:
    """45 of 54 is 83.33 points: +83.4 would be another number."""
    found = compare(side("s" * 48 + "u" * 6), side("?" * 45 + "s" * 3 + "u" * 6), [overall("0")])
    assert bounds_cell(found.overall.bounds) == "+0.0 to +83.3"
    assert "+0.0 to +83.3 points" in found.gates[0].reason


@pytest.mark.parametrize(("base", "candidate"), [(True, False), (False, True), (True, True)])
def test_a_judge_that_misses_what_is_safe_lets_nothing_fail(base: bool, candidate: bool) -> None:
    found = compare(
        changed(side("ssss"), fail_is_void=base),
        changed(side("uuuu"), fail_is_void=candidate),
        [overall("0")],
    )
    assert decision(found) is INCONCLUSIVE


# Samples.

TEN = list(range(0, 20, 2))


def test_a_sample_of_both_is_bounded_over_the_whole() -> None:
    base = side("s" * 10, drawn=TEN)
    candidate = side("us" * 5, drawn=TEN)
    found = compare(base, candidate, [overall("0.1")])
    assert found.overall.population == 19
    bounds = found.overall.bounds
    assert bounds is not None
    assert not bounds.exact
    assert bounds.low < Fraction(5, 10) < bounds.high
    assert decision(found) is FAIL


def test_a_sample_against_a_whole_run_is_paired_where_both_are() -> None:
    base = side("s" * 19)
    found = compare(base, side("s" * 10, drawn=TEN), [overall("0.3")])
    assert found.overall.counts.total == 10
    assert len(found.changes.only_base) == 9
    assert decision(found) is PASS
    assert decision(compare(base, side("s" * 10, drawn=TEN), [overall("0.1")])) is INCONCLUSIVE


def test_a_sample_says_nothing_of_what_it_was_not_drawn_for() -> None:
    """Only the overall gate had a sample of its own."""
    found = compare(side("s" * 10, drawn=TEN), side("s" * 10, drawn=TEN))
    bounded = {row.name for row in found.rows if row.bounds is not None}
    assert bounded == {"overall"}


def test_another_seed_or_a_second_sample_does_not_pass() -> None:
    base, candidate = side("s" * 19), side("s" * 10, drawn=TEN)
    assert decision(compare(base, candidate, [overall("0.9")])) is PASS
    spent = changed(candidate, sample_spent=True)
    found = compare(base, spent, [overall("0.9")])
    assert (decision(found), found.gates[0].cause) == (INCONCLUSIVE, Cause.SAMPLE)
    other = changed(candidate, sample_seed="2")
    assert decision(compare(other, candidate, [overall("0.9")])) is INCONCLUSIVE


def test_samples_without_a_common_instance_decide_nothing() -> None:
    odd = [place + 1 for place in TEN[:-1]] + [0]
    base = changed(side("s" * 9, drawn=odd[:9]), data_count=19)
    found = compare(base, side("s" * 10, drawn=TEN), [overall("1")])
    assert found.overall.counts.total == 0
    assert (decision(found), found.gates[0].cause) == (INCONCLUSIVE, Cause.SAMPLE)


def test_the_alarm_rings_and_clears_nothing() -> None:
    length = 48
    found = compare(side("s" * length), side("usss" * 12))
    assert [row.name for row in found.alarmed] == ["analogy", "overall"]
    assert sentence(found) == "ALARM: more unsafe than by chance: analogy, overall"
    alike = compare(side("s" * length), side("u" * 12 + "s" * 36))
    assert alike.alarmed == ()  # of three seed questions
    calm = compare(side("s" * length), side("s" * length))
    assert sentence(calm) == "no alarm, which clears nothing: a gate needs --max-increase"


def test_a_trend_has_the_range_of_each_run() -> None:
    points = trend([side("ssss"), side("su?s"), side("uuuu", estimand=Estimand.MODEL)])
    shares = [(point.rates[-1].low, point.rates[-1].high) for point in points]
    assert shares[:2] == [(0.0, 0.0), (0.25, 0.5)]
    low, high = shares[2]
    assert low is not None
    assert high is not None
    assert 0 < low < high == 1.0


# Words.

ONE_OF_ALL = "\x1b[31m<script>alert(1)</script>\u202e]]>`*|_\n# heading"


@pytest.mark.parametrize("text", [ONE_OF_ALL, *HOSTILE], ids=range(len(HOSTILE) + 1))
def test_nothing_hostile_survives_and_nothing_is_wider_than_a_terminal(text: str) -> None:
    base = replace(changed(side("ssssss"), model_name=text, data_source=text), where=text)
    candidate = changed(side("suss?s"), model_identity=text, system="ab" * 32)
    found = compare(base, candidate, [overall("0.1")])
    points = trend([base, candidate, candidate])
    lines = [line.text for line in render(found, points, width=80)]
    assert all(line.isprintable() for line in lines)
    # A word that is longer than a line is left whole, so that it can be copied.
    assert all(len(line) <= 80 or max(map(len, line.split())) > 60 for line in lines)
    written = markdown(found, points)
    assert all(character == "\n" or character.isprintable() for character in written)
    tags = set(re.findall(r"<[^>]*>?", written))
    assert tags <= {"<code>", "</code>", "<br>"}
    headings = {line for line in written.splitlines() if line.startswith("#")}
    assert all(text.strip() not in heading for heading in headings)
    assert not re.search(r"(?<!\\)\]\(", written), "a link"


def test_golden_comparison() -> None:
    base = side("s" * 30 + "us?")
    candidate = changed(side("s" * 28 + "uuss?"), run="cd" * 32, model_name="next")
    found = compare(base, candidate, [overall("0.02"), overall("0.2")])
    points = trend([base, candidate, base])
    lines = (line.text.rstrip() for line in render(found, points, width=80))
    goldens.check("comparison.txt", "\n".join(lines) + "\n")
    goldens.check("comparison.md", markdown(found, points))


def test_a_page_shows_it_and_runs_nothing() -> None:
    text = ONE_OF_ALL
    base = replace(changed(side("ssssss"), model_name=text, judge=text), where=text)
    candidate = changed(side("suss?s"), model_identity=text, judge=text)
    found = compare(base, candidate, [overall("0.2")])
    text = "".join(page.render(found, trend([base, candidate, candidate])))
    assert "<script" not in text
    assert "script-src &#39;none&#39;" in text or "script-src 'none'" in text
    assert '<h1 class="decision inconclusive">INCONCLUSIVE: ' in text
    assert "<li>privacy/jump/1</li>" in text
    assert 'alt="Attack success rate of all instances, run by run: 0.0%, 16.7-33.3%' in text
    assert "data:image/svg+xml;base64," in text
    short = "".join(page.render(compare(base, base)))
    assert 'id="trend"' not in short
    assert 'id="gates"' not in short


def test_the_largest_numbers_fit_into_80_columns() -> None:
    base, candidate = side("s" * 3000), side("u?s" * 1000)
    lines = [line.text for line in render(compare(base, candidate, [overall("0.02")]), width=80)]
    assert max(map(len, lines)) <= 80
