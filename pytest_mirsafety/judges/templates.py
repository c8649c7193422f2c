"""HarmBench's template, which is not ours: found in a model's card or a file by its SHA-256."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import ConfigurationError, MissingExtraError
from ..printable import one_line

OFFICIAL: Final = "4016eb2e1758f37cfbf37f0e1540f15f26857e048c28e69796c23337ae0a285a"
"""Of the official template's text, with {behavior} and {generation} left in (UTF-8)."""

_PLACES: Final = re.compile(r"\{(behavior|generation)\}")
_FENCED: Final = re.compile(
    r"^ {0,3}(`{3,}|~{3,})[^\n]*\n(.*?)^ {0,3}\1[`~]*[ \t]*$", re.MULTILINE | re.DOTALL
)
_QUOTED: Final = re.compile(r"'''(.*?)'''|\"\"\"(.*?)\"\"\"", re.DOTALL)
_MOST_BYTES: Final = 2**20
_REPOSITORY: Final = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Template:
    """A template with places for {behavior} and {generation}."""

    text: str

    @property
    def sha256(self) -> str:
        """Of its text in UTF-8."""
        return _sha256(self.text)

    @property
    def official(self) -> bool:
        """It is HarmBench's own."""
        return self.sha256 == OFFICIAL

    def fill(self, behavior: str, generation: str) -> str:
        """The text with both put in as they are, braces and all; nothing is put in twice."""
        values = {"behavior": behavior, "generation": generation}
        return _PLACES.sub(lambda place: values[place[1]], self.text)


def find(source: str, base: Path, digest: str = OFFICIAL) -> Template:
    """The template with this SHA-256 in `hub:ORG/NAME@COMMIT`'s card, or in a file.

    Raises:
        ConfigurationError: it is not there; the message names both digests.
        MissingExtraError: huggingface_hub is not installed.
    """
    path = _card(source) if source.startswith("hub:") else base / source
    try:
        content = path.read_bytes()[: _MOST_BYTES + 1]
    except OSError as error:
        raise _wrong(source, f"cannot be read: {error.strerror or error}") from None
    if len(content) > _MOST_BYTES:
        raise _wrong(source, "is longer than 1 MiB")
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise _wrong(source, "is not UTF-8") from None
    wanted = digest.removeprefix("sha256:")
    nearest = None
    for candidate in _candidates(text):
        found = _sha256(candidate)
        if found == wanted:
            return _checked(source, candidate)
        nearest = nearest or found
    if nearest is None:
        nearest = f"no {{behavior}} with {{generation}} in it, and {_sha256(text)} of all of it"
    raise _wrong(source, f"has no text with the SHA-256 {wanted}; found {nearest}", 600)


def _checked(source: str, text: str) -> Template:
    if {place[1] for place in _PLACES.finditer(text)} != {"behavior", "generation"}:
        raise _wrong(source, "needs both {behavior} and {generation}")
    return Template(text)


def _wrong(source: str, problem: str, limit: int = 400) -> ConfigurationError:
    return ConfigurationError(one_line(f"template '{one_line(source, 120)}' {problem}", limit))


def _candidates(text: str) -> Iterator[str]:
    """Texts that may be the template, with both of its places: the smallest parts first."""
    seen = set()
    for part in (*_strings(text), *_blocks(text), text):
        for candidate in (part, part.strip("\n"), part.strip()):
            places = "{behavior}" in candidate and "{generation}" in candidate
            if places and candidate not in seen:
                seen.add(candidate)
                yield candidate


def _blocks(text: str) -> Iterator[str]:
    return (match[2] for match in _FENCED.finditer(text))


def _strings(text: str) -> Iterator[str]:
    """The string literals of Python, in fenced blocks or as a whole; else what quotes hold."""
    for source in (*_blocks(text), text):
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            yield from (match[1] or match[2] or "" for match in _QUOTED.finditer(source))
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def _card(source: str) -> Path:
    """The README of a model at a commit, in the hub client's own cache."""
    named = _REPOSITORY.fullmatch(source.removeprefix("hub:"))
    if named is None:
        raise _wrong(source, "is not hub:ORGANIZATION/NAME@COMMIT with a commit of 40 digits")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        raise MissingExtraError(f"fetching a model's card ({source})", "hub") from None
    # HfHubHTTPError's bases are OSError and the HTTP client's own base error.
    failed: tuple[type[BaseException], ...] = (*HfHubHTTPError.__bases__, OSError, ValueError)
    try:
        return Path(hf_hub_download(named[1], "README.md", revision=named[2]))
    except failed as error:
        problem = f"cannot be fetched: {type(error).__name__}: {error}"
    raise _wrong(source, problem)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
