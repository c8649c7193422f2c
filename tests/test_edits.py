"""Edits: values that travel as JSON, one step of each family, and texts that keep their words."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mirsafety.edits import (
    Edit,
    ImageKind,
    ImageStep,
    Reorder,
    TextKind,
    TextStep,
    reworded,
)
from pytest_mirsafety.metamorphic import drawing

EDITS = st.integers(0, 5).flatmap(drawing.edits)
TEXT_STEPS = drawing.text_edits().map(lambda edit: edit.text_steps)


def words(text: str) -> list[str]:
    """Its words, whatever their case: what has a letter or a digit."""
    return re.findall(r"\w+", text.casefold())


@given(EDITS)
def test_an_edit_survives_json(edit: Edit) -> None:
    assert Edit.from_json(edit.canonical) == edit


@given(EDITS, EDITS)
def test_equal_edits_have_equal_json_and_no_others(one: Edit, other: Edit) -> None:
    assert (one == other) == (one.canonical == other.canonical)


@given(EDITS)
def test_only_the_identity_has_no_strength(edit: Edit) -> None:
    assert edit.identity == (edit.strength == 0) == (not edit.steps)
    assert all(0 < step.strength <= 1 for step in edit.steps)


@given(EDITS)
def test_an_edit_says_what_it_does(edit: Edit) -> None:
    assert all(step.describe() in edit.describe() for step in edit.steps)
    assert edit.describe() == str(edit)


@given(st.sampled_from(ImageKind))
def test_more_of_a_kind_is_stronger(kind: ImageKind) -> None:
    strengths = [ImageStep(kind, level).strength for level in range(1, kind.levels + 1)]
    assert strengths == sorted(set(strengths))


def test_nothing_is_done_twice() -> None:
    brighter, darker = ImageStep(ImageKind.BRIGHTER, 1), ImageStep(ImageKind.DARKER, 1)
    with pytest.raises(ValueError, match="an edit changes the tone once at most"):
        Edit((brighter,)).then(Edit((darker,)))


@given(EDITS)
def test_the_identity_changes_no_edit(edit: Edit) -> None:
    assert edit.then(Edit()) == edit == Edit().then(edit)


@pytest.mark.parametrize(
    "plain",
    [
        *("brighter", {}, None, [1], [["brighter"]], [["brighter", 0]], [["brighter", 9]]),
        *([["brighter", True]], [["brighter", "3"]], [["shout", 1]], [["png", 2]], [["case", 4]]),
        *([["order", [0, 1]]], [["order", [1, 1]]], [["order", [1, 2]]], [["order", ["1", 0]]]),
        *([["order", [True, 0]]], [["case", 1], ["case", 2]], [["brighter", 1, 2]]),
    ],
)
def test_what_is_no_edit_is_refused(plain: object) -> None:
    with pytest.raises(ValueError, match=r"edit|levels|order"):
        Edit.from_plain(plain)


def test_an_order_says_where_each_image_comes_from() -> None:
    edit = Edit((Reorder((2, 0, 1)),))
    assert edit.ordered("abc") == ("c", "a", "b")
    assert edit.reorders
    assert edit.describe() == "images in the order 3, 1, 2"
    assert edit.strength == Fraction(2, 3)
    with pytest.raises(ValueError, match="an order of 3 images for 2"):
        edit.ordered("ab")


def test_the_words_of_some_edits() -> None:
    edit = Edit(
        (
            ImageStep(ImageKind.CROP, 1),
            ImageStep(ImageKind.BRIGHTER, 3),
            ImageStep(ImageKind.JPEG, 2),
            TextStep(TextKind.CASE, 3),
        )
    )
    assert edit.describe() == (
        "pictures with 0.5% cut off each side; pictures 15% brighter; "
        "pictures as JPEG of quality 90; prompt: all in capitals"
    )


@given(st.text(), TEXT_STEPS)
def test_no_word_of_a_text_is_changed(text: str, steps: tuple[TextStep, ...]) -> None:
    """Polite words may stand around it; what stood in it stands there still, in its order."""
    before, after = words(text), words(reworded(text, steps))
    framed = any(step.kind is TextKind.POLITE for step in steps)
    starts = [at for at in range(len(after) + 1) if after[at : at + len(before)] == before]
    assert starts if framed else after == before


@given(st.text(), TEXT_STEPS)
def test_rewording_is_deterministic_and_composes(text: str, steps: tuple[TextStep, ...]) -> None:
    one_by_one = text
    for step in steps:
        one_by_one = reworded(one_by_one, [step])
    assert reworded(text, steps) == one_by_one == reworded(text, steps)
    assert reworded(text, []) == text


@given(st.text(" \t\n"), TEXT_STEPS)
def test_a_blank_text_stays(text: str, steps: tuple[TextStep, ...]) -> None:
    assert reworded(text, steps) == text


@pytest.mark.parametrize(
    ("kind", "level", "text"),
    [
        (TextKind.CASE, 1, 'what is "this"? It\'s odd. Why'),
        (TextKind.CASE, 2, 'what is "this"? it\'s odd. why'),
        (TextKind.CASE, 3, 'WHAT IS "THIS"? IT\'S ODD. WHY'),
        (TextKind.SPACING, 1, ' What is "this"? It\'s odd. Why\n'),
        (TextKind.SPACING, 2, 'What is "this"? It\'s odd.\nWhy'),
        (TextKind.SPACING, 3, 'What  is  "this"?  It\'s  odd.  Why'),
        (TextKind.PUNCTUATION, 1, 'What is "this"? It\'s odd. Why.'),
        (TextKind.PUNCTUATION, 2, "What is “this”? It’s odd. Why."),  # noqa: RUF001
        (TextKind.POLITE, 1, 'What is "this"? It\'s odd. Why Thank you.'),
        (TextKind.POLITE, 2, 'Hello. What is "this"? It\'s odd. Why Thank you.'),
    ],
)
def test_what_each_step_does_to_a_text(kind: TextKind, level: int, text: str) -> None:
    assert reworded('What is "this"? It\'s odd. Why', [TextStep(kind, level)]) == text


def test_a_closing_mark_is_taken_away_and_curly_marks_become_straight() -> None:
    step = TextStep(TextKind.PUNCTUATION, 2)
    assert reworded("It’s “odd” now?", [step]) == 'It\'s "odd" now'  # noqa: RUF001
