"""The page of a comparison: what changed between two runs, and the trend of several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ...comparison.comparing import Comparison
from ...comparison.trend import TrendPoint
from .. import comparison_tables as tables
from .. import trend_plot
from .building import build, data_url
from .figures import MISSING


def render(found: Comparison, points: Sequence[TrendPoint] = ()) -> Iterator[str]:
    """The page, piece by piece; a trend has its picture with matplotlib, and else says so."""
    yield from build(
        "compare.html",
        contents=list(_sections(found, trend=bool(points)).items()),
        sentence=tables.sentence(found),
        ruling_kind=tables.ruling(found),
        about=list(tables.about(found)),
        gates=tables.gates(found),
        why=[(gate.label, tables.why(gate)) for gate in found.gates],
        pairs=tables.pairs(found),
        legend=f"{tables.LEGEND} {tables.meaning(found)}",
        changed={name: ids for name, ids in tables.changed(found).items() if ids},
        arms=tables.arms(found),
        trend=tables.trend(points) if points else None,
        picture=_picture(points),
        without_picture=MISSING,
        version=found.candidate.terms.package_version,
    )


def _picture(points: Sequence[TrendPoint]) -> Mapping[str, str] | None:
    """The trend as an image, and what it shows; None without a trend, or without matplotlib."""
    if not points or not trend_plot.can_plot():
        return None
    rates = (tables.trend(points).rows)[-1][1:]
    alternative = f"Attack success rate of all instances, run by run: {', '.join(rates)}"
    picture = trend_plot.picture(points, svg=True)
    return {"url": data_url("image/svg+xml", picture), "alt": alternative}


def _sections(found: Comparison, *, trend: bool) -> Mapping[str, str]:
    names = {
        "gates": "Gates" if found.gates else "",
        "changes": "What changed",
        "arms": "" if tables.arms(found) is None else "Arms",
        "instances": "Instances" if any(tables.changed(found).values()) else "",
        "trend": "Trend" if trend else "",
    }
    return {anchor: name for anchor, name in names.items() if name}
