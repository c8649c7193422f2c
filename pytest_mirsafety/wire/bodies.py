"""The body of a chat request, sent in pieces: its megabytes of base64 are never copied together.

JSON-encoding an image's data URI would only copy it, since nothing in it needs escaping; joining
the pieces would copy it once more, for each request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Final
from weakref import WeakValueDictionary

from ..errors import BadInputError
from ..records import LoadedImage

SHORT: Final = 2**14
"""Bytes of base64 that cost less to copy than to send apart."""


class Encoded:
    """An image's base64, held by the bodies that send it."""

    __slots__ = ("__weakref__", "base64")

    def __init__(self, content: bytes) -> None:
        import pybase64  # many times as fast as the standard library, but slow to import

        self.base64 = pybase64.b64encode(content)


class Encoder:
    """Encodes each image once for all the bodies that hold it at the time. For one thread."""

    def __init__(self) -> None:
        self._held: WeakValueDictionary[str, Encoded] = WeakValueDictionary()

    def encode(self, image: LoadedImage) -> Encoded:
        """The image's base64, shared."""
        if (held := self._held.get(image.sha256)) is None:
            held = self._held[image.sha256] = Encoded(image.content)
        return held

    def part(self, image: LoadedImage, detail: str | None = None) -> Iterator[bytes | Encoded]:
        """The image as one part of a turn's content.

        Raises:
            BadInputError: the image has no bytes.
        """
        if not image.content:
            raise BadInputError(f"image {image.sha256[:12]} has no bytes to send")
        return image_part((f"data:{image.media_type};base64,".encode(), self.encode(image)), detail)


def image_part(
    url: Iterable[bytes | Encoded], detail: str | None = None
) -> Iterator[bytes | Encoded]:
    """The image at a URL, which needs no escaping, as one part of a turn's content."""
    yield b'{"type":"image_url","image_url":{"url":"'
    yield from url
    yield b'"}}' if detail is None else b'","detail":"%s"}}' % detail.encode()


def listed(parts: Iterable[Iterable[bytes | Encoded]]) -> Iterator[bytes | Encoded]:
    """A JSON list of these parts."""
    yield b"["
    for number, part in enumerate(parts):
        if number:
            yield b","
        yield from part
    yield b"]"


class Body:
    """Pieces of JSON that are sent one after the other; its length is that of all of them.

    It can be sent again. Neighbours that are no images, or short, are joined: each piece is a
    call into the system.
    """

    def __init__(self, pieces: Iterable[bytes | Encoded]) -> None:
        self._pieces: list[bytes | Encoded] = []
        for given in pieces:
            piece = given
            if isinstance(given, Encoded) and len(given.base64) <= SHORT:
                piece = given.base64
            last = self._pieces[-1] if self._pieces else None
            if isinstance(piece, bytes) and isinstance(last, bytes):
                self._pieces[-1] = last + piece
            else:
                self._pieces.append(piece)

    def __len__(self) -> int:
        return sum(map(len, self._parts()))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts():
            yield part

    def _parts(self) -> Iterator[bytes]:
        return (piece if isinstance(piece, bytes) else piece.base64 for piece in self._pieces)
