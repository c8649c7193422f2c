"""Where a dataset's images lie, for a server that opens files itself."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import BadInputError
from ..records import ImageRef, Instance


def folder_of_images(instances: Iterable[Instance]) -> Path:
    """The narrowest folder that holds the image files of all these instances.

    Images that are no files of their own lie in the folder that their source makes them in.

    Raises:
        BadInputError: there is none but the whole file system, or no image is a file.
        OSError: a folder cannot be made.
    """
    refs = (ref for instance in instances for ref in instance.images)
    folders = set(_folders(refs))
    hint = 'set image_transport = "base64"'
    if not folders:
        raise BadInputError(f"no image of the dataset is a file on this machine: {hint}")
    try:
        common = os.path.commonpath(folders)
    except ValueError:  # several drives
        common = os.sep
    if Path(common) == Path(common).parent:
        raise BadInputError(f"the dataset's images have no folder in common but {common}: {hint}")
    return Path(common)


def _folders(refs: Iterable[ImageRef]) -> Iterator[str]:
    made: dict[int, str | None] = {}
    for ref in refs:
        source = ref.source
        if id(source) not in made:
            folder = getattr(source, "folder", None)
            made[id(source)] = found = None if folder is None else os.path.realpath(folder)
            if found is not None:
                yield found
        if made[id(source)] is None and (path := _path(ref)) is not None:
            yield os.path.dirname(os.path.realpath(path))  # noqa: PTH120 - many, and all strings


def _path(ref: ImageRef) -> Path | None:
    try:
        return ref.source.path(ref.locator)
    except BadInputError:  # whoever asks with it is told
        return None
