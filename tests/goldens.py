"""Files that a report must equal to the byte; MIRSAFETY_WRITE_GOLDEN=1 writes them anew."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"


def check(name: str, text: str) -> None:
    """The text is what the file has; look at the difference before you write it anew."""
    path = FOLDER / name
    if os.environ.get("MIRSAFETY_WRITE_GOLDEN"):
        path.write_text(text, encoding="utf-8", newline="\n")
    assert text == path.read_text("utf-8")
