"""The store's file: its format, how it is made and opened, and its troubles in our words.

It is in WAL mode, so that several runs may share it; a commit survives the death of the
process, and the last ones may be lost with the machine, never half-written.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from ..errors import StoreError
from ..printable import one_line

FOLDER: Final = ".mirsafety"
"""The folder that is ours by name; another one is ours, to keep out of git, if made here."""

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
    ("ALTER TABLE attempts ADD COLUMN shard TEXT",),  # such as 2/4; NULL: a whole run, or unknown
    (
        """CREATE TABLE words (
            name TEXT PRIMARY KEY,     -- an attempt's identity or design
            text TEXT NOT NULL         -- JSON, ASCII only: what it is, for people
        ) WITHOUT ROWID""",
    ),
    (
        """CREATE TABLE verdicts (
            key TEXT PRIMARY KEY,      -- SHA-256 of `pair`
            judge TEXT NOT NULL,       -- JSON, ASCII only
            pair TEXT NOT NULL,        -- canonical JSON: judge, and digests of question and answer
            verdict TEXT NOT NULL,     -- JSON, ASCII only
            created REAL NOT NULL      -- seconds since the epoch
        )""",
    ),
)

KNOWS_SHARDS: Final = 2
"""The first version that has this column."""

KNOWS_VERDICTS: Final = 4
"""The first version that has this table."""

_DAMAGED: Final = "is damaged; move it away and run again, or restore a copy of it"

_TROUBLES: Final[Mapping[int, str]] = {
    sqlite3.SQLITE_NOTADB: "is not a store of answers; move it away, or name another file",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_BUSY: "is locked by another process; wait for it to end, then run again",
    sqlite3.SQLITE_LOCKED: "is locked by another process; wait for it to end, then run again",
    sqlite3.SQLITE_READONLY: "cannot be written; check the permissions of file and folder",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; check the permissions of file and folder",
    sqlite3.SQLITE_PERM: "cannot be opened; check the permissions of file and folder",
    sqlite3.SQLITE_FULL: "cannot grow: the disk is full; free some space, then run again (what "
    "was answered is kept)",
    sqlite3.SQLITE_IOERR: "cannot be read or written (input/output error); check the disk, its "
    "free space and its quota",
}


def connect(path: Path, *, patience: float = 10.0) -> sqlite3.Connection:
    """A connection to a file that is there; none is ever made.

    It may write, also where it is only to read: the last one to close takes the log away, which
    a killed run may have left. `patience` is how many seconds a lock held by another process is
    waited for. Several threads may use it, one at a time.

    Raises:
        StoreError: it cannot be opened.
    """
    with explained(path):
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=patience,
            isolation_level=None,
            check_same_thread=False,
        )


def provide(path: Path) -> None:
    """Make file and folder if they are not there, private and out of version control.

    Raises:
        StoreError: they cannot be made, or the path is a folder, or no path at all.
    """
    try:
        _provide(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StoreError(f"the store {path} cannot be opened: {reason}") from None


def _provide(path: Path) -> None:
    if path.is_dir():
        raise ValueError("it is a folder; name a file in it")
    folder = path.parent
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = not folder.exists()
    folder.mkdir(mode=0o700, exist_ok=True)
    if made or folder.name == FOLDER:
        with suppress(FileExistsError), (folder / ".gitignore").open("x") as file:
            file.write("*\n")
    if not path.exists():
        _create(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        with suppress(PermissionError):  # somebody else's file, who decides about it
            path.chmod(0o600)


def _create(path: Path) -> None:
    """Put a whole store in its place in one step, unless another run was first.

    So a file without content is never one that was just begun: it was cut off, and is refused.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    os.close(handle)
    draft = Path(name)
    try:
        with closing(connect(draft)) as connection:
            _migrate(draft, connection, 0)
        with suppress(FileExistsError):
            try:
                path.hardlink_to(draft)
            except FileExistsError:
                raise
            except OSError:  # a file system without links
                with path.open("xb") as file:
                    file.write(draft.read_bytes())
    finally:
        draft.unlink()


def prepare(path: Path, connection: sqlite3.Connection) -> None:
    """Check whose file this is, and bring it up to date; fails at once on one not writable.

    Raises:
        StoreError: it is no store, or of a newer version, or not writable.
    """
    with explained(path):
        _migrate(path, connection, check(path, connection))
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")


def check(path: Path, connection: sqlite3.Connection) -> int:
    """The version of the file's format; it is a store, and not of a newer version.

    Raises:
        StoreError: it is no store, or of a newer version, or cannot be read.
    """
    with explained(path):
        version = _pragma(connection, "user_version")
        if _pragma(connection, "application_id") != _APPLICATION:
            if not path.stat().st_size:
                raise StoreError(
                    f"the store {path} is empty, as no store is: it was cut off; restore a copy of "
                    "it, or remove it and run again"
                )
            raise StoreError(f"the store {path} {_TROUBLES[sqlite3.SQLITE_NOTADB]}")
        connection.execute("SELECT * FROM sqlite_master").fetchall()  # fails if it is damaged
    if version > len(_MIGRATIONS):
        raise StoreError(
            f"the store {path} was written by a newer pytest-mirsafety (version {version} of "
            f"its format, this one knows {len(_MIGRATIONS)}): upgrade, or name another file"
        )
    return version


def _migrate(path: Path, connection: sqlite3.Connection, version: int) -> None:
    with explained(path), transaction(connection):
        if version:  # another run may have been here since
            version = check(path, connection)
        for statements in _MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        # Written whatever they are: a transaction alone does not fail on a file that is read-only.
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it is written, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # some errors have rolled back already
            connection.execute("ROLLBACK")
        raise


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise trouble(path, error) from None


def trouble(path: Path, error: sqlite3.Error) -> StoreError:
    """What this error of SQLite means for a user."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None and isinstance(error, sqlite3.OperationalError):
        words = _DAMAGED  # text that is no UTF-8: Python's own error, and it quotes the text
    else:
        words = _TROUBLES.get((code or 0) & 0xFF) or f"failed: {one_line(str(error))}"
    return StoreError(f"the store {path} {words}")
