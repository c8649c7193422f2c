"""Attention behind answers, made up: any that can be, and some of a wanted kind."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from pytest_mirsafety.entropies import AnswerAttention

VALUES = st.floats(0, 1, width=32) | st.just(float("nan"))


@st.composite
def attentions(draw: st.DrawFn) -> AnswerAttention:
    layers, heads, images = (draw(st.integers(low, 3)) for low in (1, 1, 0))
    size = (1 + images) * layers * heads
    entropy, mass = (draw(st.lists(VALUES, min_size=size, max_size=size)) for _ in range(2))
    keys = draw(st.lists(st.integers(0, 5000), min_size=1 + images, max_size=1 + images))
    return AnswerAttention(
        layers, heads, draw(st.integers(1, 1024)), tuple(keys), content(entropy), content(mass)
    )


def content(numbers: object) -> bytes:
    return np.asarray(numbers, dtype="<f4").tobytes()


def attention(
    entropy: float, *, images: int = 2, layers: int = 2, heads: int = 3, tokens: int = 7
) -> AnswerAttention:
    """The same entropy everywhere, a little more on each image."""
    values = np.full((1 + images, layers, heads), entropy) + np.arange(1 + images)[:, None, None]
    numbers = content(values / 10)
    return AnswerAttention(layers, heads, tokens, (40, *[5] * images), numbers, numbers)
