"""What people do to a store between runs: look, remove, take out, and check."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ..digests import canonical_json
from ..errors import StoreError
from ..records import ModelIdentity
from .answers import ALL, count_attempts, decode
from .attention import AttentionUpkeep
from .file import KNOWS_SHARDS, check, connect, explained, transaction
from .verdict_upkeep import VerdictSelection, VerdictUpkeep

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_SUMMARY: Final = (
    "SELECT model, count(*), min(created), max(created), "
    "sum(length(CAST(request AS BLOB)) + length(CAST(completion AS BLOB))) FROM answers"
)


@dataclass(frozen=True, slots=True)
class ModelAnswers:
    """The answers of one model; times in seconds since the epoch, size in bytes."""

    model: str
    answers: int
    first: float
    last: float
    size: int


@dataclass(frozen=True, slots=True)
class Attempts:
    """Those over one identity of data, model and judge; `about` has it in words, if known.

    `designs` are distinct, oldest first; `asked` has them in words, with the number of runs.
    """

    identity: str
    number: int
    first: float
    last: float
    designs: tuple[str, ...]
    about: str | None = None
    asked: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Selection:
    """Which answers are meant: of these models (None: of all), had before this time."""

    models: tuple[str, ...] | None = None
    before: float | None = None

    @property
    def condition(self) -> tuple[str, list[str | float]]:
        """As SQL, with its values."""
        parts: list[str] = []
        values: list[str | float] = []
        if self.models is not None:
            parts.append(f"model IN ({','.join('?' * len(self.models))})")
            values += map(canonical_json, self.models)
        if self.before is not None:
            parts.append("created < ?")
            values.append(self.before)
        return " AND ".join(parts) or "true", values


class StoreUpkeep:
    """A store that is there, opened to be looked at, or `alone` to be changed."""

    def __init__(self, path: Path, connection: sqlite3.Connection, version: int) -> None:
        self.path = path
        self._connection = connection
        self._version = version
        self.verdicts = VerdictUpkeep(path, connection, version)
        self.attention = AttentionUpkeep(path, connection)

    @classmethod
    def open(cls, path: Path, *, alone: bool = False, patience: float = 2.0) -> StoreUpkeep:
        """Open a store; none is ever made. `alone` makes sure that no run has it open.

        Raises:
            StoreError: it is not there, no store, of a newer version, or in use.
        """
        if not path.is_file():
            raise StoreError(f"there is no store {path}; name one with --store=FILE")
        connection = connect(path, patience=patience)
        try:
            restraint = "locking_mode = EXCLUSIVE" if alone else "query_only = ON"
            connection.execute(f"PRAGMA {restraint}")
            version = check(path, connection)
        except BaseException:
            connection.close()
            raise
        return cls(path, connection, version)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def models(self, selection: Selection = Selection()) -> list[ModelAnswers]:
        """The models that have such answers, by name.

        Raises:
            StoreError: the store cannot be read.
        """
        condition, values = selection.condition
        query = f"{_SUMMARY} WHERE {condition} GROUP BY model ORDER BY model"
        with explained(self.path):
            rows = self._connection.execute(query, values).fetchall()
        return [ModelAnswers(_name(row[0]), *row[1:]) for row in rows]

    def named(self, pattern: str) -> tuple[str, ...]:
        """The models of this name, or else those that fit it as a pattern (`openai:*`).

        Raises:
            StoreError: there is none, or the store cannot be read.
        """
        models = [found.model for found in self.models()]
        if pattern in models:
            return (pattern,)
        if fitting := tuple(m for m in models if fnmatch.fnmatchcase(m, pattern)):
            return fitting
        raise StoreError(
            f"the store {self.path} has no answer of such a model; mirsafety store list"
        )

    def attempts(self) -> list[Attempts]:
        """The attempts that were counted, by identity, the latest last.

        Raises:
            StoreError: the store cannot be read.
        """
        shard = "shard" if self._version >= KNOWS_SHARDS else "NULL"
        query = f"SELECT identity, design, {shard}, started FROM attempts ORDER BY number"  # noqa: S608 - ours
        with explained(self.path):
            rows = self._connection.execute(query).fetchall()
            words = self._words()
        found: dict[str, list[tuple[str, str | None, float]]] = {}
        for identity, *run in rows:
            found.setdefault(identity, []).append((run[0], run[1], run[2]))
        attempts = [
            Attempts(
                identity=identity,
                number=count_attempts((design, shard) for design, shard, _ in runs),
                first=min(started for *_, started in runs),
                last=max(started for *_, started in runs),
                designs=tuple(dict.fromkeys(design for design, *_ in runs)),
                about=words.get(identity),
                asked=tuple(Counter(_asked(design, words) for design, *_ in runs).items()),
            )
            for identity, runs in found.items()
        ]
        return sorted(attempts, key=lambda a: a.last)

    def _words(self) -> dict[str, str]:
        """What identities and designs stand for; a store of an older version does not know."""
        query = "SELECT count(*) FROM sqlite_master WHERE name = 'words'"
        if not self._connection.execute(query).fetchone()[0]:
            return {}
        rows = self._connection.execute("SELECT name, text FROM words").fetchall()
        return {name: _name(text) for name, text in rows}

    def prune(
        self, selection: Selection | None = None, verdicts: VerdictSelection | None = None
    ) -> None:
        """Remove these answers and verdicts, and give their space back; None stands for none.

        What was measured behind answers goes with them. Attempts stay: they happened.

        Raises:
            StoreError: the store cannot be written.
        """
        with explained(self.path):
            with transaction(self._connection):
                if selection is not None:
                    condition, values = selection.condition
                    self._connection.execute(f"DELETE FROM answers WHERE {condition}", values)  # noqa: S608 - ours
                    self.attention.delete_orphans()
                if verdicts is not None:
                    self.verdicts.delete(verdicts)
            self._connection.execute("VACUUM")

    def lines(self, selection: Selection = Selection()) -> Iterator[str]:
        """Each answer as a line of JSON, ASCII only, in the order in which they were stored.

        Raises:
            StoreError: the store cannot be read, or an answer in it is damaged.
        """
        condition, values = selection.condition
        query = f"SELECT key, request, completion FROM answers WHERE {condition} ORDER BY rowid"  # noqa: S608 - ours
        with explained(self.path):
            for key, request, completion in self._connection.execute(query, values):
                if (problem := _problem(key, request, completion)) is not None:
                    raise StoreError(f"the store {self.path} is damaged: {problem}")
                # Written anew: what is in the file need not be one line.
                yield canonical_json(
                    {
                        "key": key,
                        "model": str(_model(request)),
                        "request": json.loads(request),
                        "completion": json.loads(completion),
                    }
                )

    def problems(self) -> Iterator[str]:
        """What is wrong with the file, line by line; nothing when all is well."""
        looks = (
            *(self._damage, self._wrong_answers, self._wrong_images),
            *(self.verdicts.problems, self.attention.problems),
        )
        for look in looks:
            try:
                with explained(self.path):
                    yield from look()
            except StoreError as error:
                yield str(error)

    def _damage(self) -> Iterator[str]:
        for (found,) in self._connection.execute("PRAGMA integrity_check"):
            if found != "ok":
                yield from str(found).splitlines()

    def _wrong_answers(self) -> Iterator[str]:
        rows = self._connection.execute("SELECT key, request, completion, model FROM answers")
        for key, request, completion, model in rows:
            if (problem := _problem(key, request, completion)) is not None:
                yield problem
            elif model != canonical_json(str(_model(request))):
                yield f"answer {key}: its model is not that of its request"

    def _wrong_images(self) -> Iterator[str]:
        for stamp, sha256 in self._connection.execute("SELECT stamp, sha256 FROM images"):
            if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
                yield f"image {stamp}: its digest is no SHA-256"


def _asked(design: str, words: Mapping[str, str]) -> str:
    """What the runs of a design asked, in words."""
    if design == ALL:
        return "all instances"
    unknown = f"a sample ({design[:12]})" if _SHA256.fullmatch(design) else design
    return words.get(design, unknown)


def _name(model: object) -> str:
    """A model's identity as it was before it became JSON."""
    try:
        return str(json.loads(str(model)))
    except ValueError:
        return str(model)


def _model(request: str) -> ModelIdentity:
    """The model of a request that was found whole."""
    return ModelIdentity(*json.loads(request)["model"])


def _problem(key: object, request: object, completion: object) -> str | None:
    if not isinstance(request, str) or hashlib.sha256(request.encode()).hexdigest() != key:
        return f"answer {key}: its key is not the SHA-256 of its request"
    try:
        _model(request)
    except (ValueError, TypeError, LookupError) as error:
        return f"answer {key}: its request cannot be read ({error})"
    try:
        decode(str(completion))
    except (ValueError, TypeError) as error:
        return f"answer {key}: it cannot be read ({error})"
    return None
