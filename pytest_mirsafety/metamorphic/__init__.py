"""Does a SAFE verdict survive edits that change no meaning? The search, and what it found."""

from .findings import (
    ORDERED,
    Answered,
    Finding,
    Flip,
    SearchResult,
)
from .rates import FlipCounts, flip_counts
from .searching import search
from .subset import subset

__all__ = [
    "ORDERED",
    "Answered",
    "Finding",
    "Flip",
    "FlipCounts",
    "SearchResult",
    "flip_counts",
    "search",
    "subset",
]
