"""Whether bytes are a whole image of a format that is sent: no byte of it is changed."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Final

from isal import isal_zlib  # checksums in a tenth of zlib's time, and inflates in a third

from ..errors import BadInputError
from ..printable import one_line

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFile import ImageFile

FORMATS: Final = "PNG, JPEG or WebP"
EXIF: Final = b"Exif\0\0"
"""What the EXIF data of a JPEG begin with."""


def media_type(content: bytes) -> str:
    """The media type that an image's first bytes tell; its name tells nothing.

    Raises:
        BadInputError: empty, or none of the formats that are sent.
    """
    if not content:
        raise BadInputError("is empty")
    if content.startswith(_PNG):
        return "image/png"
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "image/webp"
    raise BadInputError(f"is not {FORMATS}: it starts with {one_line(repr(content[:12]))}")


def check(content: bytes, kind: str, max_pixels: int, *, pixels: bool = False) -> None:
    """Do nothing when the image is whole, one picture, and small enough.

    A PNG is whole when each of its chunks agrees with its checksum, up to the last: what its
    writer wrote is all there. Other formats have no checksums, and are decoded. `pixels` decodes a
    PNG too, which takes twenty times as long, and finds what no damage explains: a writer that
    wrote too few pixels, or none.

    Raises:
        BadInputError: it is not.
    """
    try:
        if kind == "image/png":
            data, rows = _png_pixels(content, max_pixels)
            if pixels:
                _decode_png(data, rows)
        else:
            _DECODERS[kind](content, max_pixels)
    except (IndexError, struct.error):
        raise BadInputError("is cut off") from None


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if not 0 < width * height <= max_pixels:
        raise BadInputError(f"has {width} x {height} pixels; the limit is {max_pixels:,} in all")


_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PNG_COLOURS: Final = {  # channels, and bits that each may have
    0: (1, (1, 2, 4, 8, 16)),
    2: (3, (8, 16)),
    3: (1, (1, 2, 4, 8)),
    4: (2, (8, 16)),
    6: (4, (8, 16)),
}
_PNG_FILTERS: Final = 5
_PNG_PASSES: Final = (  # of an interlaced picture: first column and row, steps
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)


def _png_pixels(content: bytes, max_pixels: int) -> tuple[list[memoryview], list[tuple[int, int]]]:
    """The pixel data of chunks that agree with their checksums, and the rows that it must fill."""
    chunks = _png_chunks(content)
    kind, header = next(chunks)
    if kind != b"IHDR":
        raise BadInputError("is no PNG image: its first chunk is not IHDR")
    width, height, depth, colour, *methods = struct.unpack(">IIBBBBB", header)
    _check_size(width, height, max_pixels)
    channels, depths = _PNG_COLOURS.get(colour, (0, ()))
    if depth not in depths or methods not in ([0, 0, 0], [0, 0, 1]):
        raise BadInputError(f"cannot be decoded: kind {colour}-{depth}-{methods} is unknown")
    data = []
    for kind, chunk in chunks:
        if kind == b"acTL":
            raise BadInputError("is animated; one picture is sent")
        if kind == b"IDAT":
            data.append(chunk)
    passes = _PNG_PASSES if methods[2] else ((0, 0, 1, 1),)
    bits = channels * depth
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes]
    if not data:
        raise BadInputError("cannot be decoded: its pixels are cut off")
    return data, [((w * bits + 7) // 8 + 1, h) for w, h in sizes if w > 0 and h > 0]


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and data of each chunk up to the end of the picture, all found whole."""
    view = memoryview(content)
    position = len(_PNG)
    kind = b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", content, position)
        end = position + 8 + length
        (checksum,) = struct.unpack_from(">I", content, end)
        if isal_zlib.crc32(view[position + 4 : end]) != checksum:
            raise BadInputError(f"is damaged: the checksum at byte {end} is wrong")
        yield kind, view[position + 8 : end]
        position = end + 4


def _decode_png(data: Iterable[memoryview], rows: Sequence[tuple[int, int]]) -> None:
    """Check the pixels against the size of the picture.

    It decodes when its pixel data inflate to all the rows that the header promises, and each row
    is filtered in one of five ways. Pillow takes twice the time to find less: it skips the pixels'
    checksums and passes pixel data that end early.
    """
    _check_rows(_inflate(b"".join(data), sum(length * count for length, count in rows)), rows)


