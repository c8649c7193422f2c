"""Control markers in an answer are made harmless, however they are written."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_mirsafety.prompting.llama_guard import MARKERS as GUARD
from pytest_mirsafety.prompting.markers import CHAT, LLAMA_2, brackets_in, flag

MARKERS = ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<s>", "</s>"]


def widened(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize(
    "write",
    [
        str,
        str.lower,
        str.swapcase,
        " ".join,
        "\u200b".join,
        "\u2060\u00ad".join,
        "\n".join,
        widened,
        lambda marker: widened(marker.lower()),
        lambda marker: "\ufeff".join(widened(marker)),
        lambda marker: (
            marker.replace("s", "\u017f").replace("<<", "\u00ab").replace(">>", "\u00bb")
        ),
    ],
)
def test_a_marker_is_found_however_it_is_written(marker: str, write: object) -> None:
    assert callable(write)
    text, found = LLAMA_2.neutralise(f"before {write(marker)} after")
    assert found == {marker.lower(): 1}
    assert text == f"before {marker.lower().translate(str.maketrans('[]<>', '()()'))} after"
    assert flag(found, "answer") == (
        f"control markers in the answer, made harmless: {marker.lower()}",
    )


@pytest.mark.parametrize(
    "marker",
    [
        *("<|begin_of_text|>", "<|header_start|>", "<|eot_id|>", "<|EOT|>", "< | eot | >"),
        *("<\uff5cbegin\u2581of\u2581text\uff5c>", "<END CONVERSATION>", "<begin  conversation>"),
    ],
)
def test_llama_guards_markers_are_found(marker: str) -> None:
    text, found = GUARD.neutralise(f"a {marker} b")
    assert found.total() == 1
    assert not set(text) & set("<>|\uff5c")


@pytest.mark.parametrize(
    "text",
    [
        "I can't help with that.",
        "if a < s > b",
        "a[0] << 2",
        "<script>x</script>",
        "x || y",
        "[INS]",
    ],
)
def test_other_text_is_left_as_it_is(text: str) -> None:
    expected = text.replace("< s >", "(s)")
    assert LLAMA_2.neutralise(text)[0] == expected


PIECES = st.sampled_from(
    [*"[]<>/| sS", "INST", "sys", "\u200b", "\uff1c", "\u300a", "\u00ab", "eot"]
)


@given(st.lists(PIECES | st.text(max_size=3), max_size=30).map("".join))
@example("[IN[INST]ST]")
@example("<<<s>SYS>>")
@example("\u300as\u300b")
def test_nothing_is_left_to_find_and_other_text_is_kept(text: str) -> None:
    for markers in (LLAMA_2, GUARD, CHAT):
        made, found = markers.neutralise(text)
        assert not markers.neutralise(made)[1]
        assert (made == text) == (not found)


def test_a_templates_own_headings_are_markers() -> None:
    markers = brackets_in("[INST]\n[WISH]\n{behavior}\n<END OF WISH>\n[0]{generation}")
    text, found = markers.neutralise("x [wish] y <end of  wish>")
    assert text == "x (wish) y (endofwish)"
    assert found.total() == 2


def test_what_is_made_harmless_makes_no_other_marker() -> None:
    markers = LLAMA_2 + brackets_in("[a (inst) b]\n{behavior}{generation}")
    assert markers.neutralise("[a [INST] b]")[0] == "(a(inst)b)"


def test_many_markers_are_counted_on_one_short_line() -> None:
    _, found = CHAT.neutralise("[INST]" * 3 + "<s></s><bos><eos><|x|>\x1b")
    (line,) = flag(found, "answer")
    assert line.endswith("...")
    assert line.isprintable()
    assert len(line) < 200
    _, found = CHAT.neutralise("[INST]" * 3)
    assert flag(found, "question") == ("control markers in the question, made harmless: [inst] x3",)
    assert flag(CHAT.neutralise("x")[1], "answer") == ()
