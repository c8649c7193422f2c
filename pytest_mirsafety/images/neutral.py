"""A picture in which there is nothing: shown beside answers that belong to no instance."""

from __future__ import annotations

import hashlib
import struct
import zlib
from functools import cache
from typing import Final

from ..records import LoadedImage

_SIDE: Final = 64
_GREY: Final = 128


@cache
def neutral_image() -> LoadedImage:
    """A small grey square, as a PNG."""
    rows = (b"\0" + bytes([_GREY]) * _SIDE) * _SIDE
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return LoadedImage(hashlib.sha256(content).hexdigest(), "image/png", content)
