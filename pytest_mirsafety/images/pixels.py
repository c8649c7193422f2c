"""Between an image's bytes and its pixels: as a viewer shows it, and back into a PNG."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from isal import isal_zlib  # see `to_png`

from ..errors import BadInputError
from .checks import EXIF, check, decoded, jpeg_parts

if TYPE_CHECKING:
    from PIL import Image

_ORIENTATION: Final = 0x0112
_BYTE_ORDERS: Final = {b"II*\0": "<", b"MM\0*": ">"}
_TURNS: Final = {  # EXIF's number for how a picture lies, and what makes it upright
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def as_shown(content: bytes, kind: str, max_pixels: int) -> Image.Image:
    """The picture in RGB, upright as its EXIF data say, what is transparent on white.

    Every pixel must be there: half a picture is never taken for a whole one.

    Raises:
        BadInputError: it is damaged, or too large.
    """
    check(content, kind, max_pixels, pixels=True)
    return upright(content, kind)


def upright(content: bytes, kind: str) -> Image.Image:
    """The picture of an image that was checked, in RGB, as its EXIF data say, on white.

    Raises:
        BadInputError: it cannot be decoded.
    """
    if kind == "image/jpeg":
        picture, exif, _ = jpeg_parts(content)
        image = decoded(picture, kind)
    else:
        image = decoded(content, kind)
        told = image.info.get("exif")
        exif = told if isinstance(told, bytes) else b""  # a PNG may have a text of that name
    from PIL.Image import Transpose

    shown = _on_white(image)
    turn = _TURNS.get(_orientation(exif))
    return shown if turn is None else shown.transpose(Transpose[turn])


def to_png(image: Image.Image) -> bytes:
    """An RGB picture as a PNG: the same pixels give the same bytes, with the same libraries.

    Each row is told by its difference from the one above, and deflated by ISA-L. Of photographs
    that takes an eighth of the time of Pillow's fastest level, for fewer bytes.
    """
    rows = b"".join(_filtered(image))
    header = struct.pack(">IIBBBBB", *image.size, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", isal_zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _filtered(image: Image.Image) -> Iterator[bytes | memoryview]:
    """Filter number 2 and each row less the one above, modulo 256 (PNG 1.2, section 6.4)."""
    from PIL import Image, ImageChops

    above = Image.new("RGB", image.size)
    above.paste(image, (0, 1))
    data = memoryview(ImageChops.subtract_modulo(image, above).tobytes())
    length = 3 * image.width
    for start in range(0, len(data), length):
        yield b"\2"
        yield data[start : start + length]


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = isal_zlib.crc32(data, isal_zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def _on_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut at 255
        grey = image.convert("I;16").tobytes()
        return Image.frombytes("L", image.size, grey[1::2]).convert("RGB")
    if image.mode == "P" and image.palette is None:
        raise BadInputError("cannot be decoded: it has no palette")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    canvas = Image.new("RGBA", image.size, "white")
    canvas.alpha_composite(image.convert("RGBA"))
    return canvas.convert("RGB")


def _orientation(exif: bytes) -> int:
    """How the picture lies, from 1 to 8; 1, upright, where that is not told."""
    tiff = exif.removeprefix(EXIF)
    if (order := _BYTE_ORDERS.get(tiff[:4])) is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if tag == _ORIENTATION:
                return int(value)
    except struct.error:
        pass
    return 1
