"""The attention behind answers, by request and answer: numbers as bytes, and nothing to execute.

Its table is made when attention is first measured, so that a store without any is one that every
version reads.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..digests import canonical_json
from ..entropies import DEFINITION, AnswerAttention
from ..errors import StoreError
from .answers import SQLiteStore
from .file import explained

if TYPE_CHECKING:
    from .upkeep import Selection

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_TABLE: Final = """CREATE TABLE IF NOT EXISTS attention (
    request TEXT NOT NULL,         -- the answer's key
    answer TEXT NOT NULL,          -- SHA-256 of its text
    definition INTEGER NOT NULL,   -- which one the numbers follow
    layers INTEGER NOT NULL,
    heads INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    keys TEXT NOT NULL,            -- JSON: how many, of the prompt and of each image
    entropy BLOB NOT NULL,         -- float32, little-endian: prompt and images, layers, heads
    mass BLOB NOT NULL,
    created REAL NOT NULL,         -- seconds since the epoch
    PRIMARY KEY (request, answer)
)"""
_COLUMNS: Final = "layers, heads, tokens, keys, entropy, mass"


class Attention:
    """The attention in a store. Methods may be called from several threads.

    Raises:
        StoreError: the store cannot be written.
    """

    def __init__(self, store: SQLiteStore) -> None:
        self._store = store
        with store.writing() as connection:
            connection.execute(_TABLE)

    def get(self, request: str, answer: str) -> AnswerAttention | None:
        """What was measured of this answer, by the definition of today.

        Raises:
            StoreError: it cannot be read, or is damaged.
        """
        query = (
            f"SELECT {_COLUMNS} FROM attention "  # noqa: S608 - ours
            f"WHERE request = ? AND answer = ? AND definition = {DEFINITION}"
        )
        rows = self._store.rows(query, (request, answer))
        try:
            return _decoded(*rows[0]) if rows else None
        except ValueError as error:
            raise StoreError(
                f"the store {self._store.path} is damaged: the attention behind answer {request} "
                f"cannot be read ({error}); move the file away and run again, or restore a copy"
            ) from None

    def put(self, request: str, answer: str, attention: AnswerAttention) -> None:
        """Keep what was measured; the same answer measured anew replaces it.

        Raises:
            StoreError: it cannot be written.
        """
        row = (
            *(request, answer, DEFINITION, attention.layers, attention.heads, attention.tokens),
            *(canonical_json(attention.keys), attention.entropy, attention.mass, time.time()),
        )
        with self._store.writing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO attention VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row
            )


class AttentionUpkeep:
    """The attention in a store that is open, by the answers that it is behind."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection

    def number(self, answers: Selection) -> int:
        """Behind how many such answers it was measured.

        Raises:
            StoreError: the store cannot be read.
        """
        return sum(1 for _ in self._rows("request", answers))

    def delete_orphans(self) -> None:
        """Remove what is behind no answer that is here, in the transaction that is open.

        Raises:
            StoreError: the store cannot be written.
        """
        if self._known():
            with explained(self._path):
                self._connection.execute(
                    "DELETE FROM attention WHERE request NOT IN (SELECT key FROM answers)"
                )

    def lines(self, answers: Selection) -> Iterator[str]:
        """What is behind such answers, each as a line of JSON; null is a number without a value.

        Raises:
            StoreError: the store cannot be read, or a number in it is damaged.
        """
        columns = f"request, answer, definition, created, {_COLUMNS}"
        for row in self._rows(columns, answers):
            if (wrong := _problem(*row)) is not None:
                raise StoreError(f"the store {self._path} is damaged: {wrong}")
            request, answer, definition, created, *rest = row
            attention = _decoded(*rest)
            yield canonical_json(
                {
                    "attention_of": request,
                    "answer": answer,
                    "definition": definition,
                    "tokens": attention.tokens,
                    "keys": attention.keys,
                    "entropy": _plain(attention.entropies),
                    "mass": _plain(attention.masses),
                    "created": created,
                }
            )

    def problems(self) -> Iterator[str]:
        """What is wrong with it, line by line; nothing when all is well."""
        for row in self._rows(f"request, answer, definition, created, {_COLUMNS}"):
            if (wrong := _problem(*row)) is not None:
                yield wrong

    def _known(self) -> bool:
        query = "SELECT count(*) FROM sqlite_master WHERE name = 'attention'"
        with explained(self._path):
            return bool(self._connection.execute(query).fetchone()[0])

    def _rows(self, columns: str, answers: Selection | None = None) -> Iterator[tuple[Any, ...]]:
        if not self._known():
            return
        condition, values = "true", list[str | float]()
        if answers is not None:
            condition, values = answers.condition
            condition = f"request IN (SELECT key FROM answers WHERE {condition})"  # noqa: S608 - ours
        query = f"SELECT {columns} FROM attention WHERE {condition} ORDER BY rowid"  # noqa: S608 - ours
        with explained(self._path):
            yield from self._connection.execute(query, values)


def _decoded(
    layers: Any,  # noqa: ANN401 - what a damaged file has
    heads: Any,  # noqa: ANN401
    tokens: Any,  # noqa: ANN401
    keys: Any,  # noqa: ANN401
    entropy: Any,  # noqa: ANN401
    mass: Any,  # noqa: ANN401
) -> AnswerAttention:
    """The attention of these columns.

    Raises:
        ValueError: they are none.
    """
    try:
        listed = json.loads(keys)
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    counts = (layers, heads, tokens, *listed) if isinstance(listed, list) else (None,)
    numbers = isinstance(entropy, bytes) and isinstance(mass, bytes)
    if not numbers or not all(isinstance(count, int) for count in counts):
        raise ValueError("a column is of another type")
    return AnswerAttention(layers, heads, tokens, tuple(listed), entropy, mass)


def _problem(request: object, answer: object, definition: object, *rest: Any) -> str | None:  # noqa: ANN401 - what a damaged file has
    digests = (isinstance(text, str) and _SHA256.fullmatch(text) for text in (request, answer))
    if not all(digests) or not isinstance(definition, int):
        return f"attention {request}: its request or answer is no SHA-256"
    try:
        _decoded(*rest[1:])
    except ValueError as error:
        return f"attention {request}: it cannot be read ({error})"
    return None


def _plain(numbers: Any) -> list[Any]:  # noqa: ANN401 - an array of numbers
    """Nested lists in JSON's own types."""
    import numpy as np

    plain: list[Any] = np.where(np.isnan(numbers), np.array(None), numbers).tolist()
    return plain
