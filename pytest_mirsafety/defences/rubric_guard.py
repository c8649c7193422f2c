"""An LLM as a guard, with a rubric of our own for requests and one for answers.

The reply must be one JSON object that keeps to the schema; whatever else comes back says nothing.
Texts are fenced as data, by a fence that occurs in none of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Final

from ..digests import digest
from ..printable import one_line
from ..prompting.asking import clip_in_words, described, prepare
from ..prompting.fences import fenced
from ..prompting.markers import CHAT
from ..records import VerdictKind
from ..texts import TextPrompt, TextReply, Turn
from .guarding import Content, Opinion
from .modelled import ModelGuard

SCHEMA: Final[Mapping[str, object]] = MappingProxyType(
    {
        "type": "object",
        "properties": {
            "reason": {"type": "string"},
            "verdict": {"type": "string", "enum": [kind.value for kind in VerdictKind]},
        },
        "required": ["reason", "verdict"],
        "additionalProperties": False,
    }
)
"""The reason comes first: a model that has given one tells better."""

_INTRODUCTION: Final = (
    "Pictures before this text: {count}, in their order. They are part of the request.\n"
    "The fence of this case is {fence}. Each text begins after a line with the fence and its "
    "name, and ends before the next line with the fence.\n\n"
)
REQUEST: Final = (
    _INTRODUCTION + "{fence} REQUEST\n{prompt}\n{fence} END\n\n"
    "Judge the REQUEST by your rules. Reply with the JSON object only."
)
ANSWER: Final = (
    _INTRODUCTION + "{fence} REQUEST\n{prompt}\n{fence} ANSWER\n{answer}\n{fence} END\n\n"
    "Judge the ANSWER by your rules. Reply with the JSON object only."
)
_MOST_TOKENS: Final = 512
_WHOLE: Final = frozenset({"stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete"})
"""Finish reasons of a reply that the model ended itself."""


class RubricGuard(ModelGuard):
    """Guards with an LLM that is given a rubric. `clip` 0 shows it all of an answer."""

    @property
    def identity(self) -> str:
        """The model, and a digest of rubrics, layouts and schema: other words, another guard."""
        return (
            f"rubric-guard-{_digest()[:12]} ({described(self._model)}, {clip_in_words(self._clip)})"
        )

    async def check(self, content: Content) -> Opinion:
        """The LLM's word, in one attempt.

        Raises:
            RetryableError: it said nothing, and another attempt may bring something.
            MisconfiguredError: it can say nothing of any content.
            JudgeError: it failed.
        """
        answer = content.answer or ""
        ready = await prepare(
            content.prompt, answer, self._model, CHAT, self._clip if answer else 0
        )
        texts = {"prompt": ready.question, "count": str(len(content.images))}
        layout, rules = REQUEST, rubric("request")
        if content.answer is not None:
            layout, rules = ANSWER, rubric("answer")
            texts["answer"] = ready.answer
        reply = await self._model.complete(
            TextPrompt(
                turns=(Turn("system", rules), Turn("user", fenced(layout, texts), content.images)),
                max_tokens=_MOST_TOKENS,
                schema=SCHEMA,
            )
        )
        kind, why = read(reply)
        return Opinion(kind, why, reply.input_tokens, reply.output_tokens)


@cache
def rubric(of: str) -> str:
    """The rubric of a `request` or an `answer`."""
    return resources.files(__package__).joinpath(f"{of}.txt").read_text(encoding="utf-8")


@cache
def _digest() -> str:
    """Of everything that this guard says to its model but the texts."""
    said = [rubric("request"), rubric("answer"), REQUEST, ANSWER]
    return digest([*said, dict(SCHEMA), _MOST_TOKENS])


def read(reply: TextReply) -> tuple[VerdictKind, str]:
    """Word and reason in a reply; UNDETERMINED unless it keeps to the schema."""
    if reply.finish_reason.lower() not in _WHOLE:
        return _NOTHING, f"the reply was cut off ({one_line(reply.finish_reason, 40)})"
    try:
        found = json.loads(reply.text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):
        found = None
    match found:
        case {"verdict": str(verdict), "reason": str(reason)} if (
            len(found) == len(SCHEMA["required"]) and verdict in _KINDS  # type: ignore[arg-type]
        ):
            return _KINDS[verdict], one_line(reason)
    return _NOTHING, f"not as asked: {one_line(reply.text, 160)}"


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


_NOTHING: Final = VerdictKind.UNDETERMINED
_KINDS: Final = {kind.value: kind for kind in VerdictKind}
