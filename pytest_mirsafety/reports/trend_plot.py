"""The trend of several runs as a picture: the range of the rate, run by run."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .. import whole_files
from ..comparison.trend import Rate, TrendPoint
from ..errors import ConfigurationError
from ..printable import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's: told apart with every kind of colour blindness. The marks differ too.
_COLOURS: Final = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"),
    *("#7A7A00", "#332288", "#AA4499"),
)
_MARKS: Final = "osD^vP*X<"
FORMATS: Final = (".svg", ".png")


def check_plot(path: Path) -> None:
    """Find out before anything is read that a plot can be made.

    Raises:
        ConfigurationError: matplotlib is missing, or the file is of another kind.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigurationError(f"--plot: {one_line(str(path))} must end in .svg or .png")
    if not can_plot():
        raise ConfigurationError("--plot needs matplotlib: pip install 'pytest-mirsafety[plots]'")


def can_plot() -> bool:
    """Matplotlib is there."""
    return importlib.util.find_spec("matplotlib") is not None


def plot(points: Sequence[TrendPoint], path: Path) -> None:
    """Write the picture: a panel of all instances, and one of each relation.

    Raises:
        ConfigurationError: it cannot be written.
    """
    content = picture(points, svg=path.suffix.lower() == ".svg")
    whole_files.write(path, [content])


def picture(points: Sequence[TrendPoint], *, svg: bool) -> bytes:
    """The picture as SVG or as PNG: the same points give the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "mirsafety", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 7.5), layout="constrained")
        whole, parts = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.6))
        names = [rate.name for rate in points[0].rates]
        for place, name in enumerate(names):
            rates = [point.rates[place] for point in points]
            overall = name == "overall"
            shift = 0.0 if overall else 0.05 * (place - (len(names) - 2) / 2)
            style = ("#000000", "o") if overall else (_COLOURS[place % 9], _MARKS[place % 9])
            _line(whole if overall else parts, rates, name, style, shift)
        figure.suptitle("Attack success rate of each run")
        whole.set_title("All instances", loc="left", fontsize="medium")
        parts.set_title("By relation", loc="left", fontsize="medium")
        for axes in (whole, parts):
            axes.set_ylabel("attack success rate (%)")
            axes.set_ylim(bottom=-0.03 * axes.get_ylim()[1])  # a mark at 0 is seen whole
            axes.grid(axis="y", alpha=0.3)
        parts.set_xticks(range(len(points)), [_label(point) for point in points])
        parts.set_xlabel("run, in the order given; bars: the range that holds the rate")
        figure.legend(
            *parts.get_legend_handles_labels(),
            loc="outside lower center",
            ncols=5,
            fontsize="small",
        )
        metadata: dict[str, str | None] = {"Title": "Attack success rate of each run"}
        if svg:
            metadata["Date"] = None
        content = io.BytesIO()
        figure.savefig(content, format="svg" if svg else "png", dpi=150, metadata=metadata)
        return content.getvalue()


def _line(
    axes: Axes, rates: Sequence[Rate], name: str, style: tuple[str, str], shift: float
) -> None:
    colour, mark = style
    places = [place + shift for place, rate in enumerate(rates) if rate.low is not None]
    known = [(100 * r.low, 100 * r.high) for r in rates if r.low is not None and r.high is not None]
    middle = [(low + high) / 2 for low, high in known]
    spread = [(high - low) / 2 for low, high in known]
    axes.errorbar(
        places,
        middle,
        yerr=spread,
        label=name,
        color=colour,
        marker=mark,
        markersize=5,
        capsize=3,
        linewidth=1.2,
    )


def _label(point: TrendPoint) -> str:
    # A dollar would begin mathematics, and a name is whoever's.
    name = one_line(point.side.terms.model_name, 24).replace("$", r"\$")
    where = one_line(Path(point.side.where).name, 24).replace("$", r"\$")
    return f"{where}\n{name}"
