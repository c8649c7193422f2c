"""Hypothesis strategies for properties of your own: instances, and edits that change no meaning.

They shrink towards fewer changes and weaker ones; the simplest edit is the identity. Needs the
extra `metamorphic`. Nothing inside the package imports this.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

try:
    from hypothesis import strategies as st
except ModuleNotFoundError as error:
    from .errors import MissingExtraError

    raise MissingExtraError("pytest_mirsafety.strategies", "metamorphic") from error

from .edits import Edit
from .images.editing import ImageEditor
from .metamorphic import drawing
from .records import ImageRef, Instance
from .taxonomy import Category, Relation

__all__ = ["Edit", "edited", "edits", "image_edits", "image_orders", "instances", "text_edits"]


def instances(
    *,
    relations: st.SearchStrategy[Relation] | None = None,
    categories: st.SearchStrategy[Category] | None = None,
    prompts: st.SearchStrategy[str] | None = None,
    min_images: int = 2,
    max_images: int = 4,
) -> st.SearchStrategy[Instance]:
    """Instances that no dataset has: a harmless prompt, and small pictures of one colour each.

    Their images are in memory, and sent like any others.
    """
    prompt = st.text(_LETTERS, min_size=1, max_size=40).filter(str.strip)
    return st.builds(
        _instance,
        st.sampled_from(Relation) if relations is None else relations,
        st.sampled_from(Category) if categories is None else categories,
        prompt if prompts is None else prompts,
        st.lists(_colours(), min_size=min_images, max_size=max_images),
    )


def image_orders(instance: Instance) -> st.SearchStrategy[Edit]:
    """The orders of the instance's images, the identity first, then those that change least."""
    return drawing.order_edits(len(instance.images))


def image_edits() -> st.SearchStrategy[Edit]:
    """Changes of shape, tone and encoding, to all images alike."""
    return drawing.image_edits()


def text_edits() -> st.SearchStrategy[Edit]:
    """Changes of case, spacing and punctuation, and polite framing; the words stay."""
    return drawing.text_edits()


def edits(instance: Instance) -> st.SearchStrategy[Edit]:
    """All of these together, each perhaps."""
    return drawing.edits(len(instance.images))


def edited(instance: Instance, edit: Edit) -> Instance:
    """The instance after the edit, to be given to `mllm`; its images are changed as they are read.

    Raises:
        ValueError: the edit orders another number of images than there are.
    """
    return ImageEditor().edited(instance, edit)


_LETTERS = "abcdefghijklmnopqrstuvwxyz ABC.,?!'0123456789"
_SIDE = 8


def _colours() -> st.SearchStrategy[tuple[int, int, int]]:
    value = st.integers(0, 255)
    return st.tuples(value, value, value)


def _instance(
    relation: Relation, category: Category, prompt: str, colours: list[tuple[int, int, int]]
) -> Instance:
    images = tuple(
        ImageRef(f"image-{number}.png", f"{number}", _Picture(colour))
        for number, colour in enumerate(colours, start=1)
    )
    told = hashlib.sha256(repr((prompt, colours)).encode()).hexdigest()[:12]
    return Instance(
        f"{category}/{relation}/drawn-{told}", relation, category, prompt, prompt, images
    )


class _Picture:
    """A picture of one colour, in memory."""

    def __init__(self, colour: tuple[int, int, int]) -> None:
        self._colour = colour

    def stamp(self, locator: str) -> str:  # noqa: ARG002 - it is the only one
        """Its colour, which is all that there is of it."""
        return f"drawn:{self._colour}"

    def read(self, locator: str) -> bytes:  # noqa: ARG002 - it is the only one
        """Its bytes."""
        from PIL import Image

        from .images.pixels import to_png

        return to_png(Image.new("RGB", (_SIDE, _SIDE), self._colour))

    def path(self, locator: str) -> Path | None:
        """It is no file."""
