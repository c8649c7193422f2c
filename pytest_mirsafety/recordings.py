"""Reads what was recorded elsewhere, strictly: files, JSON without tricks, upstream's folders."""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from .errors import DataError
from .printable import one_line

_LARGEST: Final = 2**53
"""A number above it is none: not every JSON reader could tell it from its neighbours."""

FAILED: Final = "[INFERENCE_FAILED:"
CRASHED: Final = "[WORKER_CRASHED:"
"""How upstream's texts begin that stand where an answer belongs, and are none."""


def is_failure(answer: str) -> bool:
    """Whether this is no answer, but upstream's word for a failure."""
    return answer.startswith((FAILED, CRASHED))


@dataclass(frozen=True, slots=True)
class Recording:
    """Reads for `reader`, which the line about whatever is wrong begins with."""

    reader: str

    def refuse(self, place: str, problem: str) -> NoReturn:
        """Raise a DataError that says on one line what is wrong where."""
        raise DataError(one_line(f"{self.reader}: {place}: {problem}", 400))

    def read(self, path: Path) -> bytes:
        """The bytes of a file; a pipe or a device might never end.

        Raises:
            DataError: it is no regular file.
            OSError: it cannot be read.
        """
        if path.exists() and not path.is_file():
            self.refuse(str(path), "is not a regular file")
        return path.read_bytes()

    def read_cells(self, root: Path) -> dict[str, bytes]:
        """The files of one model's folder in upstream's layout, by `<Category>/<Relation>.json`.

        Raises:
            DataError: one is no regular file.
            OSError: one cannot be read.
        """
        folders = [f for f in sorted(root.iterdir()) if f.is_dir() and not f.name.startswith(".")]
        files = [p for f in folders for p in sorted(f.glob("*.json")) if p.name[0] != "."]
        return {f"{p.parent.name}/{p.name}": self.read(p) for p in files}

    def parse(self, content: bytes, place: str) -> object:
        """The one JSON value that these bytes are.

        Raises:
            DataError: they are none, or one with a key twice or a text that is none.
        """
        try:
            value: object = json.loads(
                content.decode(), object_pairs_hook=_without_duplicates, parse_constant=_no_constant
            )
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            self.refuse(place, "holds half a surrogate pair, which is no text")
        except UnicodeDecodeError:
            self.refuse(place, "is not UTF-8")
        except json.JSONDecodeError as error:
            self.refuse(place, f"is not JSON: {error.msg} at character {error.pos + 1}")
        except (ValueError, RecursionError) as error:
            self.refuse(place, f"is not JSON: {error}")
        return value

    def parse_object(self, value: object, place: str) -> dict[str, Any]:
        """The value, which is an object.

        Raises:
            DataError: it is none.
        """
        if not isinstance(value, dict):
            self.refuse(place, f"must be an object, not {type(value).__name__}")
        return value

    def check_types(
        self, values: Mapping[str, object], kinds: Mapping[str, tuple[type, ...]], place: str
    ) -> None:
        """Do nothing if each key that is there has one of its types.

        Raises:
            DataError: one has another, or is a number that is too large or negative.
        """
        for key, allowed in kinds.items():
            value = values.get(key)
            if key in values and (isinstance(value, bool) or not isinstance(value, allowed)):
                self.refuse(place, f"'{key}' cannot be {type(value).__name__}")
            if isinstance(value, int) and value < 0:
                self.refuse(place, f"'{key}' is negative")
            if isinstance(value, int) and value > _LARGEST:
                self.refuse(place, f"'{key}' is above 2**53")


def without_mark(content: bytes) -> bytes:
    """The bytes without the mark of their order that some editors write."""
    return content.removeprefix(codecs.BOM_UTF8)


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key is there twice")
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not allowed")
