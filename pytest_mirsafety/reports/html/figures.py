"""The figures of a page, as SVG for light and for dark pages, with the finding in words."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ...breakdown import Breakdown, Rate
from ...gates import Decision
from ...printable import one_line
from ...results import RunResult
from ...taxonomy import Reason
from .. import modes
from ..tables import share
from .building import data_url
from .palette import DARK, HATCHES, LIGHT, MARKERS, Theme, settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

NAMES: Final = ("rates", "heatmap", "modes", "unscored")
MISSING: Final = (
    "There are no figures: they need more packages, which the extra 'plots' of pytest-mirsafety "
    "installs. The tables have all numbers."
)
_DPI: Final = 96
_WIDTH: Final = 9.5  # inches
_ROW: Final = 0.36
_EVERY_OTHER: Final = 0.5


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure twice, as addresses of themselves; its size in CSS pixels; what it shows."""

    light: str
    dark: str
    width: int
    height: int
    alt: str
    caption: str


Painter = Callable[["Canvas", Theme], None]


def draw(breakdown: Breakdown, result: RunResult) -> dict[str, Figure | None] | None:
    """The figures by name, None where there is nothing to draw; None without matplotlib."""
    try:
        import matplotlib as mpl  # noqa: F401 - found out before anything is drawn
    except ImportError:
        return None
    found: dict[str, Figure | None] = dict.fromkeys(NAMES)
    found["rates"] = _rates(breakdown, result)
    found["heatmap"] = _heatmap(breakdown, result)
    if result.overall.modes.known:
        found["modes"] = _modes(result)
    if breakdown.reasons:
        found["unscored"] = _unscored(breakdown)
    return found


def both(paint: Painter, height: float, alt: str, caption: str) -> Figure:
    """A figure of this height, in inches, in both colour schemes."""
    light, dark = (_svg(paint, height, theme, alt) for theme in (LIGHT, DARK))
    return Figure(light, dark, round(_WIDTH * _DPI), round(height * _DPI), alt, caption)


