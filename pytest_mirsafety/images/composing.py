"""All images of a request in one picture, side by side, for a model that takes one image."""

from __future__ import annotations

import hashlib
import itertools
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import BadInputError
from ..records import LoadedImage
from .checks import media_type
from .pixels import as_shown, to_png
from .reading import ImageLimits

if TYPE_CHECKING:
    from PIL import Image

GAP: Final = 50
"""Pixels of white between two images (MIR-SafetyBench, arXiv 2601.14127)."""

LAYOUT: Final = "side-by-side-50"
"""The name of what `side_by_side` does, for a request's key: with other pixels, another name."""

_AT_ONCE: Final = 4  # each takes some 10 bytes a pixel


def side_by_side(contents: Sequence[bytes], limits: ImageLimits) -> bytes:
    """One PNG of these images from left to right, `GAP` pixels of white between them.

    They are as a viewer shows them, never scaled, and begin at the same height; white is below
    the shorter ones.

    Raises:
        BadInputError: an image is damaged or too large, or the picture of all of them is.
    """
    from PIL import Image

    pictures: list[Image.Image] = []
    width, height = -GAP, 0
    for number, content in enumerate(contents, 1):
        picture = _picture(content, number, limits)
        pictures.append(picture)
        width, height = width + GAP + picture.width, max(height, picture.height)
        if width * height > limits.max_pixels:  # before the next one takes memory too
            raise _too_large(len(contents), f"{limits.max_pixels:,} pixels", "max_pixels")
    canvas = Image.new("RGB", (width, height), "white")
    left = 0
    for picture in pictures:
        canvas.paste(picture, (left, 0))
        left += picture.width + GAP
    png = to_png(canvas)
    if len(png) > limits.max_bytes:
        raise _too_large(len(contents), f"{limits.max_bytes:,} bytes", "max_bytes")
    return png


class SideBySide:
    """Composes images by `side_by_side`. Several threads may call it.

    With a `folder`, which is asked for when it is needed, each picture is a file in it for as long
    as somebody holds the image; its content is then in memory only if it is to be kept.
    """

    layout = LAYOUT

    def __init__(
        self,
        limits: ImageLimits,
        folder: Callable[[], Path] | None = None,
        *,
        keep_content: bool = True,
    ) -> None:
        self._limits = limits
        self._folder = folder
        self._keep_content = keep_content
        self._turns = threading.BoundedSemaphore(_AT_ONCE)
        self._numbers = itertools.count(1)

    def compose(self, images: Sequence[LoadedImage]) -> LoadedImage:
        """One image of these, which have their content, in their order.

        Raises:
            BadInputError: as `side_by_side`; or the picture's file cannot be written.
        """
        with self._turns:
            content = side_by_side([image.content for image in images], self._limits)
        sha256 = hashlib.sha256(content).hexdigest()
        parts = tuple(image.sha256 for image in images)
        if self._folder is None:
            return LoadedImage(sha256, "image/png", content, parts=parts)
        try:
            # Numbered: an equal picture of another request must not go when this one does.
            path = self._folder() / f"{sha256}-{next(self._numbers)}.png"
            path.write_bytes(content)
        except OSError as error:
            raise BadInputError(
                f"the images side by side cannot be written: {error.strerror or error}"
            ) from None
        kept = content if self._keep_content else b""
        image = LoadedImage(sha256, "image/png", kept, path, parts)
        removal = weakref.finalize(image, path.unlink, missing_ok=True)
        removal.atexit = False  # the folder goes then; a forked child must leave it alone
        return image


def _too_large(number: int, limit: str, name: str) -> BadInputError:
    return BadInputError(
        f"its {number} images side by side have more than {limit} (limits.{name}); raise the "
        "limit if the model takes such an image"
    )


def _picture(content: bytes, number: int, limits: ImageLimits) -> Image.Image:
    try:
        return as_shown(content, media_type(content), limits.max_pixels)
    except BadInputError as error:
        raise BadInputError(f"image {number}: {error.detail}") from None
