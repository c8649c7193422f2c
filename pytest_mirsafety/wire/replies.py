"""Reads the body of a reply with status 200: only one whole answer is a completion."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Final

from ..records import Completion
from .refusals import Refusal

_OK: Final = 200
_MOST_TOKENS: Final = 2**53
"""A count above it is none: not every JSON reader could tell it from its neighbours."""


class NothingAnsweredError(Exception):
    """Nothing in the reply is an answer, or a part of one."""


class ErrorReplyError(NothingAnsweredError):
    """An error, sent as if it were an answer."""

    def __init__(self, detail: str, refusal: Refusal) -> None:
        super().__init__(detail)
        self.refusal = refusal


class UnusableAnswerError(Exception):
    """Something was answered, and it is not one whole answer."""


class ReplyTooLongError(Exception):
    """A reply was longer than any answer, and was not read to its end."""


def read(reply: bytes, latency: float) -> Completion:
    """The completion in a reply's body.

    Raises:
        NothingAnsweredError: it is no chat completion, so that asking again gets a first answer.
        UnusableAnswerError: it is one, and lacks what makes an answer complete.
    """
    body = as_object(reply)
    choice = only_choice(body)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise UnusableAnswerError("the choice has no message")
    finish_reason = text_of(choice, "finish_reason")
    if not finish_reason:
        raise UnusableAnswerError("it has no finish_reason, so it may have been cut off")
    if message.get("tool_calls") or message.get("function_call"):
        raise UnusableAnswerError("it calls a tool, and none was offered")
    usage = body.get("usage")
    return Completion(
        text="\n".join(filter(None, (text_of(message, "content"), text_of(message, "refusal")))),
        finish_reason=finish_reason,
        reasoning=text_of(message, "reasoning_content") or text_of(message, "reasoning") or None,
        input_tokens=tokens_of(usage, "prompt_tokens"),
        output_tokens=tokens_of(usage, "completion_tokens"),
        latency=latency,
        created=time.time(),
    )


def as_object(reply: bytes) -> dict[str, Any]:
    """The object that a reply's body is.

    Raises:
        NothingAnsweredError: it is none, or tells of an error.
        UnusableAnswerError: it tells of an error beside an answer.
    """
    try:
        body = json.loads(reply)
    except (ValueError, RecursionError):
        text = reply.decode(errors="replace")
        raise NothingAnsweredError(f"it is not JSON: {text}" if text else "it is empty") from None
    if not isinstance(body, dict):
        raise NothingAnsweredError(f"it is {type(body).__name__}, not an object")
    if (error := body.get("error")) is not None:
        detail = f"an error with status 200: {json.dumps(error)}"
        if body.get("choices"):
            raise UnusableAnswerError(detail)
        raise ErrorReplyError(detail, Refusal.from_body(_OK, error))
    return body


def only_choice(body: Mapping[str, Any]) -> dict[str, Any]:
    """The one choice of a completion.

    Raises:
        NothingAnsweredError: there is none.
        UnusableAnswerError: there are several, or it is no object.
    """
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        raise NothingAnsweredError("it has no choices")
    if len(choices) > 1:
        raise UnusableAnswerError(f"it has {len(choices)} choices for one answer")
    if not isinstance(choices[0], dict):
        raise UnusableAnswerError("its choice is not an object")
    return choices[0]


def text_of(values: Mapping[str, object], name: str) -> str | None:
    """The text under this name, fit for any file; None where there is none.

    Raises:
        UnusableAnswerError: it is something other than text.
    """
    value = values.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise UnusableAnswerError(f"{name} is {type(value).__name__}, not text")
    # JSON can spell half a surrogate pair, which no file and no database can hold.
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def tokens_of(usage: object, name: str) -> int | None:
    """A number of tokens, or None where what stands there is none."""
    count = usage.get(name) if isinstance(usage, dict) else None
    if not isinstance(count, int) or isinstance(count, bool):
        return None
    return count if 0 <= count <= _MOST_TOKENS else None
