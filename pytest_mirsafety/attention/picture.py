"""The heatmap: by layer and head, how far unsafe answers' attention entropy is from safe ones'."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import MissingExtraError
from ..printable import one_line
from .comparing import LEVEL, Comparison

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

MEASURES: Final = ("over the prompt", "over the images")

_COLOURS: Final = "PuOr_r"  # two hues and a light middle that colour-blind people tell apart
_NAME: Final = 70
_TICKS: Final = 8


def check_installed() -> None:
    """Find out before the run that its picture can be drawn.

    Raises:
        MissingExtraError: it cannot.
    """
    try:
        import matplotlib as mpl  # noqa: F401 - missing is found before anything is asked
    except ImportError:
        raise MissingExtraError("--mir-attention", "plots") from None


def alternative(comparison: Comparison, model: str) -> str:
    """What the picture shows, in words, for whoever does not see it."""
    if comparison.effect is None:
        return ""
    import numpy as np

    parts = []
    for place, measure in enumerate(MEASURES):
        effect = comparison.effect[place]
        if np.isnan(effect).all():
            continue
        lower = int((effect < 0).sum())
        text = (
            f"{measure}, from {np.nanmin(effect):+.2f} to {np.nanmax(effect):+.2f}, below zero in "
            f"{lower} of {int((~np.isnan(effect)).sum())} heads"
        )
        if comparison.q is not None:
            differ = int((comparison.q[place] <= LEVEL).sum())
            text += f", {differ} marked as differing at a false discovery rate of {LEVEL:.0%}"
        parts.append(text)
    layers, heads = comparison.effect.shape[1:]
    return (
        f"Heatmap of {layers} layers by {heads} heads of {_shown(model)}: Cliff's delta of "
        f"attention entropy, {comparison.unsafe} unsafe against {comparison.safe} safe answers; "
        f"{'; '.join(parts)}."
    )


def draw(path: Path, comparison: Comparison, model: str) -> None:
    """Write the picture of a comparison that has effects, as PNG.

    Raises:
        OSError: it cannot be written.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    effect, q = comparison.effect, comparison.q
    if effect is None:
        raise ValueError("there is nothing to draw")
    shown = [place for place in range(len(MEASURES)) if not np.isnan(effect[place]).all()]
    layers, heads = effect.shape[1:]
    width, height = _inches(heads, 3.0, 6.5), _inches(layers, 2.2, 9.0)
    figure = Figure(figsize=(width * len(shown) + 1.8, height + 1.9), layout="constrained")
    FigureCanvasAgg(figure)
    # Pale at zero whatever the strengths; one scale for both, whole tenths.
    limit = min(1.0, max(0.2, math.ceil(float(np.nanmax(np.abs(effect))) * 10) / 10))
    axes = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    image = None
    for axis, place in zip(axes, shown, strict=True):
        image = axis.imshow(
            effect[place], cmap=_COLOURS, vmin=-limit, vmax=limit, aspect="auto", origin="lower"
        )
        _mark(axis, None if q is None else q[place])
        axis.set_facecolor("0.85")  # heads without a value
        axis.set_title(f"Entropy {MEASURES[place]}", fontsize="medium")
        axis.set_xlabel("head")
        axis.set_xticks(range(0, heads, _every(heads)))
        axis.set_yticks(range(0, layers, _every(layers)))
    axes[0].set_ylabel("layer")
    if image is not None:
        bar = figure.colorbar(image, ax=list(axes))
        bar.set_label("Cliff's delta, unsafe - safe")
    figure.suptitle(
        f"Attention entropy, {comparison.unsafe} unsafe against {comparison.safe} safe answers\n"
        f"{_shown(model)}",
        fontsize="medium",
        parse_math=False,
    )
    figure.supxlabel(_footnote(comparison), fontsize="small", color="0.25")
    figure.savefig(path, format="png", dpi=150, metadata=_metadata(comparison, model))


def _mark(axis: Axes, q: NDArray[np.float64] | None) -> None:
    """A dot, light on dark and dark on light, where heads differ."""
    if q is not None:
        layers, heads = (q <= LEVEL).nonzero()
        axis.scatter(heads, layers, s=14, c="black", edgecolors="white", linewidths=0.7)


def _footnote(comparison: Comparison) -> str:
    text = "Below 0, unsafe answers are lower. Grey: no value."
    if comparison.q is None:
        return f"{text} No test was made."
    differ = "Dots: heads that differ" if (comparison.q <= LEVEL).any() else "No head differs"
    whole = f"permutations that keep {comparison.clusters} seed questions whole"
    return f"{text}\n{differ} at a false discovery rate of {LEVEL:.0%} ({whole})."


def _metadata(comparison: Comparison, model: str) -> dict[str, str]:
    return {
        "Title": "Attention entropy of unsafe and safe answers",
        "Description": alternative(comparison, model),
        "Software": "pytest-mirsafety",
    }


def _shown(model: str) -> str:
    """The model's name, which may hold anything, as any font can show it."""
    name = model.encode("ascii", "backslashreplace").decode("ascii")
    return one_line(name, _NAME).replace("\u2026", "...")


def _inches(cells: int, least: float, most: float) -> float:
    return min(most, max(least, cells * 0.22))


def _every(cells: int) -> int:
    return max(1, math.ceil(cells / _TICKS))
