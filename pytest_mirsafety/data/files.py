"""Images that are files under the dataset's folder."""

from __future__ import annotations

import ntpath
import os
import posixpath
import re
import stat
from pathlib import Path
from typing import Final

from ..errors import BadInputError
from ..printable import one_line

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
"""Most paths: nothing in them needs a second look."""


def inside(text: str) -> str:
    """A dataset's relative path, normalized, with `/` between its parts.

    Raises:
        ValueError: the path is absolute, climbs with `..` on any system, or is no file's.
    """
    if _PLAIN.fullmatch(text):
        return text
    path = posixpath.normpath(text)
    parts = text.replace("\\", "/").split("/")
    climbs = any(not part.strip(". ") and part not in ("", ".") for part in parts)
    # Both spellings: "./c:/x" is absolute only once it is normalized.
    absolute = any(t.startswith(("/", "\\")) or ntpath.splitdrive(t)[0] for t in (text, path))
    if absolute or climbs:
        raise ValueError(f"the image path '{text}' leaves the dataset's folder")
    if not text.strip("./ ") or not text.isprintable():
        raise ValueError(f"'{one_line(text)}' is no path of an image")
    return path


class FileImages:
    """Reads images from files under `root`; a locator is a path relative to it.

    A symbolic link may lead to another place under `root`, never out of it. Where a folder leads
    is found out once: to do so for each look at each image would be most of what reading costs.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self._folders: dict[str, str] = {}

    def stamp(self, locator: str) -> str:
        """Path, size and times of the file.

        Raises:
            BadInputError: the file is missing, or not a file under the root.
        """
        path, info = self._find(locator)
        return f"file:{path}:{info.st_size}:{info.st_mtime_ns}:{info.st_ctime_ns}"

    def read(self, locator: str) -> bytes:
        """The file's bytes.

        Raises:
            BadInputError: the file is missing, unreadable, or not a file under the root.
        """
        path, _ = self._find(locator)
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise BadInputError(f"cannot be read: {error.strerror or error}") from None

    def path(self, locator: str) -> Path:
        """The file, with symbolic links resolved.

        Raises:
            BadInputError: the file is missing, or not a file under the root.
        """
        return Path(self._find(locator)[0])

    def _find(self, locator: str) -> tuple[str, os.stat_result]:
        # os.path: pathlib takes 4 times the time, and this runs for each image of each run.
        folder, name = os.path.split(locator)
        try:
            path = os.path.join(self._folder(folder), name)  # noqa: PTH118 - as above
            info = os.lstat(path)
            if stat.S_ISLNK(info.st_mode):
                path = self._resolved(path)
                info = os.stat(path)  # noqa: PTH116 - as above
        except FileNotFoundError:
            raise BadInputError("there is no such file") from None
        except (OSError, ValueError) as error:
            problem = getattr(error, "strerror", None) or "not a path"
            raise BadInputError(f"cannot be reached: {problem}") from None
        if not stat.S_ISREG(info.st_mode):
            raise BadInputError("is not a regular file")
        return path, info

    def _folder(self, locator: str) -> str:
        """A folder under the root, with symbolic links resolved."""
        if (found := self._folders.get(locator)) is None:
            path = os.path.join(self._root, locator)  # noqa: PTH118 - see _find
            found = self._folders[locator] = self._resolved(path)
        return found

    def _resolved(self, path: str) -> str:
        found = os.path.realpath(path, strict=True)
        if found != self._root and not found.startswith(self._root.rstrip(os.sep) + os.sep):
            raise BadInputError("a symbolic link leaves the dataset's folder")
        return found
