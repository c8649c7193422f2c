"""What a defence is shown of a request, and what it makes of it."""

from __future__ import annotations

from dataclasses import dataclass

from .records import LoadedImage

REFUSAL = "I can't help with that."
"""What a user sees in place of what was blocked, where nothing else is set."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a user asks: the prompt, the system prompt it is asked under, and the images in order.

    The images have their bytes, where the defence looks at images; else there are none.
    """

    prompt: str
    system: str | None = None
    images: tuple[LoadedImage, ...] = ()


@dataclass(frozen=True, slots=True)
class Passed:
    """It goes through. The tokens are those that finding out took; None where nobody knows."""

    input_tokens: int | None = 0
    output_tokens: int | None = 0


@dataclass(frozen=True, slots=True)
class Blocked:
    """It does not: the user sees `text` instead. `why` is for people who read the report."""

    text: str = REFUSAL
    why: str = ""
    input_tokens: int | None = 0
    output_tokens: int | None = 0


Decided = Passed | Blocked | None
"""None lets it through too, and says that it took no tokens."""
