"""Images before they are sent: whole, decodable, within limits, unchanged."""

from .checks import FORMATS, media_type
from .composing import LAYOUT, SideBySide
from .neutral import neutral_image
from .reading import ImageLimits, ImageReader

__all__ = [
    "FORMATS",
    "LAYOUT",
    "ImageLimits",
    "ImageReader",
    "SideBySide",
    "media_type",
    "neutral_image",
]
