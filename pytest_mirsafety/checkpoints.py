"""Checkpoints on this machine or on the hub: where one is, and what it is known by."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from .errors import ConfigurationError
from .printable import one_line
from .records import ModelIdentity, digest

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_ON_THE_HUB: Final = re.compile(r"\w[\w.-]*(/[\w.-]+)?", re.ASCII)
_WHOLE: Final = 2**25
"""Bytes of a file up to which all of it is part of a folder's digest."""

_HEAD: Final = 2**20
"""Bytes of a larger one, beside its length: the names and shapes of its tensors."""

_DETAIL: Final = 240


def find_folder(model: str, base: Path, what: str = "model") -> Path | None:
    """The folder of this name, an absolute path; None for a name of the hub.

    Raises:
        ConfigurationError: it can only be a folder's name, and there is none.
    """
    try:
        folder = base / Path(model).expanduser()
        if folder.is_dir():
            return folder.absolute()
    except (OSError, RuntimeError, ValueError):  # too long, of an unknown home, or no name
        folder = base / "?"
    if _ON_THE_HUB.fullmatch(model):
        return None
    raise ConfigurationError(
        f"{what} '{one_line(model, 120)}': there is no such folder ({one_line(str(folder), 200)}), "
        "and on the hub a name is ORGANIZATION/NAME"
    )


def check_pinned(model: str, revision: str | None) -> None:
    """Do nothing when a judge's model is one that cannot change.

    Raises:
        ConfigurationError: the revision is no commit.
    """
    if not _COMMIT.fullmatch(revision or ""):
        raise ConfigurationError(
            f"the judge's model {one_line(model)} needs a pinned revision: the "
            "commit of 40 digits that its page on the hub lists, or the path of a folder"
        )


def identify(
    provider: str, model: str, folder: Path | None, revision: str | None, what: str = "the model"
) -> ModelIdentity:
    """What a checkpoint is known by: the hub's name and revision, or a folder's name and files.

    Where the folder lies is no part of what it is.

    Raises:
        ConfigurationError: the folder holds no checkpoint, or cannot be read.
    """
    if folder is None:
        return ModelIdentity(provider, model, None, revision)
    name = folder.resolve().name
    return ModelIdentity(
        provider, name, None, revision or f"files-{folder_digest(folder, what)[:12]}"
    )


def with_numerics(identity: ModelIdentity, numerics: str) -> ModelIdentity:
    """The same weights computed in another way than they are saved: another model."""
    if not numerics:
        return identity
    return replace(identity, revision=f"{identity.revision or 'unpinned'}+{numerics}")


def folder_digest(folder: Path, what: str = "the model") -> str:
    """Known by names, sizes and contents of its files; of the largest, by their first part.

    Raises:
        ConfigurationError: it holds no checkpoint, or cannot be read.
    """
    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"{what}: there is no checkpoint in {folder}")
    try:
        return digest(list(_file_digests(folder)))
    except OSError as error:
        problem = one_line(f"{folder}: {error.strerror or error}", _DETAIL)
    raise ConfigurationError(f"{what} cannot be read: {problem}")


def _file_digests(folder: Path) -> Iterator[list[str | int]]:
    for path in sorted(folder.iterdir()):
        if path.is_file():
            size = path.stat().st_size
            with path.open("rb") as file:
                content = file.read(_WHOLE if size <= _WHOLE else _HEAD)
            yield [path.name, size, hashlib.sha256(content).hexdigest()]
