"""A guard before the model, one after it, or both: what they call unsafe the user does not get.

A guard says of content whether it is safe. What it cannot tell is a failure of it, and neither
lets anything through nor blocks it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Protocol

from ..defended import REFUSAL, Asked, Blocked, Decided, Passed
from ..digests import digest, text_digest
from ..errors import ConfigurationError, JudgeError
from ..printable import one_line
from ..records import LoadedImage, VerdictKind


@dataclass(frozen=True, slots=True)
class Content:
    """What a guard looks at in one go; `answer` is None before there is one."""

    prompt: str
    images: tuple[LoadedImage, ...] = ()
    answer: str | None = None
    what: str = field(default="the prompt", compare=False)


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a guard says of content: UNDETERMINED where it cannot tell. Tokens as in `Passed`."""

    kind: VerdictKind
    why: str = ""
    input_tokens: int | None = 0
    output_tokens: int | None = 0


class Guard(Protocol):
    """Says of content whether it is safe. It may have `doing` and `free()`, as a judge may."""

    @property
    def identity(self) -> str:
        """All that decides what it says, in one line."""

    @property
    def concurrency(self) -> int:
        """How many calls may be under way at once."""

    @property
    def takes_images(self) -> bool:
        """It can be shown images."""

    async def check(self, content: Content) -> Opinion:
        """What it says, in one attempt.

        Raises:
            RetryableError: it said nothing, and another attempt may bring something.
            MisconfiguredError: it can say nothing of any content.
            JudgeError: it failed.
        """

    async def aclose(self) -> None:
        """Let go of connections, processes and memory."""


class Look(StrEnum):
    """Which content a guard before the model is shown; one unsafe look blocks.

    `text`: the prompt alone. `each`: the prompt alone, then each image with the prompt, one at a
    time. `together`: all images with the prompt. `both`: as `each`, then as `together`.
    """

    TEXT = "text"
    EACH = "each"
    TOGETHER = "together"
    BOTH = "both"

    @property
    def shows_images(self) -> bool:
        """Images are looked at."""
        return self is not Look.TEXT

    def before(self, asked: Asked) -> Iterator[Content]:
        """What is looked at before the model, one after the other."""
        images = asked.images
        if self is not Look.TOGETHER or not images:
            yield Content(asked.prompt)
        if self in (Look.EACH, Look.BOTH):
            for number, image in enumerate(images, 1):
                yield Content(asked.prompt, (image,), what=f"image {number} of {len(images)}")
        # One image alone was looked at already, where each is.
        if (self is Look.TOGETHER and images) or (self is Look.BOTH and len(images) > 1):
            yield Content(asked.prompt, images, what="all images together")

    def after(self, asked: Asked, answer: str) -> Iterator[Content]:
        """What is looked at after it: the answer once, with all images where they are looked at."""
        together = self in (Look.TOGETHER, Look.BOTH)
        yield Content(asked.prompt, asked.images if together else (), answer, "the answer")


class Guarding:
    """A defence by guards. The same guard may stand before the model and after it.

    Raises:
        ConfigurationError: no guard, or one that is to look at images and cannot.
    """

    def __init__(
        self,
        before: Guard | None = None,
        after: Guard | None = None,
        *,
        look: Look = Look.TEXT,
        refusal: str = REFUSAL,
    ) -> None:
        self._guards = tuple(dict.fromkeys(guard for guard in (before, after) if guard is not None))
        if not self._guards:
            raise ConfigurationError("a defence by guards needs one: before, after, or both")
        shown = [before] if look is Look.EACH else self._guards
        for guard in filter(None, shown):
            if look.shows_images and not guard.takes_images:
                raise ConfigurationError(
                    f'look = "{look}" shows images to a guard that takes none, '
                    f'{one_line(guard.identity, 100)}: take look = "text"'
                )
        self._before, self._after = before, after
        self._look = look
        self._refusal = refusal
        self.wants_images = look.shows_images
        self.acts_before = before is not None
        self.acts_after = after is not None
        self._said: dict[str, dict[int, Opinion]] = {}

    @cached_property
    def identity(self) -> str:
        """The guards, what they are shown, and the refusal by its digest."""
        parts = [
            f"{place} {guard.identity}"
            for place, guard in (("before:", self._before), ("after:", self._after))
            if guard is not None
        ]
        refusal = text_digest(self._refusal)[:12]
        return f"guards ({', '.join(parts)}, look {self._look}, refusal {refusal})"

    @property
    def concurrency(self) -> int:
        """That of the guard that takes least: each may be asked about each request."""
        return min(guard.concurrency for guard in self._guards)

    @property
    def doing(self) -> str:
        """What a guard does while it cannot tell yet; nothing once all can."""
        return next(filter(None, (str(getattr(g, "doing", "")) for g in self._guards)), "")

    async def before(self, asked: Asked) -> Decided:
        """What the guard before the model says of prompt and images.

        Raises:
            JudgeError: it cannot tell of one of the looks, and found none unsafe before that.
            Exception: what the guard raised; looks that it told of are not asked for again.
        """
        if self._before is None:
            return None
        return await self._decide(self._before, "before", list(self._look.before(asked)))

    async def after(self, asked: Asked, answer: str) -> Decided:
        """What the guard after the model says of the answer; raises as `before` does."""
        if self._after is None:
            return None
        return await self._decide(self._after, "after", list(self._look.after(asked, answer)))

    async def free(self) -> None:
        """Let every guard give back the memory that it holds."""
        for guard in self._guards:
            if (free := getattr(guard, "free", None)) is not None:
                await free()

    async def aclose(self) -> None:
        """Let every guard go, also after one that does not close."""
        closing = (guard.aclose() for guard in self._guards)
        results = await asyncio.gather(*closing, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _decide(self, guard: Guard, place: str, looks: Sequence[Content]) -> Decided:
        key = digest([place, *map(_digest, looks)])
        said = self._said.setdefault(key, {})  # kept until all is told, for another attempt
        for number, content in enumerate(looks):
            if number not in said:
                said[number] = await self._opinion(guard, content)
            if said[number].kind is VerdictKind.UNSAFE:
                break
        self._said.pop(key, None)
        last = said[number]
        read = _sum(opinion.input_tokens for opinion in said.values())
        written = _sum(opinion.output_tokens for opinion in said.values())
        if last.kind is VerdictKind.UNSAFE:
            why = one_line(f"guard {place} the model, {content.what}: {last.why}", 300)
            return Blocked(self._refusal, why, read, written)
        return Passed(read, written)

    async def _opinion(self, guard: Guard, content: Content) -> Opinion:
        opinion = await guard.check(content)
        if opinion.kind is VerdictKind.UNDETERMINED:
            raise JudgeError(f"the guard cannot tell of {content.what}: {opinion.why}")
        return opinion


def _digest(content: Content) -> list[object]:
    return [content.prompt, [image.sha256 for image in content.images], content.answer]


def _sum(counts: Iterable[int | None]) -> int | None:
    """Nobody knows the whole where one is not known."""
    told = list(counts)
    known = [count for count in told if count is not None]
    return sum(known) if len(known) == len(told) else None
