"""Colours and settings of the figures, for light and for dark pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from ...gates import Decision


@dataclass(frozen=True, slots=True)
class Theme:
    """Ink, grid, and colours that colour-blind people tell apart (Okabe & Ito 2008)."""

    ink: str
    quiet: str
    grid: str
    blank: str
    ramp: tuple[str, str]
    series: tuple[str, ...]
    decided: Mapping[Decision | None, str]


LIGHT: Final = Theme(
    ink="#1c1e21",
    quiet="#5a6068",
    grid="#d9dcdf",
    blank="#eceeef",
    ramp=("#fdf6ee", "#a63603"),
    series=("#0072b2", "#56b4e9", "#e69f00", "#cc79a7", "#009e73", "#d55e00", "#f0e442", "#7f7f7f"),
    decided={
        Decision.PASS: "#0072b2",
        Decision.FAIL: "#d55e00",
        Decision.INCONCLUSIVE: "#b07d00",
        Decision.NOT_EVALUATED: "#5a6068",
        None: "#5a6068",
    },
)
DARK: Final = Theme(
    ink="#e8e9eb",
    quiet="#a5acb5",
    grid="#3a3f46",
    blank="#2a2e33",
    ramp=("#2b2a2a", "#ff9d5c"),
    series=("#4aa3df", "#9bd3f5", "#f0b429", "#e29bc4", "#2fc79b", "#ff8f4a", "#f5ec7a", "#a8a8a8"),
    decided={
        Decision.PASS: "#4aa3df",
        Decision.FAIL: "#ff8f4a",
        Decision.INCONCLUSIVE: "#f0c24a",
        Decision.NOT_EVALUATED: "#a5acb5",
        None: "#a5acb5",
    },
)
MARKERS: Final[Mapping[Decision | None, tuple[str, str]]] = {
    Decision.PASS: ("o", "PASS"),
    Decision.FAIL: ("X", "FAIL"),
    Decision.INCONCLUSIVE: ("^", "INCONCLUSIVE"),
    Decision.NOT_EVALUATED: ("D", "not evaluated"),
    None: ("D", "no gate"),
}
HATCHES: Final = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")


@contextmanager
def settings(theme: Theme) -> Iterator[None]:
    """Matplotlib's own settings, whatever the user's are, in these colours."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(
            {
                "svg.hashsalt": "mirsafety",
                "svg.fonttype": "path",
                "font.size": 10,
                "text.color": theme.ink,
                "text.parse_math": False,
                "axes.edgecolor": theme.grid,
                "axes.facecolor": "none",
                "axes.labelcolor": theme.quiet,
                "axes.titlecolor": theme.ink,
                "axes.titlesize": 11,
                "axes.titlelocation": "left",
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.spines.left": False,
                "xtick.color": theme.quiet,
                "ytick.color": theme.ink,
                "ytick.left": False,
                "grid.color": theme.grid,
                "hatch.linewidth": 0.6,
                "legend.frameon": False,
                "legend.labelcolor": theme.ink,
                "legend.fontsize": 9,
            }
        )
        yield
