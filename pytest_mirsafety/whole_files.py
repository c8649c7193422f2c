"""Files that are written whole or not at all, and read up to a limit."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ConfigurationError
from .printable import one_line


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file that is there whole or not at all; what writes it is given another name, yet unused.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)  # a link or a pipe, in a folder from elsewhere
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def replace(path: Path, pieces: Iterable[bytes]) -> str:
    """Write a file whole or not at all; gives the SHA-256 of its bytes.

    Raises:
        OSError: it cannot be written.
    """
    sha256 = hashlib.sha256()
    with whole(path) as partial, partial.open("xb") as file:
        for piece in pieces:
            sha256.update(piece)
            file.write(piece)
    return sha256.hexdigest()


def write(path: Path, pieces: Iterable[bytes], *, named: bool = True) -> None:
    """The same in a folder that is made if it is not there.

    A link, a device or a pipe that the user `named` is written to, such as /dev/stdout; another one
    is replaced, since whoever made a folder could put one there to keep us waiting for ever.

    Raises:
        ConfigurationError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if named and path.exists() and (path.is_symlink() or not path.is_file()):
            with path.open("wb") as file:
                file.writelines(pieces)
        else:
            replace(path, pieces)
    except OSError as error:
        raise cannot_write(path, error) from None


def clear(path: Path) -> None:
    """Leave no earlier file to be read as the one to come, and find out that it can be written.

    Raises:
        ConfigurationError: it cannot be.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
        if path.is_file() and not path.is_symlink():
            path.unlink()
    except OSError as error:
        raise cannot_write(path, error) from None


def cannot_write(path: Path, error: OSError) -> ConfigurationError:
    """The error of a file or folder that cannot be written, in one line."""
    problem = f"{path}: cannot be written: {error.strerror or error}"
    return ConfigurationError(one_line(problem, 400))


def bounded(path: Path, limit: int) -> bytes:
    """The bytes of a regular file, up to one more than `limit`, by which a larger one is known.

    Raises:
        OSError: it cannot be read, or is no regular file: a pipe could keep us waiting for ever.
    """
    if path.exists() and not path.is_file():
        raise OSError(0, "is no regular file")
    with path.open("rb") as file:
        return file.read(limit + 1)
