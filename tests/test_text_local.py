"""What of a model in this process needs no heavy library: its chat template, its limits.

The rest is held on a real checkpoint, in `tests/engines/test_judges.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mirsafety.errors import JudgeError, MisconfiguredError
from pytest_mirsafety.text_models import local
from pytest_mirsafety.text_models.local import render
from pytest_mirsafety.texts import TextPrompt, Turn

TURNS = (Turn("user", " asked\n"), Turn("assistant", "said"))
Messages = list[dict[str, Any]]


class Templated:
    """A tokenizer that has this chat template."""

    def __init__(self, template: Callable[[Messages], object]) -> None:
        self._template = template

    def apply_chat_template(
        self, messages: Messages, *, tokenize: bool, add_generation_prompt: bool
    ) -> object:
        assert not tokenize
        assert add_generation_prompt
        return self._template(messages)


def of_texts(messages: Messages) -> str:
    return "".join(f"<{m['role']}>{m['content'].strip()}" for m in messages)


def of_parts(messages: Messages) -> str:
    return "".join(f"<{m['role']}>{m['content'][0]['text']}" for m in messages)


def test_a_template_gets_what_it_takes() -> None:
    assert render(Templated(of_texts), TURNS) == "<user>asked<assistant>said"
    assert render(Templated(of_parts), TURNS) == "<user> asked\n<assistant>said"


@given(st.text(), st.text())
def test_what_is_rendered_holds_both_texts(question: str, answer: str) -> None:
    text = render(Templated(of_texts), (Turn("user", question), Turn("assistant", answer)))
    assert text == f"<user>{question.strip()}<assistant>{answer.strip()}"


@pytest.mark.parametrize(
    "template",
    [
        lambda messages: of_texts(messages[:1]),
        lambda messages: of_texts(messages[::-1]),
        lambda messages: of_texts(messages)[:-1],
        lambda _: "",
        lambda _: None,
        lambda _: 1 / 0,
    ],
)
def test_a_template_that_leaves_something_out_is_refused(
    template: Callable[[Messages], object],
) -> None:
    with pytest.raises(MisconfiguredError, match="chat template of the judge's model does not fit"):
        render(Templated(template), TURNS)


def test_a_prompt_that_is_too_long_is_no_reply() -> None:
    class Config:
        max_position_embeddings = 10

        def get_text_config(self) -> Config:
            return self

    local._check_length(10, Config())
    with pytest.raises(JudgeError, match="has 11 tokens, and its model takes 10"):
        local._check_length(11, Config())


@pytest.mark.parametrize(
    "fields", [{}, {"text": "x", "turns": TURNS}, {"text": "", "max_tokens": 0}]
)
def test_a_prompt_is_a_text_or_turns(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a prompt"):
        TextPrompt(**fields)
    assert TextPrompt("").text == ""
