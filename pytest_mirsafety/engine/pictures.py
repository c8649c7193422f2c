"""The images that a judge looks at: those that the model was sent, by their digests."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

from ..errors import BadInputError
from ..protocols import ImageLoader
from ..records import Instance, LoadedImage, Request
from .asks import NO_PICTURES, Pictured


class Pictures:
    """Knows which images each request had, and reads them when a judge is asked.

    Without a judge that is to see them (`shown` False) it keeps and reads nothing.
    """

    def __init__(self, images: ImageLoader, threads: Executor, *, shown: bool) -> None:
        self._images = images
        self._threads = threads
        self._shown = shown
        self._sent: dict[str, tuple[str, ...]] = {}

    def note(self, request: Request) -> None:
        """Remember the images of a request. On the loop's thread."""
        if self._shown:
            self._sent[request.key] = request.images

    def of(self, instance: Instance, request_key: str | None, *, planned: bool) -> Pictured:
        """What a judge of the answer to this request is to see. Any thread; it may block.

        The images of a `planned` request were read for it already; any others are inspected now.

        Raises:
            BadInputError: an image cannot be read, or the answer was given to other images.
        """
        if not self._shown:
            return NO_PICTURES
        sent = self._sent.get(request_key or "")
        if planned and sent is not None:
            return Pictured(instance.images, sent)
        found = tuple(self._images.inspect(ref).sha256 for ref in instance.images)
        if sent is not None and found != sent:
            raise BadInputError(
                f"the judge looks at images, and this answer was given to others than those of "
                f"{instance.id}: judge it with the instance that was asked"
            )
        return Pictured(instance.images, found)

    async def read(self, pictured: Pictured) -> tuple[LoadedImage, ...]:
        """The images with their bytes, all of them and in order.

        Raises:
            BadInputError: one is missing, or is not what it was.
        """
        if not pictured.refs:
            return ()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._filled, pictured)

    def _filled(self, pictured: Pictured) -> tuple[LoadedImage, ...]:
        known = [LoadedImage(sha256, "", b"") for sha256 in pictured.digests]
        pairs = zip(pictured.refs, known, strict=True)
        images = tuple(self._images.fill(ref, image) for ref, image in pairs)
        if tuple(image.sha256 for image in images) != pictured.digests:
            raise BadInputError("the images changed after they were sent to the model")
        if not all(image.content for image in images):
            raise BadInputError("an image has no bytes to show to the judge")
        return images
