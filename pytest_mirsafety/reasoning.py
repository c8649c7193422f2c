"""Separates a model's reasoning from its final answer, and never hides what a user would see.

Only reasoning at the front of a reply is taken off: blocks such as `<think>…</think>`, one after
another, or everything before a closing marker whose opening one stood in the prompt. Everything
behind it is the answer, markers included.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final, NamedTuple

from .records import Completion


@dataclass(frozen=True, slots=True)
class ReasoningMarkers:
    """What opens and closes reasoning in a reply; the case of ASCII letters does not matter."""

    open: str
    close: str


class Separated(NamedTuple):
    """The final answer and the reasoning, without the markers between them.

    `closed` is False when the reply ends inside its reasoning, or inside an `<answer>` that it
    began: then `answer` is empty, and what came is in `reasoning`.
    """

    answer: str
    reasoning: str | None
    closed: bool


DEFAULT: Final[tuple[ReasoningMarkers, ...]] = (
    ReasoningMarkers("<think>", "</think>"),
    ReasoningMarkers("◁think▷", "◁/think▷"),
)

_ANSWER: Final = ReasoningMarkers("<answer>", "</answer>")
_LONGEST: Final = 40
_MOST: Final = 8
_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


@dataclass(frozen=True, slots=True)
class _Marker:
    start: int
    end: int
    pair: ReasoningMarkers
    opens: bool


def markers_of(value: object) -> tuple[ReasoningMarkers, ...] | None:
    """The markers that a list of `[open, close]` pairs names; None stays None.

    Raises:
        ValueError: it is no such list, or a marker could be taken for another, or for an answer's.
    """
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) > _MOST:
        raise ValueError(f"must be at most {_MOST} pairs, such as [['<think>', '</think>']]")
    pairs = tuple(map(_pair, value))
    spellings = [_folded(text) for pair in (*pairs, _ANSWER) for text in (pair.open, pair.close)]
    for number, spelling in enumerate(spellings):
        others = spellings[:number] + spellings[number + 1 :]
        if any(spelling in other for other in others):
            raise ValueError(f"'{spelling}' is part of another marker")
    return pairs


def separating(
    markers: Sequence[ReasoningMarkers] | None,
) -> Callable[[Completion], Separated]:
    """What separates by a model's own markers, or by the usual ones where it has named none."""
    return partial(separate, markers=DEFAULT if markers is None else markers)


def in_words(markers: Sequence[ReasoningMarkers] | None) -> tuple[str, ...]:
    """What a report says of a model's own markers, which take text from the judge's sight.

    Nothing, where they are among the usual ones.
    """
    own = [pair for pair in markers or () if pair not in DEFAULT]
    named = ", ".join(f"{pair.open}...{pair.close}" for pair in own)
    return (f"text in {named} is reasoning",) if own else ()


def _pair(value: object) -> ReasoningMarkers:
    if isinstance(value, ReasoningMarkers):
        return value
    texts = value if isinstance(value, list | tuple) else ()
    if len(texts) != len(("open", "close")) or not all(map(_is_marker, texts)):
        raise ValueError(
            f"each pair must be two texts of 1 to {_LONGEST} characters, such as "
            "['<think>', '</think>']"
        )
    return ReasoningMarkers(*texts)


def _is_marker(value: object) -> bool:
    return (
        isinstance(value, str)
        and value.isprintable()
        and value == value.strip()
        and 0 < len(value) <= _LONGEST
    )


def _folded(text: str) -> str:
    """With ASCII letters in lower case, and no others changed."""
    return text.translate(_LOWER)


def separate(completion: Completion, markers: Sequence[ReasoningMarkers] = DEFAULT) -> Separated:
    """The final answer of a reply, and its reasoning from the provider and from the text.

    - Blocks nest, and end with their own marker only. One that never ends makes `closed` False.
    - A closing marker before any opening one ends reasoning that the prompt opened, unless the
      provider separated the reasoning itself: then nothing of its text is taken for reasoning.
    - An `<answer>…</answer>` is unwrapped when it holds all of the answer, otherwise left as it
      is. An answer that begins with `<answer>` and has no `</answer>` was cut.
    - Text between or behind blocks, and markers inside an answer, stay in the answer.
    """
    text = completion.text
    found = deque(_markers(text, markers))
    pieces: list[str] = []
    position = 0
    if found and not found[0].opens and completion.reasoning is None:
        pieces.append(text[: found[0].start])
        position = found.popleft().end
    while found and found[0].opens and not text[position : found[0].start].strip():
        start = found[0].end
        closing = _take_block(found)
        pieces.append(text[start : closing.start if closing else None])
        if closing is None:
            return Separated("", _joined(completion.reasoning, pieces), closed=False)
        position = closing.end
    answer = _unwrapped(text[position:].strip(), markers)
    if answer is None:
        pieces.append(text[position:])
        return Separated("", _joined(completion.reasoning, pieces), closed=False)
    return Separated(answer, _joined(completion.reasoning, pieces), closed=True)


def _markers(text: str, pairs: Sequence[ReasoningMarkers]) -> list[_Marker]:
    by_spelling = _by_spelling(tuple(pairs))
    if not by_spelling:
        return []
    return [
        _Marker(match.start(), match.end(), *by_spelling[_folded(match.group())])
        for match in _pattern(*by_spelling).finditer(text)
    ]


@lru_cache(maxsize=32)
def _by_spelling(
    pairs: tuple[ReasoningMarkers, ...],
) -> Mapping[str, tuple[ReasoningMarkers, bool]]:
    """Each marker in lower case, the pair that it is of, and whether it opens."""
    return {
        _folded(spelling): (pair, spelling == pair.open)
        for pair in pairs
        for spelling in (pair.open, pair.close)
    }


@lru_cache(maxsize=32)
def _pattern(*spellings: str) -> re.Pattern[str]:
    # re.ASCII: otherwise the Kelvin sign would be a k, and a browser does not think so.
    return re.compile("|".join(map(re.escape, spellings)), re.IGNORECASE | re.ASCII)


def _take_block(found: deque[_Marker]) -> _Marker | None:
    """Take the markers of the block that begins here; its closing one, or None if it never ends."""
    pair = found[0].pair
    depth = 0
    while found:
        marker = found.popleft()
        if marker.pair == pair:
            depth += 1 if marker.opens else -1
            if depth == 0:
                return marker
    return None


def _unwrapped(answer: str, markers: Sequence[ReasoningMarkers]) -> str | None:
    """The inside of a wrapper that holds everything; None when the wrapper never ends."""
    tags = list(_pattern(_ANSWER.open, _ANSWER.close).finditer(answer))
    if not tags or tags[0].start() > 0 or _folded(tags[0].group()) != _ANSWER.open:
        return answer
    if all(_folded(tag.group()) == _ANSWER.open for tag in tags):
        return None
    if len(tags) > 2 or tags[1].end() < len(answer):  # noqa: PLR2004 - one tag on either side
        return answer
    inside = answer[tags[0].end() : tags[1].start()].strip()
    first = next(iter(_markers(inside, markers)), None)
    return answer if first is not None and first.opens and first.start == 0 else inside


def _joined(reasoning: str | None, pieces: Sequence[str]) -> str | None:
    parts = [part.strip() for part in (reasoning, *pieces) if part is not None]
    return "\n\n".join(filter(None, parts)) if parts else None
