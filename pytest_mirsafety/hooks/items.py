"""Which instance an item was parametrized with, and the marks that it shares with others."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Final

import pytest

from ..records import Instance
from ..taxonomy import Category, Relation

FIXTURES: Final = ("instance", "twin")
"""The fixtures that have one parameter for each planned instance of their arms."""


def instance_of(item: pytest.Item) -> Instance | None:
    """The instance that this item was parametrized with, if any."""
    callspec = getattr(item, "callspec", None)
    if callspec is None:
        return None
    values = (callspec.params.get(name) for name in FIXTURES)
    return next((value for value in values if isinstance(value, Instance)), None)


@functools.cache
def marks(relation: Relation, category: Category, arm: str) -> tuple[pytest.Mark, ...]:
    """The marks of all items of this cell and arm: fresh ones for each cost memory and time."""
    names = (relation, relation.group, category, arm)
    return tuple(getattr(pytest.mark, name).mark for name in names)


def register_arms(config: pytest.Config, instances: Iterable[Instance]) -> None:
    """Let pytest know the markers of these instances' arms, which may be a user's own."""
    for arm in dict.fromkeys(instance.arm for instance in instances):
        config.addinivalue_line("markers", f"{arm}: arm, a way of asking the instances")
