"""Reads JSON text and the fields of one record; an error names the file and the record."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, TypeVar

from ..errors import DataError
from ..printable import one_line
from ..taxonomy import Category, Relation, nearest, parse_category, parse_relation

_LINE_LIMIT: Final = 500
_VALUE_LIMIT: Final = 60

_Word = TypeVar("_Word", Relation, Category)


def malformed(place: str, problem: str) -> DataError:
    """The error for something wrong at `place`, on one line."""
    return DataError(one_line(f"{place}: {problem}", _LINE_LIMIT))


def shown(value: object) -> str:
    """A hostile value, short and fit for a message."""
    return one_line(repr(value), _VALUE_LIMIT)


def read_text(path: Path, name: str) -> str:
    """The UTF-8 text of a file; `name` is what messages call it.

    Raises:
        DataError: the file cannot be read, or is not UTF-8.
    """
    try:
        return decode_text(path.read_bytes(), name)
    except OSError as error:
        raise malformed(name, f"cannot be read: {error.strerror or error}") from None


def decode_text(content: bytes, name: str) -> str:
    """Bytes as UTF-8 text, without a byte order mark; `name` is what messages call them.

    Raises:
        DataError: the bytes are not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise malformed(name, f"is not UTF-8 text (byte {error.start + 1})") from None


def parse_json(text: str, file: str, line: int | None = None) -> object:
    """The value of a JSON text: all of `file`, or its line `line`.

    Raises:
        DataError: not JSON, a key given twice, or a number that JSON does not have.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        where = f"{file}, line {line or error.lineno}"
        raise malformed(where, f"not valid JSON: {error.msg} (column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        where = file if line is None else f"{file}, line {line}"
        problem = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise malformed(where, f"not valid JSON: {problem}") from None


def _unique(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {shown(key)} is given twice")
        found[key] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a dataset; `place` is how messages name it, such as `a.json, record 12`."""

    place: str
    values: Mapping[str, object]

    @classmethod
    def from_value(cls, value: object, place: str) -> Record:
        """The record that a parsed JSON value holds.

        Raises:
            DataError: the value is no object.
        """
        if not isinstance(value, dict):
            raise malformed(place, f"must be an object, not {shown(value)}")
        return cls(place, value)

    def error(self, problem: str) -> DataError:
        """The error for something wrong in this record."""
        return malformed(self.place, problem)

    def check_keys(self, required: Collection[str], optional: Collection[str]) -> None:
        """Refuse a key that nobody knows: it may be a misspelt one.

        Raises:
            DataError: an unknown key; the message has the nearest valid one.
        """
        for key in self.values:
            if key not in required and key not in optional:
                hint = nearest(key, [*required, *optional])
                raise self.error(f"unknown field {shown(key)}; {hint}")

    def value(self, field: str) -> object:
        """The field's value, whatever it is.

        Raises:
            DataError: there is no such field.
        """
        if field not in self.values:
            hint = nearest(field, self.values)
            hint = f"; {hint}" if hint.startswith("did you") else ""
            raise self.error(f"field '{field}' is missing{hint}")
        return self.values[field]

    def text(self, field: str) -> str:
        """A text with something in it.

        Raises:
            DataError: missing, no text, blank, or not valid Unicode.
        """
        value = self.value(field)
        if not isinstance(value, str):
            raise self.error(f"field '{field}' must be text, not {shown(value)}")
        if not value.strip():
            raise self.error(f"field '{field}' is empty")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise self.error(f"field '{field}' holds a lone surrogate") from None
        return value

    def count(self, field: str) -> int:
        """A whole number.

        Raises:
            DataError: missing, or not a whole number.
        """
        value = self.value(field)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(f"field '{field}' must be a whole number, not {shown(value)}")
        return value

    def sequence(self, field: str) -> list[object]:
        """A list.

        Raises:
            DataError: missing, or not a list.
        """
        value = self.value(field)
        if not isinstance(value, list):
            raise self.error(f"field '{field}' must be a list, not {shown(value)}")
        return value

    def relation(self, field: str) -> Relation:
        """A relation, in upstream's spelling or ours.

        Raises:
            DataError: no such relation; the message has the nearest spelling.
        """
        try:
            return parse_relation(self.text(field))
        except ValueError as error:
            raise self.error(str(error)) from None

    def category(self, field: str) -> Category:
        """A category, in upstream's spelling or ours.

        Raises:
            DataError: no such category; the message has the nearest spelling.
        """
        try:
            return parse_category(self.text(field))
        except ValueError as error:
            raise self.error(str(error)) from None

    def agree(self, field: str, found: _Word, expected: _Word, source: str) -> None:
        """Check a field against what `source`, such as the file's name, says.

        Raises:
            DataError: they differ.
        """
        if found is not expected:
            raise self.error(f"field '{field}' is '{found.label}' but {source} '{expected.label}'")

    def upstream_id(self) -> str:
        """The field `id` as upstream writes it: a number, or text that is fit for an id.

        Raises:
            DataError: missing, or neither.
        """
        value = self.value("id")
        if isinstance(value, str):
            # Upstream's extraction turns "012" into 12; the same instance keeps one id.
            is_number = value.isascii() and value.isdigit() and len(value) < _LONGEST_NUMBER
            return str(int(value)) if is_number else value
        return str(self.count("id"))


_LONGEST_NUMBER: Final = 19
