"""Digests of values and of texts: what requests, instances and runs are known by."""

from __future__ import annotations

import hashlib
import json
from typing import Final

# One of our own: a test that replaces json.dumps must not change what a request is known by.
_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return _ENCODER.encode(value)


def digest(value: object) -> str:
    """SHA-256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def text_digest(text: str) -> str:
    """SHA-256 (hex) of a text's UTF-8, also of one with half a surrogate pair."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
