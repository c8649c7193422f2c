"""What people do to the kept verdicts between runs: look, remove, take out, and check."""

from __future__ import annotations

import fnmatch
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..digests import canonical_json
from ..errors import StoreError
from .file import KNOWS_VERDICTS, explained
from .verdicts import problem

_SUMMARY: Final = (
    "SELECT judge, count(*), min(created), max(created), "
    "sum(length(CAST(pair AS BLOB)) + length(CAST(verdict AS BLOB))) FROM verdicts"
)


@dataclass(frozen=True, slots=True)
class JudgeVerdicts:
    """The verdicts of one judge; times in seconds since the epoch, size in bytes."""

    judge: str
    verdicts: int
    first: float
    last: float
    size: int


@dataclass(frozen=True, slots=True)
class VerdictSelection:
    """Which verdicts are meant: of these judges (None: of all), had before this time."""

    judges: tuple[str, ...] | None = None
    before: float | None = None

    @property
    def condition(self) -> tuple[str, list[str | float]]:
        """As SQL, with its values."""
        parts: list[str] = []
        values: list[str | float] = []
        if self.judges is not None:
            parts.append(f"judge IN ({','.join('?' * len(self.judges))})")
            values += map(canonical_json, self.judges)
        if self.before is not None:
            parts.append("created < ?")
            values.append(self.before)
        return " AND ".join(parts) or "true", values


class VerdictUpkeep:
    """The verdicts of a store that is open; one of an older version has none."""

    def __init__(self, path: Path, connection: sqlite3.Connection, version: int) -> None:
        self._path = path
        self._connection = connection
        self._known = version >= KNOWS_VERDICTS

    def judges(self, selection: VerdictSelection = VerdictSelection()) -> list[JudgeVerdicts]:
        """The judges that have such verdicts, by name.

        Raises:
            StoreError: the store cannot be read.
        """
        condition, values = selection.condition
        query = f"{_SUMMARY} WHERE {condition} GROUP BY judge ORDER BY judge"
        rows = self._rows(query, values)
        return [JudgeVerdicts(_name(judge), *rest) for judge, *rest in rows]

    def named(self, pattern: str) -> tuple[str, ...]:
        """The judges of this name, or else those that fit it as a pattern (`harmbench*`).

        Raises:
            StoreError: there is none, or the store cannot be read.
        """
        judges = [found.judge for found in self.judges()]
        if pattern in judges:
            return (pattern,)
        if fitting := tuple(j for j in judges if fnmatch.fnmatchcase(j, pattern)):
            return fitting
        raise StoreError(
            f"the store {self._path} has no verdict of such a judge; mirsafety store list"
        )

    def delete(self, selection: VerdictSelection) -> None:
        """Remove these, in the transaction that is open.

        Raises:
            StoreError: the store cannot be written.
        """
        condition, values = selection.condition
        if self._known:
            with explained(self._path):
                self._connection.execute(f"DELETE FROM verdicts WHERE {condition}", values)  # noqa: S608 - ours

    def lines(self, selection: VerdictSelection = VerdictSelection()) -> Iterator[str]:
        """Each verdict as a line of JSON, ASCII only, in the order in which they were stored.

        Raises:
            StoreError: the store cannot be read, or a verdict in it is damaged.
        """
        condition, values = selection.condition
        query = (
            "SELECT key, judge, pair, verdict, created FROM verdicts "  # noqa: S608 - ours
            f"WHERE {condition} ORDER BY rowid"
        )
        for *row, created in self._rows(query, values):
            if (wrong := problem(*row)) is not None:
                raise StoreError(f"the store {self._path} is damaged: {wrong}")
            key, _, pair, verdict = row
            judge, question, answer, *images = json.loads(str(pair))
            yield canonical_json(
                {
                    "key": key,
                    "judge": judge,
                    "question": question,
                    "answer": answer,
                    **({"images": images} if images else {}),
                    "verdict": json.loads(str(verdict)),
                    "created": created,
                }
            )

    def problems(self) -> Iterator[str]:
        """What is wrong with them, line by line; nothing when all is well."""
        known = {str(row[0]) for row in self._rows("SELECT DISTINCT judge FROM verdicts", [])}
        for row in self._rows("SELECT key, judge, pair, verdict FROM verdicts", []):
            key, judge, pair, verdict = row
            if (wrong := problem(key, judge, pair, verdict, known)) is not None:
                yield wrong

    def _rows(self, query: str, values: list[str | float]) -> Iterator[tuple[Any, ...]]:
        if self._known:
            with explained(self._path):
                yield from self._connection.execute(query, values)


def _name(judge: object) -> str:
    """A judge's identity as it was before it became JSON."""
    try:
        return str(json.loads(str(judge)))
    except ValueError:
        return str(judge)
