"""A small copy of an image for a page."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from .pixels import upright

if TYPE_CHECKING:
    from ..records import LoadedImage

LONG_SIDE: Final = 200  # pixels
_QUALITY: Final = 60
_EFFORT: Final = 2  # of 6, each twice as slow for some percent


def thumbnail(image: LoadedImage) -> bytes:
    """The image as WebP, upright, without metadata, its long side 200 pixels at most.

    It is one that an `ImageReader` has read: whole, not animated, within the limits.

    Raises:
        BadInputError: it cannot be decoded.
    """
    picture = upright(image.content, image.media_type)
    picture.thumbnail((LONG_SIDE, LONG_SIDE))
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=_QUALITY, method=_EFFORT)
    return file.getvalue()
