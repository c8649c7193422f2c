"""The page of one run: its tables, its figures, and a browser of all its instances."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ...breakdown import break_down
from ...circumstances import Circumstances
from ...comparison.sides import Side
from ...exchanges import Exchange
from ...ordering import in_order
from ...results import RunResult
from ...taxonomy import Status
from .. import arm_tables, flips, tables, words
from ..tables import Table
from . import arm_figure, figures, instances
from .building import build, data_url
from .flips import MAX_SHOWN
from .flips import sides as flip_sides
from .instances import Pictures

MAX_PRINTED: Final = 300
"""Unsafe instances that are named on paper."""


@dataclass(frozen=True, slots=True)
class Attention:
    """The heatmap of `--mir-attention` as PNG, and what it shows in words."""

    png: bytes = field(repr=False)
    alternative: str


@dataclass(frozen=True, slots=True)
class Page:
    """All that a page is made of.

    `exchanges` gives what an instance was asked and what came back. `images_note` says why
    pictures are missing, if they are. `earlier` runs are points in the picture of the
    arms. A `redacted` page has no text and no picture of an instance.
    """

    result: RunResult
    exit_code: int
    exchanges: Callable[[str], Exchange | None] = lambda _: None
    pictures: Pictures = field(default_factory=Pictures)
    images_note: str = ""
    attention: Attention | None = None
    circumstances: Circumstances = field(default_factory=Circumstances)
    redacted: bool = False
    earlier: Sequence[Side] = ()


def render(page: Page) -> Iterator[str]:
    """The page, piece by piece; with matplotlib it has figures, and else says so.

    Raises:
        RunError: an exchange cannot be read any more.
    """
    result = page.result
    breakdown = break_down(result)
    provenance, entries = result.provenance, in_order(result.all_outcomes)
    found = in_order(result.outcomes)
    unsafe = [e.instance_id for e in found if e.outcome.status is Status.UNSAFE]
    drawn = figures.draw(breakdown, result)
    attention = page.attention
    sections = _sections(result, attention=attention is not None)
    yield from build(
        "report.html",
        script="report.js",
        contents=list(sections.items()),
        sentence=words.sentence(result),
        ruling=str(result.ruling),
        ruling_kind=tables.kind(result.ruling),
        exit_in_words=words.exit_in_words(result, page.exit_code),
        model=f"{provenance.model_name} ({provenance.model_identity})",
        data=provenance.data_source,
        asked=tables.size(result.overall.planned, result.overall.population),
        counted="answers" if result.design.trials.counted > 1 else "instances",
        judge=words.judge(provenance),
        started=words.date(provenance.started),
        sharded=result.design.shard is not None,
        gates=tables.gates(result),
        mode_gates=tables.gates(result, on_modes=True),
        increases=tables.increases(result),
        against=tables.against(result),
        explanations=list(tables.explanations(result)),
        arm_picture=None if drawn is None else arm_figure.draw(result, page.earlier),
        arms_unasked=arm_tables.unasked(result),
        arms=[one for one in _arm_tables(result) if one[1] is not None],
        flip_rates=flips.rates(result),
        flips=list(flip_sides(result, page.exchanges, page.pictures, redacted=page.redacted)),
        more_flips=max(0, len(flips.smallest(result)) - MAX_SHOWN),
        rates=tables.rates(breakdown),
        interval_in_words=tables.interval_in_words(result),
        heatmap=tables.heatmap(breakdown),
        safe_modes=tables.safe_modes(result),
        unscored=tables.unscored(breakdown),
        challenge=tables.challenge(result),
        cost=tables.cost(result),
        notes=[*result.notes, *words.left_out(result)],
        provenance={**tables.provenance(result), **tables.circumstances(page.circumstances)},
        version=provenance.package_version,
        figures=drawn or dict.fromkeys(figures.NAMES),
        without_figures="" if drawn is not None else figures.MISSING,
        findings=unsafe[:MAX_PRINTED],
        more_findings=max(0, len(unsafe) - MAX_PRINTED),
        redacted=page.redacted,
        images_note=page.images_note,
        attention=None
        if attention is None
        else {"url": data_url("image/png", attention.png), "alt": attention.alternative},
        index=instances.index(entries),
        blocks=instances.blocks(
            entries,
            page.exchanges,
            page.pictures,
            started=provenance.started,
            redacted=page.redacted,
        ),
    )


def _arm_tables(result: RunResult) -> Iterator[tuple[str, Table | None]]:
    """What came of each arm, by captions."""
    yield "Attack success rate of each arm", arm_tables.rates(result)
    yield "Benign twins that were not answered", arm_tables.false_refusals(result)
    yield "What each arm buys, and what it costs", arm_tables.bargains(result)
    yield "Each arm by relation", arm_tables.by_relation(result)
    yield "What an answer of each arm took", arm_tables.usage(result)


def _sections(result: RunResult, *, attention: bool) -> Mapping[str, str]:
    """The sections that the page has, by their anchor, in order."""
    names = {
        "gates": "Gates" if result.design.shard is None else "",
        "arms": "Arms" if result.arms and any(one for _, one in _arm_tables(result)) else "",
        "flips": "Flips" if result.flips else "",
        "rates": "By relation",
        "heatmap": "By category",
        "modes": "Modes" if result.overall.modes.known else "",
        "unscored": "Unscored",
        "instances": "Instances",
        "attention": "Attention" if attention else "",
        "judge": "Judge",
        "cost": "Cost",
        "notes": "Notes" if result.notes else "",
        "provenance": "Provenance",
    }
    return {anchor: name for anchor, name in names.items() if name}
