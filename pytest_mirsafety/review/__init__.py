"""A local web page on which people label a probability sample of a run's answers."""

from __future__ import annotations

from .app import application
from .drawing import Drawn, Sizes, Stratum, draw
from .guard import Keys
from .items import Item, Review
from .serving import bind, serve

__all__ = [
    "Drawn",
    "Item",
    "Keys",
    "Review",
    "Sizes",
    "Stratum",
    "application",
    "bind",
    "draw",
    "serve",
]
