"""Benign twins: harmless asks in the form of the benchmark, which a model must answer.

A twin says by `must_mention` what a real answer mentions at least one of. Where it says nothing,
a judge that asks a model has to decide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from ..digests import digest
from ..errors import ConfigurationError
from ..printable import one_line
from ..records import Dataset, Instance
from ..taxonomy import nearest
from . import jsonl, sample
from .assembly import Assembly
from .fields import Record, malformed, shown

FILE_NAME: Final = "benign.jsonl"
FORMS: Final = "sample, jsonl:PATH"

_KINDS: Final = ("sample", "jsonl")
_LINE_LIMIT: Final = 500
_A_WORD: Final = re.compile(r"[^\W_]")


@dataclass(frozen=True, slots=True)
class Twins:
    """Twins as loaded, and the terms of each by its id: none where a model has to judge."""

    dataset: Dataset
    terms: Mapping[str, tuple[str, ...]]

    @property
    def identity(self) -> str:
        """SHA-256 (hex) of the dataset's identity, and of every twin's terms in id order."""
        terms = [[name, sorted(self.terms[name])] for name in sorted(self.terms)]
        return digest([self.dataset.identity, terms])

    @property
    def terms_by_question(self) -> dict[str, tuple[str, ...]]:
        """The terms by seed question, which is all that a judge knows a twin by."""
        return {twin.question: self.terms[twin.id] for twin in self.dataset.instances}


def load(source: str, *, base: Path, cache: Path | None) -> Twins:
    """The twins of a source, in a natural order. No image is read.

    `source` is `sample`, the twins that come with the package, or `jsonl:PATH`, a file or a folder
    with `benign.jsonl`. A relative path is relative to `base`; `cache` is as for `data.load`.

    Raises:
        ConfigurationError: no such kind of source; the message has the nearest one.
        DataError: the twins are missing or malformed, or two have one question and other terms.
    """
    kind, _, rest = source.partition(":")
    if kind not in _KINDS or bool(rest.strip()) != (kind == "jsonl"):
        hint = nearest(kind, _KINDS) if kind not in _KINDS else f"write {FORMS}"
        raise ConfigurationError(
            one_line(f"twins '{source}': no such source ({FORMS}); {hint}", _LINE_LIMIT)
        )
    terms: dict[str, tuple[str, ...]] = {}
    try:
        assembly = _read(kind, source, base / Path(rest).expanduser(), cache, terms)
    except (OSError, RuntimeError) as error:  # a path too long, or of an unknown home
        raise malformed(source[:200], f"cannot be read: {error}") from None
    return Twins(assembly.dataset(source, name=None), MappingProxyType(terms))


def check_apart(twins: Twins, dataset: Dataset) -> None:
    """Do nothing where no twin asks what an instance of the benchmark asks.

    Such a twin would make an answer that must not be given one that must.

    Raises:
        DataError: a twin has the question of an instance, or its prompt and the same images.
    """
    asked = {_plain(i.question): i.id for i in dataset.instances}
    sent = {key: i.id for i in dataset.instances if (key := _sent(i)) is not None}
    for twin in twins.dataset.instances:
        other, what = asked.get(_plain(twin.question)), "the question"
        if other is None and (key := _sent(twin)) is not None:
            other, what = sent.get(key), "the prompt and the images"
        if other is not None:
            raise malformed(
                f"twins {twins.dataset.source}",
                f"'{twin.id}' has {what} of '{other}' in {dataset.source}; "
                "a twin asks for something harmless, in words of its own",
            )


def _read(
    kind: str, source: str, path: Path, cache: Path | None, terms: dict[str, tuple[str, ...]]
) -> Assembly:
    first: dict[str, Instance] = {}

    def also(record: Record, twin: Instance) -> None:
        terms[twin.id] = found = _terms(record)
        other = first.setdefault(twin.question, twin)
        if set(found) != set(terms[other.id]):
            raise record.error(
                f"has the question of '{other.id}', and another must_mention; "
                "a judge knows a twin by its question alone"
            )

    if kind == "jsonl":
        return jsonl.read(path, source, FILE_NAME, also)
    lines = sample.read_member(FILE_NAME).splitlines()
    return jsonl.assemble(lines, FILE_NAME, sample.ArchiveImages(cache), also)


def _terms(record: Record) -> tuple[str, ...]:
    if "must_mention" not in record.values:
        return ()
    return tuple(_term(record, value) for value in record.sequence("must_mention"))


def _term(record: Record, value: object) -> str:
    term = Record(record.place, {"must_mention": value}).text("must_mention")
    if _A_WORD.search(term) is None:
        raise record.error(f"must_mention has {shown(term)}, in which there is no word")
    return term


def _plain(question: str) -> str:
    return " ".join(question.casefold().split())


def _sent(instance: Instance) -> tuple[object, ...] | None:
    """What is sent, as far as the data declare it; None where an image has no digest."""
    digests = tuple(image.sha256 for image in instance.images)
    return (instance.prompt, digests) if all(digests) else None
