"""The store of answers: one SQLite file, private, that survives a killed run.

Answers are kept by request key, image digests by stamp, and runs are counted as attempts. The
file is in WAL mode, so that several runs may share it; a commit survives the death of the
process, and the last ones may be lost with the machine, never half-written.
"""

from __future__ import annotations

import json
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from .errors import StoreError
from .records import Completion, Request, canonical_json

FOLDER: Final = ".mirsafety"
"""The folder that is ours by name; another one is ours, to keep out of git, if made here."""

ALL: Final = "all"
"""The design of a run that asks everything; any other design is a sample."""

_APPLICATION: Final = 0x4D495253  # "MIRS", in the file's header

# Ordered: a file's user_version says how many were applied. Add to the end, never change one.
_MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """CREATE TABLE answers (
            key TEXT PRIMARY KEY,      -- SHA-256 of `request`
            model TEXT NOT NULL,
            request TEXT NOT NULL,     -- canonical JSON, images by digest
            completion TEXT NOT NULL,  -- JSON, ASCII only
            created REAL NOT NULL      -- seconds since the epoch
        )""",
        """CREATE TABLE images (
            stamp TEXT PRIMARY KEY,
            sha256 TEXT NOT NULL
        ) WITHOUT ROWID""",
        """CREATE TABLE attempts (
            number INTEGER PRIMARY KEY,
            identity TEXT NOT NULL,
            design TEXT NOT NULL,
            started REAL NOT NULL
        )""",
        "CREATE INDEX attempts_identity ON attempts (identity)",
    ),
)

_TROUBLES: Final[Mapping[int, str]] = {
    sqlite3.SQLITE_NOTADB: "is not a store of answers; move it away, or name another file",
    sqlite3.SQLITE_CORRUPT: "is damaged; move it away and run again, or restore a copy of it",
    sqlite3.SQLITE_BUSY: "is locked by another process; wait for it to end, then run again",
    sqlite3.SQLITE_LOCKED: "is locked by another process; wait for it to end, then run again",
    sqlite3.SQLITE_READONLY: "cannot be written; check the permissions of file and folder",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; check the permissions of file and folder",
    sqlite3.SQLITE_PERM: "cannot be opened; check the permissions of file and folder",
    sqlite3.SQLITE_FULL: "cannot grow: the disk is full; free some space, then run again (what "
    "was answered is kept)",
    sqlite3.SQLITE_IOERR: "cannot be read or written (input/output error); check the disk",
}


