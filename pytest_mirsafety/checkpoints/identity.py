"""Which checkpoint it is: a pinned revision of the hub, or a folder known by its files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ..digests import digest
from ..errors import ConfigurationError
from ..printable import one_line
from ..records import ModelIdentity

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_PLACE: Final = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
"""How the hub names a model: everything else is a path."""

_WHOLE: Final = 2**25
"""Bytes of a file up to which all of it is part of a folder's digest."""

_HEAD: Final = 2**20
"""Bytes of a larger one, beside its length: the names and shapes of its tensors."""

_DETAIL: Final = 240


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint: `folder`, or else the hub's `model` at the commit `revision`."""

    model: str
    folder: Path | None = None
    revision: str | None = None

    @property
    def source(self) -> str:
        """What a library loads it by."""
        return self.model if self.folder is None else str(self.folder)


def locate(model: str, base: Path, revision: str | None, whose: str) -> Checkpoint:
    """The folder of this path, relative to `base`, or the model of this name on the hub.

    The name may end in `@COMMIT`, where no `revision` is given. `whose` begins the message.

    Raises:
        ConfigurationError: it is no folder, and no name.
    """
    try:
        folder = base / Path(model).expanduser()
        if folder.is_dir():
            return Checkpoint(model, folder.absolute(), revision)
    except (OSError, RuntimeError, ValueError):  # too long, of an unknown home, or no path
        folder = base / "?"
    name, _, commit = model.partition("@")
    if commit and revision is None:
        model, revision = name, commit
    if not _PLACE.fullmatch(model):
        raise ConfigurationError(
            f"{whose}: there is no folder {one_line(str(folder), 200)}, and on the hub a name is "
            "ORGANIZATION/NAME"
        )
    return Checkpoint(model, None, revision)


def identify(
    checkpoint: Checkpoint, provider: str, whose: str, *, pinned: bool = True
) -> ModelIdentity:
    """Its name with its revision, or with a digest of its files; `whose` begins the message.

    Raises:
        ConfigurationError: the revision is not the commit that a `pinned` model needs, or the
            folder is not one of a checkpoint.
    """
    if checkpoint.folder is None:
        if pinned and not _COMMIT.fullmatch(checkpoint.revision or ""):
            raise ConfigurationError(
                f"{whose} {one_line(checkpoint.model)} needs a pinned revision: the commit of 40 "
                "digits that its page on the hub lists, or the path of a folder"
            )
        return ModelIdentity(provider, checkpoint.model, None, checkpoint.revision)
    # Where it lies is no part of what it is.
    revision = checkpoint.revision or f"files-{folder_digest(checkpoint.folder, whose)[:12]}"
    return ModelIdentity(provider, checkpoint.folder.resolve().name, None, revision)


def with_numerics(identity: ModelIdentity, numerics: str) -> ModelIdentity:
    """The same weights computed in another way than they are saved: another model."""
    if not numerics:
        return identity
    return replace(identity, revision=f"{identity.revision or 'unpinned'}+{numerics}")


def folder_digest(folder: Path, whose: str) -> str:
    """Known by names, sizes and contents of its files; of the largest, by their first part.

    Raises:
        ConfigurationError: it holds no checkpoint, or cannot be read.
    """
    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"{whose}: there is no checkpoint in {one_line(str(folder))}")
    try:
        return digest(list(_file_digests(folder)))
    except OSError as error:
        problem = one_line(f"{folder}: {error.strerror or error}", _DETAIL)
    raise ConfigurationError(f"{whose} cannot be read: {problem}")


def _file_digests(folder: Path) -> Iterator[list[str | int]]:
    for path in sorted(folder.iterdir()):
        if path.is_file():
            size = path.stat().st_size
            with path.open("rb") as file:
                content = file.read(_WHOLE if size <= _WHOLE else _HEAD)
            yield [path.name, size, hashlib.sha256(content).hexdigest()]
