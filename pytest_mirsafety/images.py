"""Reads and checks images before they are sent: whole, decodable, within limits, unchanged."""

from __future__ import annotations

import hashlib
import struct
import threading
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .errors import BadInputError
from .printable import one_line
from .records import ImageRef, LoadedImage, digest

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

    from .protocols import Store

FORMATS: Final = "PNG, JPEG or WebP"
_CHECKS: Final = 1  # raised when a check is added, so that every image is read again
_DECODES_AT_ONCE: Final = 4  # each may take 4 bytes a pixel


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The largest image that is sent, in bytes of the file and in pixels."""

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000


class ImageReader:
    """Reads images of any source, checks each once, and never changes a byte of it.

    The store, if there is one, keeps the digests of images that passed: such an image is read
    again only when it has to be sent, or when its source's stamp has changed.
    """

    def __init__(self, limits: ImageLimits, store: Store | None) -> None:
        self._limits = limits
        self._store = store
        self._decoding = threading.BoundedSemaphore(_DECODES_AT_ONCE)

    def inspect(self, ref: ImageRef) -> LoadedImage:
        """The image's digest; with content, media type and path if it had to be read for that.

        Raises:
            BadInputError: the image is missing, corrupt, not of a format that APIs take, outside
                the limits, or not the one that the dataset declares.
        """
        try:
            return self._inspect(ref)
        except (BadInputError, OSError) as error:
            raise _named(ref, error) from None

    def fill(self, ref: ImageRef, image: LoadedImage) -> LoadedImage:
        """The inspected image with its content, media type and path.

        Raises:
            BadInputError: as for `inspect`, or the bytes are no longer those inspected.
        """
        if image.content:
            return image
        try:
            filled = self._read(ref)
            _expect(filled.sha256, image.sha256, "was changed since it was checked")
        except (BadInputError, OSError) as error:
            raise _named(ref, error) from None
        return filled

    def _inspect(self, ref: ImageRef) -> LoadedImage:
        stamp = ref.source.stamp(ref.locator)
        key = digest([_CHECKS, self._limits.max_bytes, self._limits.max_pixels, stamp])
        known = self._store.image_digest(key) if self._store is not None else None
        if known is not None:
            _agree(ref, known)
            return LoadedImage(known, "", b"")
        image = self._read(ref)
        _agree(ref, image.sha256)
        with self._decoding:
            _check(image.content, image.media_type, self._limits.max_pixels)
        _expect(ref.source.stamp(ref.locator), stamp, "was changed while it was read")
        if self._store is not None:
            self._store.put_image_digest(key, image.sha256)
        return image

    def _read(self, ref: ImageRef) -> LoadedImage:
        path = ref.source.path(ref.locator)
        if path is not None:
            self._check_bytes(path.stat().st_size)
        content = ref.source.read(ref.locator)
        self._check_bytes(len(content))
        return LoadedImage(
            hashlib.sha256(content).hexdigest(), media_type(content), content, _absolute(path)
        )

    def _check_bytes(self, size: int) -> None:
        if size > self._limits.max_bytes:
            raise BadInputError(f"has {size:,} bytes; the limit is {self._limits.max_bytes:,}")


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


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


def _expect(found: str, expected: str, problem: str) -> None:
    if found != expected:
        raise BadInputError(problem)


def _agree(ref: ImageRef, sha256: str) -> None:
    if ref.sha256 is not None and ref.sha256 != sha256:
        raise BadInputError(f"has SHA-256 {sha256}; the dataset declares {ref.sha256}")


def _named(ref: ImageRef, error: BadInputError | OSError) -> BadInputError:
    reason = error.detail if isinstance(error, BadInputError) else error.strerror or str(error)
    return BadInputError(one_line(f"image {ref.name}: {reason}", 400))


_PNG: Final = b"\x89PNG\r\n\x1a\n"


def _check(content: bytes, kind: str, max_pixels: int) -> None:
    """Raise BadInputError unless the image is whole, one picture, small enough, and decodes."""
    try:
        (width, height), decodable = _PARSERS[kind](content)
    except (IndexError, struct.error):
        raise BadInputError("is cut off") from None
    if not 0 < width * height <= max_pixels:
        raise BadInputError(f"has {width} x {height} pixels; the limit is {max_pixels:,} in all")
    _decode(decodable, kind)


def _decode(content: bytes, kind: str) -> None:
    # Pillow's own classes, not Image.open: that warns of large images, and a warning that is
    # silenced in one thread is silenced in all. The size was checked before.
    from PIL.Image import DecompressionBombError

    refused = (
        *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError),
        *(AttributeError, MemoryError, struct.error, zlib.error, DecompressionBombError),
    )
    try:
        with _decoder(kind)(BytesIO(content)) as image:
            image.load()
    except refused as error:
        raise BadInputError(f"cannot be decoded: {one_line(str(error))}") from None


def _decoder(kind: str) -> type[ImageFile]:
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile
    from PIL.WebPImagePlugin import WebPImageFile

    return {"image/png": PngImageFile, "image/jpeg": JpegImageFile, "image/webp": WebPImageFile}[
        kind
    ]


def _parse_png(content: bytes) -> tuple[tuple[int, int], bytes]:
    """Width and height, once every chunk is found whole, with a right checksum.

    Pillow does not look at the checksums of pixel data.
    """
    size: tuple[int, int] = struct.unpack_from(">II", content, 16)
    position = len(_PNG)
    if content[12:16] != b"IHDR":
        raise BadInputError("is no PNG image: its first chunk is not IHDR")
    while (kind := content[position + 4 : position + 8]) != b"IEND":
        (length,) = struct.unpack_from(">I", content, position)
        end = position + 8 + length
        (checksum,) = struct.unpack_from(">I", content, end)
        if zlib.crc32(memoryview(content)[position + 4 : end]) != checksum:
            raise BadInputError(f"is damaged: the checksum at byte {end} is wrong")
        if kind == b"acTL":
            raise BadInputError("is animated; one picture is sent")
        position = end + 4
    struct.unpack_from(">I", content, position + 8)  # IEND's own checksum is there
    return size, content


def _parse_jpeg(content: bytes) -> tuple[tuple[int, int], bytes]:
    """Width and height, and the image without its metadata, of which Pillow warns if damaged."""
    size = None
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
        if marker not in _JPEG_METADATA:
            kept.append(content[position:end])
        position = end
    if size is None:
        raise BadInputError("is damaged: it does not tell its size")
    kept.append(content[position:])
    return size, b"".join(kept)


_JPEG_MARKER: Final = 0xFF
_JPEG_SCAN: Final = 0xDA
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_METADATA: Final = frozenset((*range(0xE1, 0xEE), 0xEF, 0xFE))  # all but JFIF and Adobe


def _parse_webp(content: bytes) -> tuple[tuple[int, int], bytes]:
    """Width and height, from the header of the first chunk."""
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
    return (width, height), content


_WEBP_ANIMATED: Final = 0x02

_PARSERS: Final = {
    "image/png": _parse_png,
    "image/jpeg": _parse_jpeg,
    "image/webp": _parse_webp,
}
