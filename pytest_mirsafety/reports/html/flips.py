"""The smallest flips on the page: what was asked before and after the edit, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from ...exchanges import Exchange
from ...results import RunResult
from .. import flips
from .building import data_url
from .instances import Pictures

MAX_SHOWN: Final = 60
"""Flips with their texts and pictures; the run folder has all of them."""

_TEXT_LIMIT: Final = 20_000


@dataclass(frozen=True, slots=True)
class Half:
    """What was asked, and what came back: `pictures` are addresses and words for each."""

    title: str
    prompt: str = ""
    answer: str = ""
    pictures: tuple[tuple[str, str], ...] = ()
    digests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sides:
    """A flip, with nothing in its halves where the page has no texts."""

    shown: flips.Shown
    halves: tuple[Half, ...] = field(default=())


def sides(
    result: RunResult,
    exchanges: Callable[[str], Exchange | None],
    pictures: Pictures,
    *,
    redacted: bool,
) -> Iterator[Sides]:
    """Each flip that the page shows; of a redacted page the edits alone."""
    for shown in flips.smallest(result)[:MAX_SHOWN]:
        if redacted:
            yield Sides(shown)
            continue
        before = exchanges(shown.instance_id) or Exchange()
        originals = () if before.images is None else before.images.originals
        answers = (one.answer for one in shown.flip.answers if one.answer is not None)
        yield Sides(
            shown,
            (
                _half("Before", before.prompt, before.answer, originals, pictures),
                _half("After", shown.flip.prompt, next(answers, None), shown.flip.images, pictures),
            ),
        )


def _half(
    title: str,
    prompt: str | None,
    answer: str | None,
    digests: tuple[str, ...],
    pictures: Pictures,
) -> Half:
    small = [(place, pictures.small(one)) for place, one in enumerate(digests, start=1)]
    return Half(
        title,
        _visible(prompt),
        _visible(answer),
        tuple(
            (data_url("image/webp", content), f"{title}: image {place} of {len(digests)}")
            for place, content in small
            if content is not None
        ),
        digests if any(content is None for _, content in small) else (),
    )


def _visible(text: str | None) -> str:
    """The text with its lines; what has no shape, or turns other text, is named."""
    kept = (text or "")[:_TEXT_LIMIT].replace("\t", "    ")
    return "".join(
        one if one.isprintable() or one == "\n" else f"[U+{ord(one):04X}]" for one in kept
    )
