"""Calls a loader of the user's own, which may do anything, and checks what it returns."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Final

from ..errors import ConfigurationError, RunError
from ..printable import one_line
from ..records import MULTI, Dataset, ImageRef, Instance
from ..taxonomy import Category, Relation
from .assembly import check
from .fields import Record, malformed, shown

_LINE_LIMIT: Final = 500
_SHA256 = re.compile(r"[0-9a-f]{64}")


class MissingModuleError(ConfigurationError):
    """There is no such module where Python looks for it."""


def load(source: str, base: Path) -> Dataset:
    """The dataset that `module:attribute`, called with `base`, returns.

    Raises:
        ConfigurationError: it cannot be imported or called, or returns no Dataset.
        DataError: an instance is malformed, or two ask the same.
    """
    try:
        return _load(source, base)
    except (RunError, KeyboardInterrupt):
        raise
    except BaseException as error:
        problem = f"{type(error).__name__}: {error}".rstrip(": ")
        raise _refusal(source, f"cannot be loaded: {problem}") from error


def _load(source: str, base: Path) -> Dataset:
    module_name, _, attribute = source.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        problem = (
            f"data '{source}': cannot be imported: {error}. The module must be importable: "
            "installed, or in a folder of PYTHONPATH, such as PYTHONPATH=."
        )
        raise MissingModuleError(one_line(problem, _LINE_LIMIT)) from None
    own = getattr(module, attribute, None)
    if not callable(own):
        raise _refusal(source, f"{module_name} has no such callable")
    dataset = own(base)
    if not isinstance(dataset, Dataset):
        raise _refusal(source, f"must return a Dataset, not {type(dataset).__name__}")
    _check_dataset(source, dataset)
    return check(dataset)


def _refusal(source: str, problem: str) -> ConfigurationError:
    return ConfigurationError(one_line(f"data '{source}': {problem}", _LINE_LIMIT))


def _check_dataset(source: str, dataset: Dataset) -> None:
    """Check the types that annotations promise and nothing enforces."""
    record = Record(source, {})
    _check_type(record, "source", dataset.source, str)
    _check_type(record, "identity", dataset.identity, str)
    _check_type(record, "instances", dataset.instances, tuple)
    _check_type(record, "warnings", dataset.warnings, tuple)
    for line in dataset.warnings:
        _check_type(record, "warnings", line, str)
    for field in ("name", "revision"):
        if (value := getattr(dataset, field)) is not None:
            _check_type(record, field, value, str)
    for number, instance in enumerate(dataset.instances, start=1):
        _check_instance(f"{dataset.source}, instance {number}", instance)


def _check_instance(place: str, instance: object) -> None:
    if not isinstance(instance, Instance):
        raise malformed(place, f"must be an Instance, not {shown(instance)}")
    texts = ("id", "question", "prompt")
    record = Record(place, {field: getattr(instance, field) for field in texts})
    for field in texts:
        record.text(field)
    _check_type(record, "relation", instance.relation, Relation)
    _check_type(record, "category", instance.category, Category)
    _check_type(record, "images", instance.images, tuple)
    if instance.draw != 0:  # trials number their own draws
        raise record.error(f"field 'draw' must be 0, not {shown(instance.draw)}")
    if (instance.arm, instance.system, instance.composed) != (MULTI, None, False):
        raise record.error("arm, system and composed are set by arms, not by data")
    for image in instance.images:
        _check_image(record, image)


def _check_image(record: Record, image: object) -> None:
    if not isinstance(image, ImageRef):
        raise record.error(f"an image must be an ImageRef, not {shown(image)}")
    _check_type(record, "name of an image", image.name, str)
    _check_type(record, "locator of an image", image.locator, str)
    if not all(callable(getattr(image.source, do, None)) for do in ("stamp", "read", "path")):
        raise record.error("the source of an image must have stamp, read and path")
    digest: object = image.sha256
    if digest is not None and not (isinstance(digest, str) and _SHA256.fullmatch(digest)):
        raise record.error(f"sha256 must be 64 digits 0-9 a-f, not {shown(digest)}")


def _check_type(record: Record, field: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise record.error(f"field '{field}' must be a {kind.__name__}, not {shown(value)}")
