"""Puts instances together into a dataset: ids, order, identity, and equal requests."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Final

from ..digests import canonical_json
from ..errors import DataError
from ..printable import one_line
from ..records import Dataset, ImageRef, Instance
from ..taxonomy import Category, Relation
from .fields import Record, malformed, shown

MAX_ID_LENGTH: Final = 200
MAX_IMAGES: Final = 16

_LINE_LIMIT: Final = 500

_ID = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")
_NUMBERS = re.compile(r"([0-9]+)")
_CATEGORIES: Final = {category: rank for rank, category in enumerate(Category)}
_RELATIONS: Final = {relation: rank for rank, relation in enumerate(Relation)}


class Assembly:
    """Instances as they are read, each checked against the rules and against the others."""

    def __init__(self) -> None:
        self._instances: list[Instance] = []
        self._places: dict[str, str] = {}
        self._questions: dict[str, str] = {}

    def add(self, record: Record, instance: Instance) -> None:
        """Take the instance that a record describes.

        Raises:
            DataError: its id is malformed or taken, or its number of images is out of range.
        """
        if (problem := _id_problem(instance.id)) is not None:
            raise record.error(problem)
        if not 1 <= len(instance.images) <= MAX_IMAGES:
            raise record.error(
                f"has {len(instance.images)} images; an instance has 1 to {MAX_IMAGES}"
            )
        if (first := self._places.setdefault(instance.id, record.place)) != record.place:
            raise record.error(f"the id '{instance.id}' is already used by {first}")
        self._instances.append(instance)

    def question(self, record: Record, field: str) -> str:
        """The record's seed question; instances that share one share its memory."""
        text = record.text(field)
        return self._questions.setdefault(text, text)

    def dataset(
        self,
        source: str,
        *,
        name: str | None,
        revision: str | None = None,
        warnings: Sequence[str] = (),
    ) -> Dataset:
        """Everything taken so far, as a dataset.

        Raises:
            DataError: nothing was taken, or a dataset without a name holds one request twice.
        """
        if not self._instances:
            raise malformed(source, "holds no instances")
        instances = tuple(sorted(self._instances, key=natural_order))
        notes = list(warnings)
        if pairs := equal_requests(instances):
            one, other = pairs[0]
            if name is None:
                raise _twice(source, one, other)
            notes.append(
                f"{source}: {len(pairs)} instance(s) ask the same as another one, such as "
                f"'{other}' and '{one}'"
            )
        lines = tuple(one_line(note, _LINE_LIMIT) for note in notes)
        return Dataset(source, name, identity(instances), instances, revision, lines)


def check(dataset: Dataset) -> Dataset:
    """The same dataset, if it keeps the rules; for datasets that were built elsewhere.

    Raises:
        DataError: a malformed or duplicate id, no instances, an identity that is not theirs, or
            two that ask the same.
    """
    assembly = Assembly()
    for number, instance in enumerate(dataset.instances, start=1):
        assembly.add(Record(f"{dataset.source}, instance {number}", {}), instance)
    if not dataset.instances:
        raise malformed(dataset.source, "holds no instances")
    if dataset.identity != (own := identity(dataset.instances)):
        raise malformed(
            dataset.source,
            f"the identity is {shown(dataset.identity)} but that of its instances is '{own}'",
        )
    if pairs := equal_requests(dataset.instances):
        raise _twice(dataset.source, *pairs[0])
    return dataset


def _twice(source: str, one: str, other: str) -> DataError:
    return malformed(
        source,
        f"'{one}' and '{other}' ask the same: equal prompts and equal images in the same order; "
        "remove one of them",
    )


def identity(instances: Iterable[Instance]) -> str:
    """SHA-256 (hex) of the instances' canonical JSON, a list in id order.

    Each instance gives [id, relation, category, question, prompt, number of images]. Images'
    bytes are left out: they are read at send time, and the keys of the requests hold them.
    """
    total = hashlib.sha256(b"[")
    for number, i in enumerate(sorted(instances, key=lambda i: i.id)):
        row = [i.id, i.relation.value, i.category.value, i.question, i.prompt, len(i.images)]
        total.update(b"," if number else b"")
        total.update(canonical_json(row).encode())
    total.update(b"]")
    return total.hexdigest()


def natural_order(instance: Instance) -> tuple[int, int, list[tuple[int, str]], str]:
    """Sorts by category, relation, and id with its numbers taken as numbers."""
    parts = _NUMBERS.split(instance.id)
    natural = [(int(p), "") if n % 2 else (0, p) for n, p in enumerate(parts)]
    return (
        _CATEGORIES[instance.category],
        _RELATIONS[instance.relation],
        natural,
        instance.id,
    )


def equal_requests(instances: Iterable[Instance]) -> list[tuple[str, str]]:
    """Ids (first, again) of instances that would send the same prompt and the same images.

    Images are the same when they are one file, or when their declared digests are equal.
    """
    seen: dict[tuple[object, ...], str] = {}
    pairs: dict[str, str] = {}
    for instance in instances:
        for images in _fingerprints(instance.images):
            first = seen.setdefault((instance.prompt, images), instance.id)
            if first != instance.id:
                pairs.setdefault(instance.id, first)
    return [(first, again) for again, first in pairs.items()]


def _fingerprints(images: Sequence[ImageRef]) -> Iterable[tuple[object, ...]]:
    yield tuple((id(image.source), image.locator) for image in images)
    if all(image.sha256 for image in images):
        yield tuple(image.sha256 for image in images)


def _id_problem(text: str) -> str | None:
    if len(text) > MAX_ID_LENGTH:
        return f"the id {shown(text)} is longer than {MAX_ID_LENGTH} characters"
    if _ID.fullmatch(text) is None:
        return f"the id {shown(text)} may hold letters A-Z a-z, digits and . _ - only, parted by /"
    if any(set(part) == {"."} for part in text.split("/")):
        return f"the id {shown(text)} has a part of dots only"
    return None
