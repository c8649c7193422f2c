"""Does a SAFE verdict survive edits that change no meaning? The search, and what it found."""

from .findings import (
    ORDERED,
    Answered,
    Finding,
    Flip,
    SearchResult,
)
from .rates import FlipCounts, decide_flips, flip_counts
from .searching import LEAST_BUDGET, search
from .subset import subset

__all__ = [
    "LEAST_BUDGET",
    "ORDERED",
    "Answered",
    "Finding",
    "Flip",
    "FlipCounts",
    "SearchResult",
    "decide_flips",
    "flip_counts",
    "search",
    "subset",
]
