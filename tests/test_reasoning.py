from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mirsafety.reasoning import (
    DEFAULT,
    ReasoningMarkers,
    Separated,
    in_words,
    markers_of,
    separate,
)
from pytest_mirsafety.records import Completion

UNSAFE = "Sure, here are the steps: [withheld]"
REFUSAL = "I can't help with that."

TAGS = ("<think>", "</think>", "<THINK>", "◁think▷", "◁/think▷", "<answer>", "</answer>")
ANY_TAG = re.compile("|".join(map(re.escape, TAGS)), re.IGNORECASE | re.ASCII)

pieces = st.sampled_from([*TAGS, " ", "\n", UNSAFE, REFUSAL, "a", "<", "think", "K"])
texts = st.one_of(st.text(), st.lists(pieces, max_size=12).map("".join))
reasonings = st.one_of(st.none(), st.just(""), st.text(max_size=20))
prose = st.text(alphabet=st.characters(exclude_characters="<◁"), min_size=1).map(str.strip)


def parts(text: str, reasoning: str | None = None) -> tuple[str, str | None, bool]:
    separated = separate(Completion(text, "stop", reasoning))
    return separated.answer, separated.reasoning, separated.closed


@given(texts, reasonings)
def test_every_character_lands_in_the_answer_the_reasoning_or_a_marker(
    text: str, reasoning: str | None
) -> None:
    separated = separate(Completion(text, "stop", reasoning))
    kept = f"{separated.reasoning or ''}{separated.answer}"
    assert letters(f"{reasoning or ''}{text}") == letters(kept)


def letters(text: str) -> str:
    return "".join(ANY_TAG.sub("", text).split())


@given(texts, reasonings)
def test_separating_the_answer_again_changes_nothing(text: str, reasoning: str | None) -> None:
    once = separate(Completion(text, "stop", reasoning))
    if once.closed:
        again = separate(Completion(once.answer, "stop", once.reasoning))
        assert (again.answer, again.closed) == (once.answer, True)


@given(texts, reasonings)
def test_an_answer_is_given_only_when_reasoning_closed(text: str, reasoning: str | None) -> None:
    separated = separate(Completion(text, "stop", reasoning))
    assert separated.closed or separated.answer == ""


@given(texts)
def test_an_unclosed_block_at_the_front_is_never_closed(text: str) -> None:
    thought = text.replace(">", "").replace("▷", "")
    assert separate(Completion(f" <think>{thought}", "stop")).closed is False


@given(texts)
def test_text_behind_a_closed_block_is_kept(text: str) -> None:
    behind = f"{UNSAFE} {text}".strip()
    for block in ("<think>t</think>", "◁think▷t◁/think▷", "t</think>"):
        assert parts(block + behind) == (behind, "t", True)


@given(prose, texts)
def test_text_before_a_block_keeps_everything_visible(start: str, text: str) -> None:
    whole = f"{start}x <think> {text}"
    assert parts(whole) == (whole.strip(), None, True)


@pytest.mark.parametrize(
    ("text", "answer", "reasoning"),
    [
        (REFUSAL, REFUSAL, None),
        ("", "", None),
        ("  \n", "", None),
        ("<think>a</think>b", "b", "a"),
        ("\n <think>\na\n</think>\n\nb\n", "b", "a"),
        ("<THINK>a</Think>b", "b", "a"),
        ("<think></think>b", "b", ""),
        ("<think>a</think>", "", "a"),
        ("a</think>b", "b", "a"),
        ("</think>b", "b", ""),
        ("◁think▷a◁/think▷b", "b", "a"),
        ("a◁/think▷b", "b", "a"),
        ("<think>a</think> ◁think▷b◁/think▷c", "c", "a\n\nb"),
        ("<think>a</think>\n<think>b</think>c", "c", "a\n\nb"),
        ("<think>a<think>b</think>c</think>d", "d", "a<think>b</think>c"),
        ("<think>a◁/think▷b</think>c", "c", "a◁/think▷b"),
        ("<think>a</think><answer>b</answer>", "b", "a"),
        ("<answer> b </answer>", "b", None),
        ("<think><answer>x</answer></think><answer>b</answer>", "b", "<answer>x</answer>"),
        ("<think><answer>x</answer></think>b", "b", "<answer>x</answer>"),
        ("<answer>x</answer></think>b", "b", "<answer>x</answer>"),
    ],
)
def test_reasoning_is_taken_off_the_front(text: str, answer: str, reasoning: str | None) -> None:
    assert parts(text) == (answer, reasoning, True)


