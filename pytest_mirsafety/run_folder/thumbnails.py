"""thumbnails.zip of a run folder: small pictures, so that its page can be made without the data."""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ..errors import DataError
from ..printable import one_line
from ..whole_files import whole

THUMBNAIL_LIMIT: Final = 2**18
"""Bytes of one picture of 200 pixels: three times as many as any has."""

_NAME: Final = re.compile(r"([0-9a-f]{64})\.webp")
_DIGEST: Final = re.compile("[0-9a-f]{64}")
_INDEX: Final = "of-the-data.json"
_INDEX_LIMIT: Final = 64 * 2**20
_MOST: Final = 100_000
_UNREADABLE: Final = (  # EOFError: an entry that is said to go on beyond the end of the file
    OSError,
    EOFError,
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
_DATE: Final = (1980, 1, 1, 0, 0, 0)  # the same pictures give the same file


@dataclass(slots=True)
class Thumbnails:
    """Small pictures as WebP by the SHA-256 of the image.

    `of` has the digests of an instance's images in the data, by its id, where the run recorded
    none: nobody can say that those were sent.
    """

    small: dict[str, bytes] = field(default_factory=dict)
    of: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read(path: Path, limit: int) -> Thumbnails:
    """What was kept, up to so many bytes of pictures; nothing where there is no file.

    What is no small WebP picture is left out: the file may be from another machine.

    Raises:
        DataError: the file is none that a run folder has.
    """
    found = Thumbnails()
    if not path.exists():
        return found
    try:
        if path.is_file():
            with zipfile.ZipFile(path) as archive:
                _fill(found, archive, limit)
    except _UNREADABLE as error:
        raise DataError(one_line(f"{path}: cannot be read: {error}; remove it", 400)) from None
    return found


def _fill(found: Thumbnails, archive: zipfile.ZipFile, limit: int) -> None:
    size = 0
    for entry in archive.infolist()[:_MOST]:
        name = _NAME.fullmatch(entry.filename)
        most = _INDEX_LIMIT if entry.filename == _INDEX else THUMBNAIL_LIMIT
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > most:
            continue
        if entry.filename == _INDEX:
            found.of = _index(archive.read(entry))
        elif name is not None and is_webp(content := archive.read(entry)):
            size += len(content)
            if size > limit:
                return
            found.small[name[1]] = content


def _index(content: bytes) -> dict[str, tuple[str, ...]]:
    document = json.loads(content)
    if not isinstance(document, dict):
        return {}
    return {
        name: tuple(digests)
        for name, digests in document.items()
        if isinstance(digests, list)
        and all(isinstance(one, str) and _DIGEST.fullmatch(one) for one in digests)
    }


def write(path: Path, kept: Thumbnails) -> None:
    """Keep the pictures, whole or not at all.

    Raises:
        OSError: they cannot be written.
    """
    with whole(path) as partial, zipfile.ZipFile(partial, "x", zipfile.ZIP_STORED) as archive:
        if kept.of:
            archive.writestr(zipfile.ZipInfo(_INDEX, _DATE), json.dumps(kept.of, indent=0))
        for sha256, content in kept.small.items():
            archive.writestr(zipfile.ZipInfo(f"{sha256}.webp", _DATE), content)


def is_webp(content: bytes) -> bool:
    """The first bytes are those of a WebP picture."""
    return content[:4] == b"RIFF" and content[8:12] == b"WEBP"
