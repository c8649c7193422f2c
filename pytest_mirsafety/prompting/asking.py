"""What judges and guards with a model behind them share: its name, and texts made fit for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..printable import one_line
from ..protocols import TextModel
from ..texts import TextReply
from .markers import Markers, flag


@dataclass(frozen=True, slots=True)
class Prepared:
    """Question and answer as the model gets them, and what was done to them."""

    question: str
    answer: str
    flags: tuple[str, ...]


async def prepare(
    question: str, answer: str, model: TextModel, markers: Markers, most: int
) -> Prepared:
    """Both without control markers, and the answer clipped to `most` tokens; 0 clips nothing.

    Raises:
        RetryableError: the model's tokenizer did not answer, and may.
        UnscoredError: it cannot be had.
    """
    question, asked = markers.neutralise(question)
    answer, found = markers.neutralise(answer)
    flags = (*flag(asked, "question"), *flag(found, "answer"))
    if most:
        clipped = await model.clip(answer, most)
        if clipped.left_out:
            flags += (f"clipped {clipped.left_out + most} to {most} tokens",)
            answer, _ = markers.neutralise(clipped.text)  # decoding may join what was apart
    return Prepared(question, answer, flags)


def described(model: TextModel) -> str:
    """The model without its address, which changes no verdict: `http:org/name@revision`."""
    identity = model.identity
    name = f"{identity.provider}:{identity.model}"
    name += f"@{identity.revision}" if identity.revision else ""
    return one_line(f"{name} {model.numerics}".strip(), 300)


def clip_in_words(most: int) -> str:
    """Part of a judge's identity."""
    return f"answers clipped to {most} tokens" if most else "answers not clipped"


def scores_of(reply: TextReply, words: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """Log-probability of each word as the first token, over its spellings; those that are known."""
    found: dict[str, list[float]] = {}
    for token, number in reply.first:
        if (word := token.strip().lower()) in words:
            found.setdefault(word, []).append(number)
    return tuple((word, _log_of_sum(found[word])) for word in words if word in found)


def _log_of_sum(numbers: list[float]) -> float:
    most = max(numbers)
    return min(0.0, most + math.log(math.fsum(math.exp(number - most) for number in numbers)))
