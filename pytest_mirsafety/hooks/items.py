"""Which instance an item was parametrized with, and the marks it shares with others."""

from __future__ import annotations

import functools

import pytest

from ..records import Instance


def instance_of(item: pytest.Item) -> Instance | None:
    """The instance that this item was parametrized with, if any."""
    callspec = getattr(item, "callspec", None)
    value = callspec.params.get("instance") if callspec is not None else None
    return value if isinstance(value, Instance) else None


@functools.cache
def mark(name: str) -> pytest.Mark:
    """The one Mark of this name, shared by all items: fresh ones cost memory and time."""
    found: pytest.Mark = getattr(pytest.mark, name).mark
    return found
