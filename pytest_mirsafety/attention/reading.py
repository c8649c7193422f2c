"""What a run folder has of attention, for a page: the picture, and what it shows in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from ..entropies import PICTURE, SUMMARY

_LIMIT: Final = 16 * 2**20
_PNG: Final = b"\x89PNG\r\n\x1a\n"


def picture(folder: Path) -> tuple[bytes, str] | None:
    """The heatmap as PNG and its description; None where the folder has none that can be read."""
    try:
        document = json.loads(_bounded(folder / SUMMARY))
        content = _bounded(folder / PICTURE)
    except (OSError, ValueError, RecursionError):
        return None
    told = document.get("picture") if isinstance(document, dict) else None
    words = told.get("alternative") if isinstance(told, dict) else None
    if not isinstance(words, str) or not content.startswith(_PNG):
        return None
    return content, words


def _bounded(path: Path) -> bytes:
    """The bytes of a regular file that is not too large.

    Raises:
        OSError: it is another, or cannot be read.
    """
    if not path.is_file() or path.stat().st_size > _LIMIT:
        raise OSError(0, "is none that is shown")
    return path.read_bytes()
