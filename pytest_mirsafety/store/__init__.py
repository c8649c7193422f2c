"""The store of answers: one SQLite file, private, that survives a killed run.

Answers are kept by request key, image digests by stamp, and runs are counted as attempts.
"""

from __future__ import annotations

from .answers import ALL, AttemptHistory, SQLiteStore
from .file import FOLDER

__all__ = ["ALL", "FOLDER", "AttemptHistory", "SQLiteStore"]
