"""thumbnails.zip of a run folder: small pictures, so that its page can be made without the data."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ..errors import DataError
from ..printable import one_line

THUMBNAIL_LIMIT: Final = 2**18
"""Bytes of one picture of 200 pixels: three times as many as any has."""

_NAME: Final = re.compile(r"([0-9a-f]{64})\.webp")
_MOST: Final = 100_000
_DATE: Final = (1980, 1, 1, 0, 0, 0)  # the same pictures give the same file


def read(path: Path, limit: int) -> dict[str, bytes]:
    """The pictures by the SHA-256 of the image, up to so many bytes; none where there is no file.

    What is no small WebP picture is left out: the file may be from another machine.

    Raises:
        DataError: the file is none that a run folder has.
    """
    found: dict[str, bytes] = {}
    size = 0
    try:
        if not path.exists():
            return found
        if not path.is_file():
            raise OSError(0, "is no regular file")
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist()[:_MOST]:
                name = _NAME.fullmatch(entry.filename)
                stored = entry.compress_type == zipfile.ZIP_STORED
                if name is None or not stored or entry.file_size > THUMBNAIL_LIMIT:
                    continue
                content = archive.read(entry)
                size += len(content)
                if size > limit:
                    break
                if is_webp(content):
                    found[name[1]] = content
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError) as error:
        raise DataError(one_line(f"{path}: cannot be read: {error}; remove it", 400)) from None
    return found


def write(path: Path, pictures: Mapping[str, bytes]) -> None:
    """Keep the pictures, whole or not at all.

    Raises:
        OSError: they cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for sha256, content in pictures.items():
                archive.writestr(zipfile.ZipInfo(f"{sha256}.webp", _DATE), content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def is_webp(content: bytes) -> bool:
    """The first bytes are those of a WebP picture."""
    return content[:4] == b"RIFF" and content[8:12] == b"WEBP"