@dataclass(frozen=True, slots=True)
class AttemptHistory:
    """Earlier runs over the same data, model and judge, killed ones included.

    `design` is that of the run that begins; `designs` are the distinct ones before it, such as
    `all` or `sample 50 seed abc`, oldest first.
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

    All methods may be called from several threads; one connection behind a lock serves them.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path, *, patience: float = 10.0) -> SQLiteStore:
        """Open the store at this path, made with its folder if it is not there.

        `patience` is how many seconds a lock held by another process is waited for.

        Raises:
            StoreError: the file is no store, or of a newer version, locked, or not writable.
        """
        try:
            _protect(path)
            with _explained(path):
                connection = sqlite3.connect(
                    path, timeout=patience, isolation_level=None, check_same_thread=False
                )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise StoreError(f"the store {path} cannot be opened: {reason}") from None
        try:
            with _explained(path):
                _prepare(path, connection)
        except BaseException:
            connection.close()
            raise
        return cls(path, connection)

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
        """Let go of the file; may be called again."""
        with self._lock, _explained(self.path):
            self._connection.close()

    def get(self, key: str) -> Completion | None:
        """The completed answer of this request, if it was ever had.

        Raises:
            StoreError: it cannot be read, or is damaged.
        """
        row = self._one("SELECT completion FROM answers WHERE key = ?", key)
        if row is None:
            return None
        try:
            return _decode(row)
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"the store {self.path} is damaged: the answer of request {key} cannot be read "
                f"({error}); move the file away and run again, or restore a copy of it"
            ) from None

    def put(self, request: Request, completion: Completion) -> None:
        """Keep a completed answer; a key that is already there keeps its first answer.

        Raises:
            StoreError: it cannot be written.
        """
        self._write(
            "INSERT INTO answers VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
            request.key,
            canonical_json(str(request.model)),
            request.canonical,
            canonical_json(asdict(completion)),
            completion.created,
        )

    def image_digest(self, stamp: str) -> str | None:
        """SHA-256 of an image that was read and found good under this stamp.

        Raises:
            StoreError: it cannot be read.
        """
        return self._one("SELECT sha256 FROM images WHERE stamp = ?", canonical_json(stamp))

    def put_image_digest(self, stamp: str, sha256: str) -> None:
        """Remember that the image of this stamp has this digest and passed every check.

        Raises:
            StoreError: it cannot be written.
        """
        self._write("INSERT OR REPLACE INTO images VALUES (?, ?)", canonical_json(stamp), sha256)

    def begin_attempt(self, identity: str, design: str) -> AttemptHistory:
        """Count a run that begins now, and give those before it with the same identity.

        `identity` is a digest of data, model and judge. `design` says what is asked of them:
        `all`, or a sample in words.

        Raises:
            StoreError: it cannot be written.
        """
        with self._lock, _explained(self.path), _transaction(self._connection):
            rows = self._connection.execute(
                "SELECT design FROM attempts WHERE identity = ? ORDER BY number", (identity,)
            ).fetchall()
            self._connection.execute(
                "INSERT INTO attempts (identity, design, started) VALUES (?, ?, ?)",
                (identity, design, time.time()),
            )
        return AttemptHistory(design, len(rows), tuple(dict.fromkeys(row[0] for row in rows)))

    def _one(self, query: str, key: str) -> str | None:
        with self._lock, _explained(self.path):
            row = self._connection.execute(query, (key,)).fetchone()
        return None if row is None else row[0]

    def _write(self, statement: str, *values: str | float) -> None:
        with self._lock, _explained(self.path):
            self._connection.execute(statement, values)


def _protect(path: Path) -> None:
    """Make file and folder private, and keep the folder out of version control.

    Raises:
        OSError: they cannot be made.
        ValueError: the path is a folder, or no path at all.
    """
    if path.is_dir():
        raise ValueError("it is a folder; name a file in it")
    folder = path.parent
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = not folder.exists()
    folder.mkdir(mode=0o700, exist_ok=True)
    if made or folder.name == FOLDER:
        with suppress(FileExistsError), (folder / ".gitignore").open("x") as file:
            file.write("*\n")
    path.touch(mode=0o600)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        with suppress(PermissionError):  # somebody else's file, who decides about it
            path.chmod(0o600)


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    """Check whose file this is, and bring it up to date; fails at once on one not writable."""
    with _transaction(connection):
        version = _pragma(connection, "user_version")
        application = _pragma(connection, "application_id")
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application != _APPLICATION and (application or version or tables):
            raise StoreError(f"the store {path} {_TROUBLES[sqlite3.SQLITE_NOTADB]}")
        if version > len(_MIGRATIONS):
            raise StoreError(
                f"the store {path} was written by a newer pytest-mirsafety (version {version} of "
                f"its format, this one knows {len(_MIGRATIONS)}): upgrade, or name another file"
            )
        for statements in _MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        # Written whatever they are: a transaction alone does not fail on a file that is read-only.
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):  # some errors have rolled back already
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.Error as error:
        trouble = _TROUBLES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        raise StoreError(f"the store {path} {trouble or f'failed: {error}'}") from error


def _decode(text: str) -> Completion:
    """The completion of this JSON.

    Raises:
        ValueError: it is no JSON.
        TypeError: it is another kind of JSON, or a field is missing, unknown or of another type.
    """
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise TypeError("it is no JSON object")
    return Completion(**fields)
