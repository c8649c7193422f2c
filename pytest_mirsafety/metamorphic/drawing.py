"""Edits as hypothesis draws and shrinks them: towards fewer steps, and towards weaker ones.

Each family of steps is drawn for itself, and may be left out. So one edit tries several changes at
once, and shrinking takes those away that the flip does not need. hypothesis is imported on use.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations
from typing import TYPE_CHECKING

from ..edits import Edit, Family, ImageKind, ImageStep, Reorder, Step, TextKind, TextStep

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def edits(images: int, *, orders: bool = True, texts: bool = True) -> SearchStrategy[Edit]:
    """Edits of an instance with so many images; the simplest is the identity.

    Without `orders` none changes the order of the images, without `texts` none the prompt.
    """
    from hypothesis import strategies as st

    parts = _image_parts() if images else []
    if orders and images > 1:
        parts.append(_perhaps(reorders(images)))
    if texts:
        parts += [_perhaps(text_steps(kind)) for kind in TextKind]
    return st.tuples(*parts).map(_edit)


def image_edits() -> SearchStrategy[Edit]:
    """Edits of pictures alone."""
    from hypothesis import strategies as st

    return st.tuples(*_image_parts()).map(_edit)


def text_edits() -> SearchStrategy[Edit]:
    """Edits of the prompt alone."""
    from hypothesis import strategies as st

    return st.tuples(*(_perhaps(text_steps(kind)) for kind in TextKind)).map(_edit)


def order_edits(images: int) -> SearchStrategy[Edit]:
    """Edits of the order of so many images alone; the simplest is the identity."""
    from hypothesis import strategies as st

    if images < 2:  # noqa: PLR2004 - one image has one order
        return st.just(Edit())
    return _perhaps(reorders(images)).map(lambda step: _edit([step]))


def reorders(images: int) -> SearchStrategy[Reorder]:
    """Other orders of so many images, those that change less first.

    There are 23 of four images. Of more than six only those are drawn that exchange two.
    """
    from hypothesis import strategies as st

    steps = sorted(_orders(images), key=lambda step: (step.strength, step.order))
    # In parts: among more than 100 hypothesis prefers numbers that stand in the modules which are
    # loaded, so that a search would ask other things in another process.
    parts = (steps[start : start + _AT_ONCE] for start in range(0, len(steps), _AT_ONCE))
    return st.one_of(*(st.sampled_from(part) for part in parts))


def image_steps(family: Family) -> SearchStrategy[ImageStep]:
    """Steps of this family; the simplest are the weakest."""
    from hypothesis import strategies as st

    kinds = [kind for kind in ImageKind if kind.family is family]
    return st.one_of(*(st.builds(ImageStep, st.just(kind), _levels(kind.levels)) for kind in kinds))


def text_steps(kind: TextKind) -> SearchStrategy[TextStep]:
    """Steps of this kind; the simplest are the weakest."""
    from hypothesis import strategies as st

    return st.builds(TextStep, st.just(kind), _levels(kind.levels))


def _levels(most: int) -> SearchStrategy[int]:
    """Every other one is the strongest: what flips at all does so there, and the rest is shrinking.

    They shrink towards 1.
    """
    from hypothesis import strategies as st

    return st.sampled_from([*range(1, most + 1), *[most] * (most - 1)])


_ALL_ORDERS_OF = 6
_AT_ONCE = 60


def _orders(images: int) -> Iterable[Reorder]:
    same = tuple(range(images))
    if images <= _ALL_ORDERS_OF:
        return (Reorder(order) for order in permutations(same) if order != same)
    return (
        Reorder((*same[:a], b, *same[a + 1 : b], a, *same[b + 1 :]))
        for a in same
        for b in same[a + 1 :]
    )


def _image_parts() -> list[SearchStrategy[Step | None]]:
    return [
        _perhaps(image_steps(family)) for family in (Family.SHAPE, Family.TONE, Family.ENCODING)
    ]


def _perhaps(step: SearchStrategy[Step]) -> SearchStrategy[Step | None]:
    from hypothesis import strategies as st

    return st.one_of(st.none(), step)


def _edit(steps: Iterable[Step | None]) -> Edit:
    return Edit(tuple(step for step in steps if step is not None))