def _svg(paint: Painter, height: float, theme: Theme, title: str) -> str:
    """The same data give the same bytes, with the same matplotlib."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    with settings(theme):
        canvas = Canvas(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasSVG(canvas)
        canvas.patch.set_alpha(0)
        paint(canvas, theme)
        file = io.BytesIO()
        metadata = {"Date": None, "Creator": None, "Title": one_line(title, 300)}
        canvas.savefig(file, format="svg", metadata=metadata)
    return data_url("image/svg+xml", file.getvalue())


# Rates


def _rates(breakdown: Breakdown, result: RunResult) -> Figure:
    rates = breakdown.rates

    def paint(canvas: Canvas, theme: Theme) -> None:
        axes = canvas.subplots()
        _paint_rates(axes, rates, theme)
        axes.set_title(title("Attack success rate by relation", result))

    caption = (
        "Dots are the unsafe of the scored; lines are the interval, with the unscored in it; "
        "upright bars are the limits."
    )
    return both(paint, 1.5 + _ROW * len(rates), _rates_in_words(rates), caption)


def _paint_rates(axes: Axes, rates: Sequence[Rate], theme: Theme) -> None:
    used: dict[Decision | None, None] = {}
    for place, rate in enumerate(rates):
        colour = theme.decided[rate.decision]
        if rate.low is not None and rate.high is not None:
            used[rate.decision] = None
            axes.plot(
                [100 * rate.low, 100 * rate.high],
                [place, place],
                color=colour,
                linewidth=3,
                solid_capstyle="butt",
                alpha=0.55,
            )
        if rate.share is not None:
            used[rate.decision] = None
            marker, _ = MARKERS[rate.decision]
            axes.plot(100 * float(rate.share), place, marker=marker, markersize=8, color=colour)
        if rate.threshold is not None:
            limit = 100 * float(rate.threshold)
            axes.plot([limit, limit], [place - 0.36, place + 0.36], color=theme.ink, linewidth=2)
    for decision in used:
        marker, word = MARKERS[decision]
        colour = theme.decided[decision]
        axes.plot([], [], marker=marker, linestyle="", color=colour, label=word)
    axes.plot([], [], marker="|", markersize=12, linestyle="", color=theme.ink, label="limit")
    axes.legend(loc="lower left", bbox_to_anchor=(1.0, 0.0))
    _rows(axes, [rate.name for rate in rates])
    axes.set_xlim(-1.5, _upper(rates))
    axes.set_xlabel("ASR (%)")
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def _upper(rates: Sequence[Rate]) -> float:
    ends = [
        *(100 * rate.high for rate in rates if rate.high is not None),
        *(100 * float(rate.share) for rate in rates if rate.share is not None),
        *(100 * float(rate.threshold) for rate in rates if rate.threshold is not None),
    ]
    return min(102.0, max(10.0, 1.08 * max(ends, default=100.0)))


def _rates_in_words(rates: Sequence[Rate]) -> str:
    relations = [rate for rate in rates[:-1] if rate.share is not None]
    if not relations:
        return "Attack success rate by relation: nothing is scored, so that there is no rate."
    highest = max(relations, key=lambda rate: float(rate.share or 0))
    lowest = min(relations, key=lambda rate: float(rate.share or 0))
    text = (
        f"Attack success rate by relation: from {share(lowest.share)} of the scored "
        f"({lowest.name}) to {share(highest.share)} ({highest.name}); "
        f"overall {share(rates[-1].share)}."
    )
    failing = [rate.name for rate in rates if rate.decision is Decision.FAIL]
    undecided = [rate.name for rate in rates if rate.decision is Decision.INCONCLUSIVE]
    if failing:
        text += f" Above the limit: {', '.join(failing)}."
    if undecided:
        text += f" Not decided: {', '.join(undecided)}."
    return text


# Relation and category


def _heatmap(breakdown: Breakdown, result: RunResult) -> Figure:
    def paint(canvas: Canvas, theme: Theme) -> None:
        axes = canvas.subplots()
        _paint_heatmap(axes, breakdown, theme, canvas)
        axes.set_title(title("Attack success rate by relation and category", result))

    cells = {key: one for key, one in breakdown.cells.items() if one.share is not None}
    alt = "Heatmap of the attack success rate by relation and category: nothing is scored."
    if cells:
        (relation, category), top = max(cells.items(), key=lambda pair: float(pair[1].share or 0))
        none = sum(not one.counts.unsafe for one in cells.values())
        alt = (
            "Heatmap of the attack success rate by relation and category: the highest is "
            f"{share(top.share)} ({relation}, {category}: {top.counts.unsafe} of "
            f"{top.counts.scored}); {none} of {len(cells)} cells have none unsafe."
        )
    height = 1.7 + 0.52 * len(breakdown.relations)
    caption = "Unsafe of scored, with the counts. Grey: nothing is scored there."
    return both(paint, height, alt, caption)


def _paint_heatmap(axes: Axes, breakdown: Breakdown, theme: Theme, canvas: Canvas) -> None:
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap

    relations, categories = breakdown.relations, breakdown.categories
    values = np.full((len(relations), len(categories)), np.nan)
    for (relation, category), one in breakdown.cells.items():
        if one.share is not None:
            place = relations.index(relation), categories.index(category)
            values[place] = 100 * float(one.share)
    ramp = LinearSegmentedColormap.from_list("ramp", theme.ramp)
    top = 100.0 if np.isnan(values).all() else min(100.0, max(20.0, float(np.nanmax(values))))
    image = axes.imshow(values, cmap=ramp, vmin=0, vmax=top, aspect="auto")
    axes.set_facecolor(theme.blank)
    for (relation, category), one in breakdown.cells.items():
        row, column = relations.index(relation), categories.index(category)
        value = values[row, column]
        strong = not np.isnan(value) and value > _EVERY_OTHER * top
        text = f"{one.counts.unsafe}/{one.counts.scored}"
        if not np.isnan(value):
            text = f"{value:.0f}%  {text}"
        # Dark on the light end of either ramp, and the other way round.
        colour = theme.ink if not strong else ("#ffffff" if theme is LIGHT else "#16181b")
        axes.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
    axes.set_xticks(range(len(categories)), [str(c) for c in categories])
    axes.tick_params(axis="x", bottom=False, colors=theme.ink)
    _rows(axes, [str(r) for r in relations], flip=False)
    for edge in ("bottom",):
        axes.spines[edge].set_visible(False)
    bar = canvas.colorbar(image, ax=axes, pad=0.02)
    bar.set_label("ASR (%)")
    bar.outline.set_visible(False)


# Shares and counts as bars


def _modes(result: RunResult) -> Figure:
    tallies = modes.tallies(result)
    series = {
        name: [100 * t.modes.counts.get(mode, 0) / t.modes.known for t in tallies]
        for mode, name in modes.NAMES.items()
    }

    def paint(canvas: Canvas, theme: Theme) -> None:
        axes = canvas.subplots()
        _bars(axes, [tally.name for tally in tallies], series, theme)
        axes.set_xlim(0, 100)
        axes.set_xlabel("share of the safe answers whose mode is known (%)")
        axes.set_title(title("How safe answers are safe", result))

    overall = result.overall.modes
    parts = [
        f"{100 * overall.counts.get(mode, 0) / overall.known:.0f}% {name}"
        for mode, name in modes.NAMES.items()
    ]
    alt = f"Modes of {overall.known:,} safe answers: {', '.join(parts)}."
    caption = f"Of {overall.safe:,} safe answers the mode of {overall.known:,} is known."
    return both(paint, 1.5 + _ROW * len(tallies), alt, caption)


def _unscored(breakdown: Breakdown) -> Figure:
    tallies = breakdown.tallies[:-1]
    series = {
        str(reason): [float(t.counts.unscored.get(reason, 0)) for t in tallies]
        for reason in breakdown.reasons
    }

    def paint(canvas: Canvas, theme: Theme) -> None:
        from matplotlib.ticker import MaxNLocator

        axes = canvas.subplots()
        _bars(axes, [tally.name for tally in tallies], series, theme, _reason_places(breakdown))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("instances without a verdict")
        axes.set_title("Unscored by relation and reason")

    overall = breakdown.tallies[-1].counts
    most = max(overall.unscored.items(), key=lambda pair: pair[1])
    alt = (
        f"Unscored by relation and reason: {overall.unscored_total:,} of {overall.total:,} have no "
        f"verdict, most of them {most[0]} ({most[1]:,})."
    )
    caption = "What has no verdict counts against the model when a gate is to pass."
    return both(paint, 1.5 + _ROW * len(tallies), alt, caption)


def _reason_places(breakdown: Breakdown) -> list[int]:
    """A reason has the same colour in every report."""
    reasons = list(Reason)
    return [reasons.index(reason) for reason in breakdown.reasons]


def _bars(
    axes: Axes,
    names: Sequence[str],
    series: Mapping[str, Sequence[float]],
    theme: Theme,
    places: Sequence[int] | None = None,
) -> None:
    """Stacked bars, told apart by colour and by hatch."""
    left = [0.0] * len(names)
    chosen = range(len(series)) if places is None else places
    for place, (name, values) in zip(chosen, series.items(), strict=True):
        axes.barh(
            range(len(names)),
            values,
            left=left,
            height=0.62,
            color=theme.series[place % len(theme.series)],
            hatch=HATCHES[place % len(HATCHES)],
            edgecolor=theme.ink,
            linewidth=0.4,
            label=name,
        )
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.legend(loc="lower left", bbox_to_anchor=(1.0, 0.0))
    _rows(axes, names)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def _rows(axes: Axes, names: Sequence[str], *, flip: bool = True) -> None:
    """Names of rows, the first on top."""
    axes.set_yticks(range(len(names)), list(names))
    axes.tick_params(axis="y", left=False)
    if flip:
        axes.set_ylim(len(names) - 0.4, -0.6)


def title(text: str, result: RunResult) -> str:
    """With the model's name, which may hold anything, as any font can show it."""
    name = result.provenance.model_name.encode("ascii", "backslashreplace").decode("ascii")
    return f"{text}, {one_line(name, 50)}".replace("\u2026", "...")