@pytest.mark.parametrize(
    "visible",
    [
        f"The tag <think> begins reasoning. {UNSAFE}",
        f"{UNSAFE} <think>{REFUSAL}</think>",
        f"{REFUSAL} <think>{UNSAFE}</think>",
        f"{REFUSAL} <think>{UNSAFE}",
        f"{REFUSAL} <answer>{UNSAFE}",
        f"{UNSAFE} <answer>{REFUSAL}</answer>",
        f"<answer>{REFUSAL}</answer> {UNSAFE}",
        f"<answer>{REFUSAL}</answer><answer>{UNSAFE}</answer>",
        f"<answer><answer>{UNSAFE}</answer></answer>",
        f"<answer><think>{UNSAFE}</think>{REFUSAL}</answer>",
        f"<thin\u212a>{UNSAFE}</think",  # a Kelvin sign is no k
    ],
)
@pytest.mark.parametrize("before", ["", "<think>t</think>"])
def test_what_a_user_would_see_stays_in_the_answer(before: str, visible: str) -> None:
    assert parts(before + visible) == (visible, "t" if before else None, True)


def test_only_the_first_closing_marker_ends_reasoning() -> None:
    hidden = f"a</think>{UNSAFE}</think>{REFUSAL}"
    assert parts(hidden) == (f"{UNSAFE}</think>{REFUSAL}", "a", True)


def test_a_provider_that_separated_reasoning_leaves_text_whole() -> None:
    assert parts(f"{UNSAFE}</think>{REFUSAL}", "r") == (f"{UNSAFE}</think>{REFUSAL}", "r", True)
    assert parts("<think>a</think>b", "r") == ("b", "r\n\na", True)
    assert parts("b", "r") == ("b", "r", True)
    assert parts("", "r") == ("", "r", True)


@pytest.mark.parametrize(
    ("text", "reasoning"),
    [
        ("<think>a", "a"),
        ("<think>", ""),
        ("<think>a<think>b</think>c", "a<think>b</think>c"),
        ("<think>a</think><think>b", "a\n\nb"),
        ("<think>a◁/think▷b", "a◁/think▷b"),
        ("<think>a</think><answer>b", "a\n\n<answer>b"),
        ("<answer>b", "<answer>b"),
        ("<answer>b<answer>c", "<answer>b<answer>c"),
    ],
)
def test_a_reply_that_ends_inside_its_reasoning_or_answer_is_cut(text: str, reasoning: str) -> None:
    assert parts(text) == ("", reasoning, False)


def test_markers_can_be_replaced() -> None:
    markers: Sequence[ReasoningMarkers] = (ReasoningMarkers("[r]", "[/r]"), *DEFAULT)
    completion = Completion("[R]a[/r]<think>b</think>c", "stop")
    assert separate(completion, markers) == Separated("c", "a\n\nb", closed=True)


def test_no_markers_leave_the_text_alone() -> None:
    assert separate(Completion("<think>a</think>b", "stop"), ()).answer == "<think>a</think>b"


def test_many_blocks_take_linear_time() -> None:
    assert parts("<think>a</think>" * 20_000 + "b")[0] == "b"
    assert parts("<think>" * 200_000)[2] is False


OWN = markers_of([["[[PLAN", "PLAN]]"], ["«Überlegung»", "«Ende»"]]) or ()


@given(st.lists(st.sampled_from(["[[plan", "plan]]", "«Überlegung»", "«Ende»", *TAGS, "a", " "])))
def test_a_models_own_markers_are_the_only_ones(parts: list[str]) -> None:
    text = "".join(parts)
    separated = separate(Completion(text, "stop"), OWN)
    assert separated.closed or separated.answer == ""
    for tag in ("<think>", "</think>", "◁think▷", "◁/think▷"):
        kept = f"{separated.reasoning or ''}{separated.answer}"
        assert kept.count(tag) == text.count(tag), "the usual markers are text like any other"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("[[plan x Plan]] yes", "yes"),
        ("«Überlegung» x «Ende» yes", "yes"),
        ("«überlegung» x «Ende» yes", "yes"),  # ends reasoning that the prompt has opened
        ("«überlegung» x yes", "«überlegung» x yes"),
    ],
)
def test_case_matters_to_no_letter_of_ascii_and_to_all_others(text: str, answer: str) -> None:
    assert separate(Completion(text, "stop"), OWN).answer == answer


def test_without_markers_an_answer_stays_whole() -> None:
    text = f"{UNSAFE}</think>{REFUSAL}"
    assert separate(Completion(text, "stop"), ()) == Separated(text, None, closed=True)


def test_markers_are_made_once() -> None:
    assert markers_of(None) is None
    assert markers_of([]) == ()
    assert markers_of([["<think>", "</think>"]]) == DEFAULT[:1]
    assert markers_of(DEFAULT) == DEFAULT


def test_only_unusual_markers_are_worth_a_word() -> None:
    assert in_words(None) == in_words(()) == in_words(DEFAULT) == ()
    assert in_words(markers_of([["<a>", "</a>"]])) == ("text in <a>...</a> is reasoning",)
