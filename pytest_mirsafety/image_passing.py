"""How a controller and its workers name an image to each other: by its place, or with its bytes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Final

from .arms import BENIGN_TWIN
from .data.files import FileImages
from .messages import Plain
from .protocols import ImageSource
from .records import ImageRef, Instance, arm_id

_Place = tuple[str, int]


class Places:
    """The images of data that both sides have loaded: the dataset's, and those of the twins."""

    def __init__(self, instances: Iterable[Instance], twins: Iterable[Instance]) -> None:
        self._known = {i.id: i.images for i in instances}
        self._known |= {arm_id(i.id, BENIGN_TWIN): i.images for i in twins}

    def pack(self, ref: ImageRef) -> Plain:
        """One of the data's by its place in it; of others the file, or else the bytes."""
        if (place := self._places.get(_key(ref))) is not None:
            return {"of": place}
        words = {"name": ref.name, "sha256": ref.sha256}
        if (path := ref.source.path(ref.locator)) is not None:
            return {**words, "file": str(path.absolute())}
        content = ref.source.read(ref.locator)
        return {**words, "content": base64.b64encode(content).decode()}

    def unpack(self, plain: Plain) -> ImageRef:
        """The image that the other side has packed."""
        if "of" in plain:
            name, index = plain["of"]
            found: ImageRef = self._known[name][index]
            return found
        source: ImageSource
        if "file" in plain:
            path = Path(plain["file"])
            source, locator = FileImages(path.parent), path.name
        else:
            source, locator = SentImage(base64.b64decode(plain["content"])), plain["name"]
        return ImageRef(plain["name"], locator, source, plain["sha256"])

    @cached_property
    def _places(self) -> dict[tuple[object, ...], _Place]:
        return {
            _key(ref): (name, index)
            for name, images in self._known.items()
            for index, ref in enumerate(images)
        }


class SentImage:
    """One image whose bytes came with a request."""

    def __init__(self, content: bytes) -> None:
        self._content: Final = content

    def stamp(self, locator: str) -> str:
        """Its content, which is all that there is of it."""
        return f"sent:{locator}:{hashlib.sha256(self._content).hexdigest()}"

    def read(self, locator: str) -> bytes:  # noqa: ARG002 - it is the only one
        """Its bytes."""
        return self._content

    def path(self, locator: str) -> None:
        """It is no file here."""


def _key(ref: ImageRef) -> tuple[object, ...]:
    return ref.name, ref.locator, ref.sha256, id(ref.source)
