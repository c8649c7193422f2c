"""From an image's bytes to the picture that a model of this process is shown."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from ..errors import BadInputError
from ..printable import one_line

if TYPE_CHECKING:
    from PIL.Image import Image

_FORMATS: Final = ("PNG", "JPEG", "WEBP")
_DETAIL: Final = 240


def size(content: bytes) -> tuple[int, int]:
    """Width and height as it is stored, in pixels; only the beginning is read.

    Raises:
        BadInputError: it is no picture.
    """
    return _opened(content).size


def decode(content: bytes) -> Image:
    """The picture in RGB as a person sees it: upright, and on white where it is transparent.

    Raises:
        BadInputError: it cannot be decoded.
    """
    from PIL import Image, ImageOps

    image = _opened(content)
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode != "RGB" and image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")
    except Exception as error:  # noqa: BLE001 - a decoder may raise anything
        problem = one_line(f"{type(error).__name__}: {error}", _DETAIL)
    raise BadInputError(f"an image cannot be decoded: {problem}")


def _opened(content: bytes) -> Image:
    from PIL import Image

    try:
        return Image.open(io.BytesIO(content), formats=_FORMATS)
    except Exception as error:  # noqa: BLE001 - a decoder may raise anything
        problem = one_line(f"{type(error).__name__}: {error}", _DETAIL)
    raise BadInputError(f"an image cannot be opened: {problem}")
