"""Reads images before they are sent: each checked once, unchanged, and shared while in use."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from ..digests import digest
from ..errors import BadInputError
from ..printable import one_line
from ..records import ImageRef, LoadedImage
from .checks import check, media_type

if TYPE_CHECKING:
    from ..protocols import Store

_CHECKS: Final = 3  # raised when the checks change, so that every image is read again
_DECODES_AT_ONCE: Final = 4  # each may take 4 bytes a pixel


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The largest image that is sent, in bytes of the file and in pixels."""

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000


class ImageReader:
    """Reads images of any source, checks each once, and never changes a byte of it.

    The store, if there is one, keeps the digests of images that passed: such an image is read
    again only when it has to be sent, or when its source's stamp has changed. While somebody holds
    an image, whoever asks for the same file or the same bytes gets the same object. `paths` gives
    each image its path, for a server that opens files itself; without it only an image that was
    read has one, because a path may cost an extraction. `pixels` decodes every image.
    """

    def __init__(
        self,
        limits: ImageLimits,
        store: Store | None,
        *,
        paths: bool = False,
        pixels: bool = False,
    ) -> None:
        self._limits = limits
        self._store = store
        self._paths = paths
        self._pixels = pixels
        self._decoding = threading.BoundedSemaphore(_DECODES_AT_ONCE)
        self._held: WeakValueDictionary[str, LoadedImage] = WeakValueDictionary()
        self._turns: WeakValueDictionary[str, _Turn] = WeakValueDictionary()
        self._lock = threading.Lock()

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
            with self._turn(image.sha256):
                return self._held.get(image.sha256) or self._hold(self._fill(ref, image))
        except (BadInputError, OSError) as error:
            raise _named(ref, error) from None

    def _fill(self, ref: ImageRef, image: LoadedImage) -> LoadedImage:
        filled = self._read(ref)
        _expect(filled.sha256, image.sha256, "was changed since it was checked")
        return filled

    def _inspect(self, ref: ImageRef) -> LoadedImage:
        stamp = ref.source.stamp(ref.locator)
        limits = self._limits
        key = digest([_CHECKS, self._pixels, limits.max_bytes, limits.max_pixels, stamp])
        # Before its turn, which costs more than to look: of most images the store has the digest.
        if (known := self._known(ref, key)) is not None:
            return known
        with self._turn(key):
            if (known := self._known(ref, key)) is not None:
                return known
            if (held := self._held.get(key)) is not None:
                _agree(ref, held.sha256)
                return held
            image = self._check(ref, stamp)
            if self._store is not None:
                self._store.put_image_digest(key, image.sha256)
            return self._hold(image, key)

    def _known(self, ref: ImageRef, key: str) -> LoadedImage | None:
        known = self._store.image_digest(key) if self._store is not None else None
        if known is None:
            return None
        _agree(ref, known)
        path = ref.source.path(ref.locator) if self._paths else None
        return LoadedImage(known, "", b"", _absolute(path))

    def _check(self, ref: ImageRef, stamp: str) -> LoadedImage:
        image = self._read(ref)
        _agree(ref, image.sha256)
        with self._decoding:
            check(image.content, image.media_type, self._limits.max_pixels, pixels=self._pixels)
        _expect(ref.source.stamp(ref.locator), stamp, "was changed while it was read")
        return image

    def _hold(self, image: LoadedImage, *keys: str) -> LoadedImage:
        """The one object for these bytes, found again for as long as somebody holds it."""
        with self._lock:
            image = self._held.setdefault(image.sha256, image)
            for key in keys:
                self._held[key] = image
        return image

    def _turn(self, key: str) -> _Turn:
        """Entered by one thread at a time for each key."""
        with self._lock:
            return self._turns.setdefault(key, _Turn())

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


class _Turn:
    """A lock that goes when nobody holds it; a plain one cannot be referred to weakly."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
