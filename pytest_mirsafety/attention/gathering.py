"""What the shards of a run have measured, read back from their folders as one run's."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..entropies import DEFINITION, NUMBERS, SUMMARY, AnswerAttention
from ..errors import DataError
from ..printable import one_line
from ..results import RecordedRun
from .reporting import FORMAT, SCHEMA_VERSION

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LARGEST: Final = 2**31
"""Bytes of a shard's numbers, unpacked: those of the whole benchmark are a tenth of it."""

_MOST_WORDS: Final = 2**20
_DIMENSIONS: Final = {
    "instance": 1,
    "tokens": 1,
    "prompt_keys": 1,
    "prompt_entropy": 3,
    "prompt_mass": 3,
    "image_keys": 2,
    "image_entropy": 4,
    "image_mass": 4,
}


@dataclass(frozen=True, slots=True)
class Gathered:
    """What was measured, by instance, and the folders of shards that brought no numbers."""

    answers: Mapping[str, AnswerAttention]
    without: tuple[str, ...]


def gather(shards: Iterable[tuple[Path, RecordedRun]]) -> Gathered:
    """Read the numbers of all shards of one run; what is not there is told, not made up.

    Raises:
        DataError: a file is not as the run wrote it, or its numbers are of another definition.
    """
    found: dict[str, AnswerAttention] = {}
    without = []
    for folder, run in shards:
        if (folder / SUMMARY).exists() or (folder / NUMBERS).exists():
            found |= _answers(folder, run)
        else:
            without.append(one_line(str(folder)))
    return Gathered(found, tuple(without))


def _answers(folder: Path, run: RecordedRun) -> dict[str, AnswerAttention]:
    numbers = folder / NUMBERS
    told = _told(folder / SUMMARY, run)
    try:
        arrays = _arrays(numbers, told)
        rows = _rows(arrays)
    except MemoryError:
        raise _damaged(numbers) from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise _damaged(numbers, reason) from None
    planned = {entry.instance_id for entry in run.outcomes}
    if len(rows) != len(arrays["instance"]) or not rows.keys() <= planned:
        raise DataError(f"{one_line(str(numbers))}: holds answers that this shard did not ask for")
    return rows


def _told(path: Path, run: RecordedRun) -> str:
    """The digest that the numbers must have, by the file beside them."""
    try:
        with path.open("rb") as file:
            document: Any = json.loads(file.read(_MOST_WORDS))
        form = document["format"], document["schema_version"]
        of = document["definition"], document["model"]
        told = str(document["numbers"]["sha256"])
    except OSError as error:
        raise _damaged(path, error.strerror) from None
    except (ValueError, LookupError, TypeError, RecursionError):
        raise _damaged(path) from None
    if form != (FORMAT, SCHEMA_VERSION) or of[0] != DEFINITION:
        raise DataError(
            f"{one_line(str(path))}: is of another version of --mir-attention: merge with the "
            "version that measured it"
        )
    if of[1] != run.provenance.model_identity:
        raise DataError(f"{one_line(str(path))}: is of another model than {run.where}")
    return told


def _arrays(path: Path, told: str) -> dict[str, NDArray[Any]]:
    """The arrays that make up the answers, of the dimensions that they must have."""
    import numpy as np

    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != told:
            raise ValueError("another file")
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > _LARGEST:
            raise ValueError("too large")
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in _DIMENSIONS}
    count = len(arrays["instance"])
    for name, dimensions in _DIMENSIONS.items():
        if arrays[name].ndim != dimensions or len(arrays[name]) != count:
            raise ValueError("shapes that do not belong together")
    return arrays


def _rows(arrays: Mapping[str, NDArray[Any]]) -> dict[str, AnswerAttention]:
    """Each with the places of all images that one of this shard has; 0 keys where it has none."""
    import numpy as np

    keys = np.concatenate([arrays["prompt_keys"][:, None], arrays["image_keys"]], axis=1)
    entropy, mass = (
        np.concatenate([arrays[f"prompt_{name}"][:, None], arrays[f"image_{name}"]], axis=1)
        for name in ("entropy", "mass")
    )
    layers, heads = entropy.shape[2:]
    return {
        str(name): AnswerAttention(
            layers=layers,
            heads=heads,
            tokens=int(arrays["tokens"][place]),
            keys=tuple(keys[place].tolist()),
            entropy=entropy[place].astype("<f4").tobytes(),
            mass=mass[place].astype("<f4").tobytes(),
        )
        for place, name in enumerate(arrays["instance"].tolist())
    }


def _damaged(path: Path, reason: str | None = None) -> DataError:
    return DataError(f"{one_line(str(path))}: {reason or 'is not as the run wrote it'}")
