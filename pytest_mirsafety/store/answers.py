"""Completed answers, digests of images, and attempts: what a run reads and writes."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ..digests import canonical_json
from ..errors import StoreError
from ..records import Completion, Request, SentImages
from .file import connect, explained, prepare, provide, transaction, trouble

ALL: Final = "all"
"""The design of a run that asks everything; any other design is a sample."""

PENDING: Final = 256
"""Digests of images that are held in memory; more are written at once."""

_CHUNK: Final = 500  # values in one query; SQLite's oldest limit is 999
_Row = tuple[str, str, str, str, float]
_FIELDS: Final = tuple(field.name for field in fields(Completion))


@dataclass(frozen=True, slots=True)
class AttemptHistory:
    """Earlier attempts over the same data, model and judge, killed ones included.

    An attempt is a run, or the shards of one. `design` is that of the run that begins; `designs`
    are the distinct ones before it, such as `all` or `sample 50 seed abc`, oldest first.
    """

    design: str
    earlier: int
    designs: tuple[str, ...]

    @property
    def number(self) -> int:
        """Which attempt this is, from 1."""
        return self.earlier + 1

    @property
    def other_designs(self) -> tuple[str, ...]:
        """Earlier runs of another design: they have shown instances that this one may choose."""
        return tuple(design for design in self.designs if design != self.design)


class SQLiteStore:
    """Keeps completed answers, image digests and attempts in one SQLite file.

    All methods may be called from several threads: each read has a connection of its own, and
    one connection behind a lock does the writing.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, patience: float) -> None:
        self.path = path
        self._connection = connection
        self._patience = patience
        self._lock = threading.Lock()
        self._closed = False
        self._idle: deque[sqlite3.Connection] = deque()
        self._pending: dict[str, str] = {}
        self._pending_lock = threading.Lock()

    @classmethod
    def open(cls, path: Path, *, patience: float = 10.0) -> SQLiteStore:
        """Open the store at this path, made with its folder if it is not there.

        `patience` is how many seconds a lock held by another process is waited for.

        Raises:
            StoreError: the file is no store, or of a newer version, locked, or not writable.
        """
        provide(path)
        connection = connect(path, patience=patience)
        try:
            prepare(path, connection)
        except BaseException:
            connection.close()
            raise
        return cls(path, connection, patience)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what is pending and let go of the file; may be called again."""
        if not self._closed:
            with suppress(StoreError):  # images whose digests are lost are checked again
                self.put_all(())
        self._closed = True
        with suppress(IndexError):
            while True:
                self._idle.pop().close()
        with self._lock, explained(self.path):
            self._connection.close()

    def get(self, key: str) -> Completion | None:
        """The completed answer of this request, if it was ever had.

        Raises:
            StoreError: it cannot be read, or is damaged.
        """
        rows = self._rows("SELECT completion FROM answers WHERE key = ?", (key,))
        return self._decoded(key, rows[0][0]) if rows else None

    def images_of(self, key: str) -> SentImages | None:
        """The images of this request, if it is answered.

        Raises:
            StoreError: it cannot be read, or is damaged.
        """
        rows = self._rows("SELECT request, completion FROM answers WHERE key = ?", (key,))
        if not rows:
            return None
        request, completion = rows[0]
        try:
            originals = tuple(map(str, json.loads(request)["images"]))
        except (ValueError, TypeError, LookupError) as error:
            raise self._damaged(key, error) from None
        return SentImages(originals, self._decoded(key, completion).composed)

    def held(self, keys: Collection[str]) -> set[str]:
        """Those of these requests that are answered.

        Raises:
            StoreError: it cannot be read.
        """
        return {key for (key,) in self._in("SELECT key FROM answers WHERE key IN", keys)}

    def put_all(self, answers: Sequence[tuple[Request, Completion]]) -> list[Completion]:
        """Keep completed answers, all or none; gives for each the one that the store holds.

        A key that is already there keeps its first answer, whoever stored it.

        Raises:
            StoreError: they cannot be written.
        """
        rows = [_row(request, completion) for request, completion in answers]
        kept: list[tuple[str]] | None = None
        with self._lock, explained(self.path):
            with self._pending_lock:
                digests = dict(self._pending)
            if rows or digests:
                with transaction(self._connection):
                    kept = self._write(rows, digests)
            with self._pending_lock:  # not before they are written, so that they are always found
                for stamp, sha256 in digests.items():
                    if self._pending[stamp] == sha256:
                        del self._pending[stamp]
        if kept is None:
            return [completion for _, completion in answers]
        return [self._decoded(row[0], text) for row, (text,) in zip(rows, kept, strict=True)]

    def image_digest(self, stamp: str) -> str | None:
        """SHA-256 of an image that was read and found good under this stamp.

        Raises:
            StoreError: it cannot be read.
        """
        name = canonical_json(stamp)
        with self._pending_lock:
            pending = self._pending.get(name)
        if pending is not None:
            return pending
        rows = self._rows("SELECT sha256 FROM images WHERE stamp = ?", (name,))
        return rows[0][0] if rows else None

    def image_digests(self, stamps: Collection[str]) -> dict[str, str]:
        """SHA-256 by stamp, of those images that were read and found good under it.

        Raises:
            StoreError: it cannot be read.
        """
        names = {canonical_json(stamp): stamp for stamp in stamps}
        with self._pending_lock:
            found = {names[name]: sha for name in names if (sha := self._pending.get(name))}
        rest = [name for name, stamp in names.items() if stamp not in found]
        rows = self._in("SELECT stamp, sha256 FROM images WHERE stamp IN", rest)
        return found | {names[name]: sha256 for name, sha256 in rows}

    def put_image_digest(self, stamp: str, sha256: str) -> None:
        """Remember that the image of this stamp has this digest and passed every check.

        It is written with the answers that are kept next, or when many are pending, or at the end.

        Raises:
            StoreError: those pending cannot be written.
        """
        with self._pending_lock:
            self._pending[canonical_json(stamp)] = sha256
            many = len(self._pending) >= PENDING
        if many:
            self.put_all(())

    def begin_attempt(self, identity: str, design: str, shard: str | None = None) -> AttemptHistory:
        """Count a run that begins now, and give the attempts before it with the same identity.

        `identity` is a digest of data, model and judge. `design` says what is asked of them:
        `all`, or a sample in words; `shard` which part of it, such as 2/4, if not the whole.

        Raises:
            StoreError: it cannot be written.
        """
        with self._lock, explained(self.path), transaction(self._connection):
            rows = self._connection.execute(
                "SELECT design, shard FROM attempts WHERE identity = ? ORDER BY number",
                (identity,),
            ).fetchall()
            self._connection.execute(
                "INSERT INTO attempts (identity, design, shard, started) VALUES (?, ?, ?, ?)",
                (identity, design, shard, time.time()),
            )
        earlier = count_attempts([*rows, (design, shard)]) - 1
        return AttemptHistory(design, earlier, tuple(dict.fromkeys(row[0] for row in rows)))

    def describe(self, words: Mapping[str, str]) -> None:
        """Keep in words, for people, what identities and designs of attempts stand for.

        Raises:
            StoreError: it cannot be written.
        """
        rows = [(name, canonical_json(text)) for name, text in words.items()]
        with self._lock, explained(self.path), transaction(self._connection):
            self._insert("INSERT OR REPLACE INTO words VALUES (?, ?)", rows)

    def rows(self, query: str, values: Sequence[str]) -> list[tuple[str, ...]]:
        """What a query finds; any thread may ask.

        Raises:
            StoreError: it cannot be read.
        """
        return self._rows(query, values)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The one connection that writes, in a transaction; other writers wait.

        Raises:
            StoreError: it cannot be written.
        """
        with self._lock, explained(self.path), transaction(self._connection):
            yield self._connection

    def _write(self, rows: Sequence[_Row], digests: Mapping[str, str]) -> list[tuple[str]] | None:
        """In a transaction; gives the answers that are held now, None when all of these are."""
        self._insert("INSERT OR REPLACE INTO images VALUES (?, ?)", digests.items())
        fresh = self._insert(
            "INSERT INTO answers VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING", rows
        )
        if fresh == len(rows):
            return None
        query = "SELECT completion FROM answers WHERE key = ?"
        return [self._connection.execute(query, row[:1]).fetchone() for row in rows]

    def _insert(self, statement: str, rows: Collection[tuple[str | float, ...]]) -> int:
        """How many of these rows were not there before."""
        before = self._connection.total_changes
        self._connection.executemany(statement, rows)
        return self._connection.total_changes - before

    def _rows(self, query: str, values: Sequence[str]) -> list[tuple[str, ...]]:
        # Once an instance at the least: two context managers would take as long as the query.
        connection = self._reader()
        try:
            return connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise trouble(self.path, error) from None
        finally:
            self._idle.append(connection)
            if self._closed:  # while this was reading
                self.close()

    def _in(self, query: str, values: Collection[str]) -> Iterator[tuple[str, ...]]:
        listed = list(values)
        for start in range(0, len(listed), _CHUNK):
            chunk = listed[start : start + _CHUNK]
            yield from self._rows(f"{query} ({','.join('?' * len(chunk))})", chunk)

    def _reader(self) -> sqlite3.Connection:
        """A connection that nobody else uses, until it is given back."""
        if self._closed:
            raise StoreError(f"the store {self.path} is closed")
        try:
            return self._idle.pop()
        except IndexError:
            return connect(self.path, patience=self._patience)

    def _decoded(self, key: str, text: str) -> Completion:
        try:
            return decode(text)
        except (ValueError, TypeError) as error:
            raise self._damaged(key, error) from None

    def _damaged(self, key: str, error: Exception) -> StoreError:
        return StoreError(
            f"the store {self.path} is damaged: the answer of request {key} cannot be read "
            f"({error}); move the file away and run again, or restore a copy of it"
        )


def count_attempts(runs: Iterable[tuple[str, str | None]]) -> int:
    """How many attempts these runs were: their designs and shards, in the order they began.

    Shards of one design in equally many parts are one attempt, until one of them comes again or
    another run comes between. So no instance had more chances than there are attempts.
    """
    attempts, under_way = 0, None
    begun: set[str] = set()
    for design, shard in runs:
        parts = None if shard is None else (design, shard.rpartition("/")[2])
        if shard is None or parts != under_way or shard in begun:
            attempts += 1
            begun.clear()
        under_way = parts
        begun.add(shard or "")
    return attempts


def _row(request: Request, completion: Completion) -> _Row:
    fields_of = {name: getattr(completion, name) for name in _FIELDS}
    for later in ("composed", "blocked"):  # as it was before there were such fields
        if fields_of[later] is None:
            del fields_of[later]
    return (
        request.key,
        canonical_json(str(request.model)),
        request.canonical,
        canonical_json(fields_of),
        completion.created,
    )


def decode(text: str) -> Completion:
    """The completion of this JSON.

    Raises:
        ValueError: it is no JSON.
        TypeError: it is another kind of JSON, or a field is missing, unknown or of another type.
    """
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise TypeError("it is no JSON object")
    return Completion(**fields)
