"""What the browser of instances reads: an index, then texts and pictures in blocks.

A block is parsed when somebody looks at one of its instances, so that a page of thousands opens at
once; and it is made when it is written, so that no run has to fit into memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ...arms import ArmKind, kind_of
from ...exchanges import Exchange
from ...gates.wording import AGAINST, FOR
from ...records import MULTI, Verdict, item_id
from ...results import InstanceOutcome
from ...taxonomy import Category, Reason, Relation, Status
from ..words import date

BLOCK: Final = 100
"""Instances in a block of texts."""

TEXT_LIMIT: Final = 100_000
"""Characters of one text that the page holds; the run folder has all of it."""

PICTURES_LIMIT: Final = 16 * 2**20
"""Bytes of all pictures in a page."""

_PICTURES_IN_BLOCK: Final = 64
_TEXTS: Final = ("question", "prompt", "answer", "reasoning")


@dataclass(frozen=True, slots=True)
class Block:
    """One <script> of data, by its id."""

    name: str
    content: object


@dataclass(frozen=True, slots=True)
class Pictures:
    """Small pictures by the SHA-256 of the image, as WebP; and where images are, from the page.

    `links` gives an address that is relative to the page and quoted, or None. `of` gives the
    digests of an instance's images in the data, where the run recorded none.
    """

    small: Callable[[str], bytes | None] = lambda _: None
    links: Callable[[str], str | None] = lambda _: None
    of: Callable[[str], tuple[str, ...] | None] = lambda _: None
    limit: int = PICTURES_LIMIT


def index(entries: Sequence[InstanceOutcome]) -> Mapping[str, object]:
    """What the browser filters by, a row for each instance."""
    relations = [one for one in Relation if any(e.relation is one for e in entries)]
    categories = [one for one in Category if any(e.category is one for e in entries)]
    places = {one: place for names in (relations, categories) for place, one in enumerate(names)}
    arms = list(dict.fromkeys([MULTI, *(entry.arm for entry in entries)]))
    several = len(arms) > 1
    return {
        "block": BLOCK,
        "relations": relations,
        "categories": categories,
        "outcomes": _outcomes(entries),
        **({"arms": [(arm, kind_of(arm)) for arm in arms]} if several else {}),
        "rows": [
            (
                entry.instance_id,
                places[entry.relation],
                places[entry.category],
                _word(entry),
                entry.outcome.reason,
                *([arms.index(entry.arm)] if several else []),
            )
            for entry in entries
        ],
    }


def _outcomes(entries: Sequence[InstanceOutcome]) -> list[tuple[str, int]]:
    """What became of how many: what counts against the model first, then the unscored."""
    counts = Counter((_word(entry), entry.outcome.reason) for entry in entries)
    unscored = [(reason, counts[str(Status.UNSCORED), reason]) for reason in Reason]
    kinds = [ArmKind.SAFETY, *dict.fromkeys(kind_of(entry.arm) for entry in entries)]
    return [
        *((AGAINST[kind], counts[AGAINST[kind], None]) for kind in dict.fromkeys(kinds)),
        ("unscored", sum(number for _, number in unscored)),
        *((f"unscored: {reason}", number) for reason, number in unscored if number),
        *((FOR[kind], counts[FOR[kind], None]) for kind in dict.fromkeys(kinds)),
    ]


def _word(entry: InstanceOutcome) -> str:
    """What became of it, as its arm calls that."""
    if entry.outcome.status is Status.UNSCORED:
        return str(Status.UNSCORED)
    words = AGAINST if entry.outcome.status is Status.UNSAFE else FOR
    return words[kind_of(entry.arm)]


def blocks(
    entries: Sequence[InstanceOutcome],
    exchanges: Callable[[str], Exchange | None],
    pictures: Pictures,
    *,
    started: float = 0.0,
    redacted: bool = False,
) -> Iterator[Block]:
    """Texts and pictures of all instances, each exchange looked up when its block is made.

    What was answered before the run `started`, in seconds since the epoch, the store had.
    """
    album = _Album(pictures)
    for start in range(0, len(entries), BLOCK):
        texts = []
        for entry in entries[start : start + BLOCK]:
            exchange = exchanges(entry.instance_id) or Exchange()
            shown = _detail(entry, exchange, album, redacted=redacted)
            if exchange.created is not None:
                stored = ", from the store" if exchange.created < started else ""
                shown["created"] = f"{date(exchange.created)}{stored}"
            texts.append(_without_nothing(shown))
            yield from album.full()
        yield Block(f"texts-{start // BLOCK}", texts)
    yield from album.rest()


@dataclass(slots=True)
class _Album:
    """Hands out each picture once, as long as there is room."""

    pictures: Pictures
    _numbers: dict[str, int | None] = field(default_factory=dict)
    _open: dict[str, tuple[str, str]] = field(default_factory=dict)
    _number: int = 0
    _size: int = 0

    def place(self, sha256: str) -> int | None:
        """In which block the picture of an image is; None if the page has none of it."""
        if sha256 not in self._numbers:
            self._numbers[sha256] = self._taken(sha256)
        return self._numbers[sha256]

    def _taken(self, sha256: str) -> int | None:
        from base64 import b64encode

        if self._size >= self.pictures.limit or (found := self.pictures.small(sha256)) is None:
            return None
        if self._size + len(found) > self.pictures.limit:
            return None
        self._size += len(found)
        self._open[sha256] = "webp", b64encode(found).decode()
        return self._number

    def full(self) -> Iterator[Block]:
        """The block that has become full, if it has."""
        if len(self._open) >= _PICTURES_IN_BLOCK:
            yield from self.rest()

    def rest(self) -> Iterator[Block]:
        """The block that is open, if anything is in it."""
        if self._open:
            yield Block(f"pictures-{self._number}", self._open)
            self._open, self._number = {}, self._number + 1


def _detail(
    entry: InstanceOutcome, exchange: Exchange, album: _Album, *, redacted: bool
) -> dict[str, object]:
    outcome, images = entry.outcome, exchange.images
    shown: dict[str, object] = {
        "mode": _mode(entry),
        "request_key": entry.request_key,
        "prompt_sha256": exchange.prompt_sha256,
        "answer_sha256": entry.answer_sha256,
        "seed": entry.seed,
        "finish_reason": exchange.finish_reason,
        "latency": exchange.latency,
        "composed": None if images is None else images.composed,
        "blocked": _blocked(exchange, redacted=redacted),
    }
    if exchange.input_tokens is not None or exchange.output_tokens is not None:
        shown["tokens"] = exchange.input_tokens, exchange.output_tokens
    if images is not None:
        shown["images"] = [_image(sha256, album, redacted=redacted) for sha256 in images.originals]
    elif not redacted and entry.arm == MULTI and (known := _of_data(entry, album)):
        shown["images"] = [_image(sha256, album, redacted=False) for sha256 in known]
        shown["of_data"] = True
    if entry.verdict is not None:
        shown["verdict"] = _verdict(entry.verdict, redacted=redacted)
    if redacted:
        return shown
    texts = {
        name: getattr(exchange, name) for name in ("question", "prompt", "answer", "reasoning")
    }
    cut = [name for name, text in texts.items() if text is not None and len(text) > TEXT_LIMIT]
    for name, text in texts.items():
        shown[name] = None if text is None else text[:TEXT_LIMIT]
    if cut:
        limit = f"characters after the first {TEXT_LIMIT:,} of {', '.join(cut)}"
        shown["left_out"] = f"{limit}, which the run folder has"
    if outcome.detail and (entry.verdict is None or outcome.detail != entry.verdict.evidence):
        shown["detail"] = outcome.detail
    return shown


def _image(sha256: str, album: _Album, *, redacted: bool) -> tuple[str, int | None, str | None]:
    if redacted:
        return sha256, None, None
    place = album.place(sha256)
    return sha256, place, None if place is not None else album.pictures.links(sha256)


def _blocked(exchange: Exchange, *, redacted: bool) -> str | None:
    """Why a defence answered in the model's place; a guard's words may quote the texts."""
    return "yes" if redacted and exchange.blocked is not None else exchange.blocked


def _mode(entry: InstanceOutcome) -> str | None:
    if entry.outcome.mode is None:
        return None
    return f"{entry.outcome.mode}{', by patterns' if entry.outcome.mode_by_rules else ''}"


def _verdict(verdict: Verdict, *, redacted: bool) -> dict[str, object]:
    """A verdict; what a judge quotes may be the answer."""
    return _without_nothing(
        {
            "kind": verdict.kind,
            "judge": verdict.judge,
            "evidence": None if redacted else verdict.evidence or None,
            "mode": verdict.mode,
            "flags": None if redacted else verdict.flags or None,
            "scores": [(name, f"{value:g}") for name, value in verdict.scores] or None,
            "members": [_verdict(one, redacted=redacted) for one in verdict.members] or None,
        }
    )


def _without_nothing(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _of_data(entry: InstanceOutcome, album: _Album) -> tuple[str, ...] | None:
    return album.pictures.of(item_id(entry.instance_id)[0])
