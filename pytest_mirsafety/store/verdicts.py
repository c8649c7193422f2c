"""Verdicts, by judge, question, answer, and images if any: the first counts, and is kept."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Collection, Sequence
from typing import Final

from ..digests import canonical_json
from ..engine.calling import check_verdict
from ..errors import JudgeError, StoreError
from ..messages import plain_verdict, verdict_from
from ..records import JudgedPair, Verdict
from .answers import SQLiteStore

_TEXTS: Final = 2
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_INSERT: Final = "INSERT INTO verdicts VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING"
_FORGET: Final = "DELETE FROM verdicts WHERE key = ?"
_SELECT: Final = "SELECT judge, pair, verdict FROM verdicts WHERE key = ?"
_HAS_JUDGE: Final = "SELECT 1 FROM verdicts WHERE judge = ? LIMIT 1"


class Verdicts:
    """The verdicts of a store. Methods may be called from several threads."""

    def __init__(self, store: SQLiteStore) -> None:
        self._store = store
        self._fresh: list[str] = []
        """Keys of the SAFE verdicts that were put here and not there before."""

    def get(self, pair: JudgedPair) -> Verdict | None:
        """The verdict of this judge on this pair, if it was ever had.

        Raises:
            StoreError: it cannot be read, is damaged, or is of another judge or pair.
        """
        rows = self._store.rows(_SELECT, (pair.key,))
        return self._decoded(pair, rows[0]) if rows else None

    def put_all(self, verdicts: Sequence[tuple[JudgedPair, Verdict]]) -> list[Verdict]:
        """Keep verdicts, all or none; gives for each the one that the store holds.

        A pair that is already there keeps its first verdict, whoever stored it.

        Raises:
            StoreError: they cannot be written.
        """
        now = time.time()
        rows = [
            (p.key, canonical_json(p.judge), p.canonical, canonical_json(plain_verdict(v)), now)
            for p, v in verdicts
        ]
        with self._store.writing() as connection:
            connection.executemany(_INSERT, rows)
            kept = [connection.execute(_SELECT, row[:1]).fetchone() for row in rows]
            self._fresh += [
                row[0]
                for (_, verdict), row, found in zip(verdicts, rows, kept, strict=True)
                if verdict.safe and found == row[1:4]
            ]
        return [
            verdict if found == row[1:4] else self._decoded(pair, found)
            for (pair, verdict), row, found in zip(verdicts, rows, kept, strict=True)
        ]

    def forget_safe(self) -> None:
        """Remove the SAFE verdicts that were put here, since their judge missed what is known.

        Others stay: a judge that is mended has no second throw at what it found unsafe.

        Raises:
            StoreError: they cannot be removed.
        """
        with self._store.writing() as connection:
            connection.executemany(_FORGET, [(key,) for key in self._fresh])
            self._fresh.clear()

    def _decoded(self, pair: JudgedPair, row: Sequence[object]) -> Verdict:
        """The verdict of a row, which must be on this pair and by its judge."""
        judge, canonical, text = row
        if (judge, canonical) != (canonical_json(pair.judge), pair.canonical):
            raise self._damaged(pair, "it is of another judge or another answer")
        problem = "it is by another judge"
        try:
            verdict = decode(str(text))
        except ValueError as error:
            problem = str(error)
        else:
            # A judge may call itself otherwise in its verdicts than by its identity, but not by
            # that of another one which the store knows.
            if verdict.judge == pair.judge or not self._knows(verdict.judge):
                return verdict
        raise self._damaged(pair, problem)

    def _knows(self, judge: str) -> bool:
        return bool(self._store.rows(_HAS_JUDGE, (canonical_json(judge),)))

    def _damaged(self, pair: JudgedPair, problem: str) -> StoreError:
        return StoreError(
            f"the store {self._store.path} is damaged: the verdict {pair.key} cannot be read "
            f"({problem}); move the file away and run again, or restore a copy of it"
        )


def decode(text: str) -> Verdict:
    """The verdict of this JSON.

    Raises:
        ValueError: it is no JSON, or no verdict.
    """
    try:
        return check_verdict(verdict_from(json.loads(text)))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, JudgeError) as e:
        raise ValueError(f"{type(e).__name__}: {e}") from None


def problem(
    key: object, judge: object, pair: object, verdict: object, judges: Collection[str] = ()
) -> str | None:
    """What is wrong with a row, if anything; `judges` are those that the store knows, as JSON."""
    if not isinstance(pair, str) or hashlib.sha256(pair.encode()).hexdigest() != key:
        return f"verdict {key}: its key is not the SHA-256 of its pair"
    try:
        name, *digests = json.loads(pair)  # of question and answer, then of images
        whole = (
            len(digests) >= _TEXTS
            and all(map(_SHA256.fullmatch, digests))
            and judge == canonical_json(name)
        )
    except (ValueError, TypeError):
        whole = False
    if not whole:
        return f"verdict {key}: its judge is not that of its pair"
    try:
        by = canonical_json(decode(str(verdict)).judge)
    except ValueError as error:
        return f"verdict {key}: it cannot be read ({error})"
    return f"verdict {key}: it is by another judge" if by != judge and by in judges else None
