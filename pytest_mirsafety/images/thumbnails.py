"""A small copy of an image for a page."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from .pixels import as_shown

if TYPE_CHECKING:
    from ..records import LoadedImage

LONG_SIDE: Final = 200  # pixels
_QUALITY: Final = 60
_EFFORT: Final = 2  # of 6, each twice as slow for some percent


def thumbnail(image: LoadedImage, max_pixels: int) -> bytes:
    """The image as WebP, upright, without metadata, its long side 200 pixels at most.

    Raises:
        BadInputError: it is damaged, animated or too large.
    """
    picture = as_shown(image.content, image.media_type, max_pixels)
    picture.thumbnail((LONG_SIDE, LONG_SIDE))
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=_QUALITY, method=_EFFORT)
    return file.getvalue()