def _inflate(data: bytes, size: int) -> bytes:
    """The first `size` bytes that the data hold; no more are made, however many there are."""
    try:
        pixels = isal_zlib.decompressobj().decompress(data, size + 1)
    except isal_zlib.error as error:  # type: ignore[misc] # its stub takes the class for an instance
        raise BadInputError(f"cannot be decoded: {error}") from None
    if len(pixels) < size:
        raise BadInputError("cannot be decoded: its pixels are cut off")
    return pixels


def _check_rows(pixels: bytes, rows: Iterable[tuple[int, int]]) -> None:
    """Check the filter that each row begins with; `rows` are lengths and counts, pass by pass."""
    start = 0
    for length, count in rows:
        end = start + length * count
        if max(pixels[start:end:length]) >= _PNG_FILTERS:
            raise BadInputError("cannot be decoded: a row has no valid filter")
        start = end


_JPEG_MARKER: Final = 0xFF
_JPEG_SCAN: Final = 0xDA
_JPEG_EXIF: Final = 0xE1
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_METADATA: Final = frozenset((*range(0xE1, 0xEE), 0xEF, 0xFE))  # all but JFIF and Adobe


def _check_jpeg(content: bytes, max_pixels: int) -> None:
    """Check the size that the frame tells, then decode without metadata, of which Pillow warns."""
    picture, _, size = jpeg_parts(content)
    if size is None:
        raise BadInputError("is damaged: it does not tell its size")
    _check_size(*size, max_pixels)
    decoded(picture, "image/jpeg")


def jpeg_parts(content: bytes) -> tuple[bytes, bytes, tuple[int, int] | None]:
    """A JPEG without metadata, the EXIF data in it, and the width and height that it tells.

    Raises:
        BadInputError: it is damaged.
        IndexError, struct.error: it is cut off.
    """
    size, exif = None, b""
    kept = [content[:2]]
    position = 2
    while (marker := content[position + 1]) != _JPEG_SCAN:
        if content[position] != _JPEG_MARKER:
            raise BadInputError(f"is damaged: there is no marker at byte {position}")
        if marker == _JPEG_MARKER:  # padding
            position += 1
            continue
        (length,) = struct.unpack_from(">H", content, position + 2)
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", content, position + 5)
            size = width, height
        end = position + 2 + length
        segment = content[position:end]
        if marker not in _JPEG_METADATA:
            kept.append(segment)
        elif marker == _JPEG_EXIF and segment[4:].startswith(EXIF):
            exif = exif or segment[4:]
        position = end
    return b"".join((*kept, content[position:])), exif, size


_WEBP_ANIMATED: Final = 0x02


def _check_webp(content: bytes, max_pixels: int) -> None:
    """Check the size that the first chunk tells, then decode."""
    kind = content[12:16]
    if kind == b"VP8X":
        if content[20] & _WEBP_ANIMATED:
            raise BadInputError("is animated; one picture is sent")
        width, height = (int.from_bytes(content[i : i + 3], "little") + 1 for i in (24, 27))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", content, 26))
    else:
        raise BadInputError("is damaged: it is no WebP image after its first bytes")
    _check_size(width, height, max_pixels)
    decoded(content, "image/webp")


def decoded(content: bytes, kind: str) -> Image.Image:
    """The picture, by Pillow; its size was checked before.

    Raises:
        BadInputError: it cannot be decoded.
    """
    # Pillow's own classes, not Image.open: that warns of large images, and a warning that is
    # silenced in one thread is silenced in all.
    from PIL.Image import DecompressionBombError
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile
    from PIL.WebPImagePlugin import WebPImageFile

    refused = (  # what hostile bytes have been seen to raise in Pillow
        *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError),
        *(AttributeError, MemoryError, struct.error, DecompressionBombError),
    )
    decoders: dict[str, type[ImageFile]]
    decoders = {"image/jpeg": JpegImageFile, "image/png": PngImageFile, "image/webp": WebPImageFile}
    try:
        image = decoders[kind](BytesIO(content))
        image.load()
    except refused as error:
        raise BadInputError(f"cannot be decoded: {one_line(str(error))}") from None
    return image


_DECODERS: Final[Mapping[str, Callable[[bytes, int], None]]] = {
    "image/jpeg": _check_jpeg,
    "image/webp": _check_webp,
}
