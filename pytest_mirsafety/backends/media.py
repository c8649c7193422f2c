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
    known: dict[str, str] = {}
    for ref in refs:
        source = ref.source
        if id(source) not in made:
            own = getattr(source, "folder", None)
            made[id(source)] = found = None if own is None else os.path.realpath(own)
            if found is not None:
                yield found
        if made[id(source)] is None and (path := _path(ref)) is not None:
            folder, name = os.path.split(path)
            if folder not in known:  # what a folder leads to is found out once
                known[folder] = os.path.realpath(folder)
            path = os.path.join(known[folder], name)  # noqa: PTH118 - many, and all strings
            if os.path.islink(path):  # noqa: PTH114 - as above
                path = os.path.realpath(path)
            yield os.path.dirname(path)  # noqa: PTH120 - as above


def _path(ref: ImageRef) -> str | None:
    try:
        found = ref.source.path(ref.locator)
        return None if found is None else str(found)
    except BadInputError:  # whoever asks with it is told
        return None
