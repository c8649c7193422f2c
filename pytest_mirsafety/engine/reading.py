"""Reads what an ask needs, in worker threads: its answer from the store, or its images."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from ..errors import BadInputError, UnscoredError
from ..protocols import Store
from ..records import Completion, Instance, LoadedImage, Request
from ..trials import decoding_of
from .asks import Parts
from .calling import is_recorded, plain

READERS: Final = min(8, (os.cpu_count() or 1) + 4)
"""Threads that read, and requests that may lie ready to be asked."""

_AT_ONCE: Final = 32
"""Instances that a thread reads in one go while each is quick, their answers being stored."""

_ONE_GO: Final = 0.005
"""Seconds after which a thread returns what it has read, so that others need not wait for it."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request with its stored answer, or with its images in the form they are sent in."""

    request: Request
    images: tuple[LoadedImage, ...] = field(repr=False)
    completion: Completion | None = None


class Batches:
    """How many are read in one go, and by how many threads.

    Answers that the store has are read in batches, by few: threads would only contend.
    """

    def __init__(self) -> None:
        self.at_once = 1

    @property
    def threads(self) -> int:
        """How many may read at the same time."""
        return READERS if self.at_once == 1 else 1

    def more(self, waiting: int) -> int:
        """How many of those waiting are to be read together with another one."""
        return min(self.at_once - 1, waiting // READERS)

    def adapt(self, given: int, found: Sequence[Prepared | UnscoredError]) -> None:
        """Go by what was found, which is less than was given where not all could be in time."""
        stored = all(isinstance(each, Prepared) and each.completion is not None for each in found)
        if not stored:
            self.at_once = 1
        elif len(found) == given:
            self.at_once = min(2 * self.at_once, _AT_ONCE)


class Reader:
    """Reads instances. Bytes of images are read only while `sending` says that any are sent."""

    def __init__(self, parts: Parts, store: Store | None, sending: Callable[[], bool]) -> None:
        backend = parts.backend
        self._images = parts.images
        self._store = store
        self._sending = sending
        self._identity = backend.identity
        self._system = backend.system
        self._decoding = dict(backend.decoding)
        self._needs_bytes = backend.needs_bytes
        self._draw = parts.settings.draw
        self._composer = parts.settings.composer
        self._recorded = is_recorded(backend)
        self._compose_all = parts.settings.compose_all
        self._defences = {arm: own.defence.identity for arm, own in parts.settings.defences.items()}
        self.threads = ThreadPoolExecutor(READERS, thread_name_prefix="mirsafety-images")
        """They read images for whoever needs them."""

    async def read(self, instances: Sequence[Instance]) -> list[Prepared | UnscoredError]:
        """What each instance needs, or why it cannot be asked; the last ones may be left out.

        Raises:
            StoreError: the store cannot be read.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, self._read_some, instances)

    def close(self) -> None:
        """Begin nothing more, and end the threads when they are done."""
        self.threads.shutdown(cancel_futures=True)

    def _read_some(self, instances: Sequence[Instance]) -> list[Prepared | UnscoredError]:
        """In a worker thread: until one has to be sent, so that no more images are held."""
        found: list[Prepared | UnscoredError] = []
        until = time.monotonic() + _ONE_GO
        for instance in instances:
            try:
                prepared = self._read(instance)
            except UnscoredError as error:
                found.append(plain(error, BadInputError))
                continue
            found.append(prepared)
            if prepared.completion is None or time.monotonic() > until:
                break
        return found

    def _read(self, instance: Instance) -> Prepared:
        images = [self._images.inspect(ref) for ref in instance.images]
        together = self._compose_all or instance.composed
        composer = self._composer if together and len(images) > 1 else None  # one is sent as it is
        request = Request(
            model=self._identity,
            prompt=instance.prompt,
            images=tuple(image.sha256 for image in images),
            system=self._system if instance.system is None else instance.system,
            decoding=decoding_of(self._decoding, instance.draw),
            draw=self._draw + instance.draw,
            layout="" if composer is None else composer.layout,
            defence=self._defences.get(instance.arm, ""),
        )
        if self._store is not None and (completion := self._store.get(request.key)) is not None:
            return Prepared(request, (), completion)
        if request.defence:  # it is not what the model is asked
            return Prepared(request, ())
        composes = composer is not None and not self._recorded
        if (self._needs_bytes or composes) and self._sending():
            pairs = zip(instance.images, images, strict=True)
            images = [self._images.fill(ref, image) for ref, image in pairs]
            if composer is not None and composes:
                images = [composer.compose(images)]
        return Prepared(request, tuple(images))
