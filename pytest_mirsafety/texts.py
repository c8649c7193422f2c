"""What a judge or a guard asks the text model behind it, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .records import LoadedImage


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a chat: who speaks (`system`, `user` or `assistant`), and what is said.

    `images` come before the text, in order.
    """

    role: str
    text: str
    images: tuple[LoadedImage, ...] = ()


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """What a judge asks a text model, which decodes greedily: `text` to be continued, or `turns`.

    `schema` is a JSON schema that the reply is to keep to. `top` is the number of most likely
    first tokens to tell with their log-probabilities, where the model can.

    Raises:
        ValueError: neither text nor turns, or both; or no tokens to be said.
    """

    text: str | None = None
    turns: tuple[Turn, ...] = ()
    max_tokens: int = 1
    schema: Mapping[str, object] | None = None
    top: int = 0

    def __post_init__(self) -> None:
        if (self.text is None) != bool(self.turns):
            raise ValueError("a prompt is a text or turns, and not both")
        if self.max_tokens < 1:
            raise ValueError("a prompt asks for one token at least")


@dataclass(frozen=True, slots=True)
class TextReply:
    """What a text model said, and the most likely first tokens with their log-probabilities.

    `finish_reason` is the provider's own word, such as `stop` or `length`; the tokens are those
    that it took, where that is known.
    """

    text: str
    finish_reason: str
    first: tuple[tuple[str, float], ...] = ()
    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Clipped:
    """The beginning of a text, and how many of its tokens are left out."""

    text: str
    left_out: int = 0
