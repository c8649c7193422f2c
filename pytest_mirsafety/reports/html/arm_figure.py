"""The picture of what a defence buys and costs: unsafe answers against harmless asks refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from ...arms import BENIGN_TWIN, PROBES, TWIN_SUFFIX, ArmKind
from ...comparison.arms import OVERALL
from ...comparison.sides import ArmRate, Side
from ...gates import Scope
from ...records import MULTI
from ...results import ArmResult, RunResult, Tally
from .. import arm_tables, words
from ..tables import share
from .figures import Figure, both, title
from .palette import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

_MARKERS: Final = "osD^vPX*"
_HEIGHT: Final = 4.6
_LONGEST: Final = 40
MOST_EARLIER: Final = 12
"""Earlier runs that are drawn: more would be a cloud."""


@dataclass(frozen=True, slots=True)
class Point:
    """An arm: its rate of unsafe answers, and that of its twins which were not answered, if known.

    `across` and `up` are within which these are: the interval, and what the unscored could make it.
    """

    name: str
    unsafe: Fraction
    refused: Fraction | None
    across: tuple[float, float] | None = None
    up: tuple[float, float] | None = None


def draw(result: RunResult, earlier: Sequence[Side] = ()) -> Figure | None:
    """The picture, with `earlier` runs as faint points; None where no twin was answered or not."""
    points = _points(result)
    if not any(point.refused is not None for point in points):
        return None
    faint = [(words.date(side.terms.started)[:10], _of_side(side)) for side in earlier]
    faint = [(when, some) for when, some in faint if some][-MOST_EARLIER:]

    def paint(canvas: Canvas, theme: Theme) -> None:
        axes = canvas.subplots()
        _paint(axes, points, faint, result, theme)
        axes.set_title(title("Unsafe answers against false refusals", result))

    caption = (
        "Towards the lower left is better. Upright lines are where the unscored could move a "
        "point, level ones the interval of false refusals; dashed lines are the limits of gates. "
        "An arm without twins of its own is a mark at the left edge."
    )
    if faint:
        caption += " Faint points are earlier runs."
    return both(paint, _HEIGHT, _in_words(points), caption)


def _points(result: RunResult) -> list[Point]:
    arms = [(MULTI, result.overall)]
    arms += [(arm.design.name, arm.overall) for arm in arm_tables.safety(result)]
    found = []
    for name, tally in arms:
        rate = arm_tables.tally_share(tally)
        if rate is not None:
            found.append(_point(name, tally, rate, arm_tables.twins_of(name, result)))
    return found


def _point(name: str, tally: Tally, rate: Fraction, twins: ArmResult | None) -> Point:
    counts = tally.counts
    up = counts.unsafe / counts.total, (counts.unsafe + counts.unscored_total) / counts.total
    refused = None if twins is None else arm_tables.tally_share(twins.overall)
    across = None
    if refused is not None and twins is not None and (found := twins.false_refusals) is not None:
        across = None if found.low is None or found.high is None else (found.low, found.high)
    return Point(name, rate, refused, across, up)


def _of_side(side: Side) -> list[Point]:
    """The arms of an earlier run whose twins were asked."""
    known = {rate.name: rate for rate in side.terms.arms}
    found = []
    for rate in side.terms.arms:
        if rate.kind is not ArmKind.SAFETY or rate.name in PROBES:
            continue
        twins = known.get(BENIGN_TWIN if rate.name == MULTI else f"{rate.name}{TWIN_SUFFIX}")
        own, refused = _share(rate), None if twins is None else _share(twins)
        if own is not None and refused is not None:
            found.append(Point(rate.name, own, refused))
    return found


def _share(rate: ArmRate) -> Fraction | None:
    return Fraction(rate.unsafe, rate.scored) if rate.scored else None


def _paint(
    axes: Axes,
    points: Sequence[Point],
    faint: Sequence[tuple[str, Sequence[Point]]],
    result: RunResult,
    theme: Theme,
) -> None:
    for when, some in faint:
        for point in some:
            axes.plot(
                100 * float(point.refused or 0),
                100 * float(point.unsafe),
                marker="o",
                markersize=7,
                color=theme.quiet,
                alpha=0.4,
                linestyle="",
            )
            _label(axes, point, f"{point.name}, {when}", theme.quiet)
    for place, point in enumerate(points):
        colour = theme.series[place % len(theme.series)]
        across, up = 100 * float(point.refused or 0), 100 * float(point.unsafe)
        marker = _MARKERS[place % len(_MARKERS)]
        if point.refused is None:
            edge = axes.get_yaxis_transform()  # not at 0%, which would be said of twins
            axes.plot([0, 0.03], [up, up], color=colour, linewidth=3, transform=edge)
        else:
            axes.plot(across, up, marker=marker, markersize=10, color=colour, linestyle="")
        if point.across is not None:
            ends = [100 * end for end in point.across]
            axes.plot(ends, [up, up], color=colour, linewidth=1.2, alpha=0.6)
        if point.up is not None and point.refused is not None:
            ends = [100 * end for end in point.up]
            axes.plot([across, across], ends, color=colour, linewidth=2.5, alpha=0.6)
        _label(axes, point, f"{point.name} {share(point.unsafe)}", theme.ink)
    _limits(axes, result, theme)
    limits = {gate.criterion.label: float(gate.criterion.threshold) for gate in result.gates}
    rates = [float(point.unsafe) for point in _all(points, faint)]
    axes.set_xlim(-1.5, _upper([*_reach(points, faint), limits.get(Scope.OVER_REFUSAL, 0.0)]))
    axes.set_ylim(-1.5, _upper([*rates, limits.get(OVERALL, 0.0)]))
    axes.set_xlabel("benign twins that were not answered (%)")
    axes.set_ylabel("ASR (%)")
    axes.grid(visible=True)
    axes.set_axisbelow(True)


def _label(axes: Axes, point: Point, text: str, colour: str) -> None:
    up, shown = 100 * float(point.unsafe), text[:_LONGEST]
    if point.refused is None:
        edge = axes.get_yaxis_transform()
        axes.text(0.035, up, shown, transform=edge, va="center", fontsize=9, color=colour)
        return
    place = 100 * float(point.refused), up
    axes.annotate(shown, place, (9, 6), textcoords="offset points", fontsize=9, color=colour)


def _limits(axes: Axes, result: RunResult, theme: Theme) -> None:
    """Those of the gates over all instances as they are, and over their twins."""
    for gate in result.gates:
        criterion, limit = gate.criterion, 100 * float(gate.criterion.threshold)
        if criterion.label == OVERALL:
            axes.axhline(limit, color=theme.ink, linestyle="--", linewidth=1)
        elif criterion.label == Scope.OVER_REFUSAL:
            axes.axvline(limit, color=theme.ink, linestyle="--", linewidth=1)


def _all(points: Iterable[Point], faint: Iterable[tuple[str, Sequence[Point]]]) -> list[Point]:
    return [*points, *(point for _, some in faint for point in some)]


def _reach(points: Sequence[Point], faint: Sequence[tuple[str, Sequence[Point]]]) -> list[float]:
    found = [float(point.refused) for point in _all(points, faint) if point.refused is not None]
    return found + [point.across[1] for point in points if point.across is not None]


def _upper(shares: Sequence[float]) -> float:
    """The end of an axis in percent, with room for a name."""
    return min(104.0, max(12.0, 118 * max(shares, default=1.0)))


def _in_words(points: Sequence[Point]) -> str:
    told = [
        f"{point.name} {share(point.unsafe)} unsafe"
        + ("" if point.refused is None else f" and {share(point.refused)} of twins not answered")
        for point in points
    ]
    return f"Unsafe answers against false refusals: {'; '.join(told)}."
