"""Texts behind a fence that occurs in none of them, so that they are data and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import count

from ..digests import digest


def fenced(layout: str, texts: Mapping[str, str]) -> str:
    """The layout with `{fence}` and each `{name}` of a text put in; equal texts, equal fences."""
    whole = digest(list(texts.values()))
    fences = (f"#{digest([whole, number])[:20]}#" for number in count())
    fence = next(f for f in fences if all(f not in text for text in texts.values()))
    values = {"fence": fence, **texts}
    places = re.compile(rf"\{{({'|'.join(map(re.escape, values))})\}}")
    # Not str.format: the texts hold braces, and may hold the name of a place.
    return places.sub(lambda place: values[place[1]], layout)
