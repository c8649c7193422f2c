"""Instances as pytest items: one parameter each, with shared marks."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import pytest

from ..records import Instance


def instance_of(item: pytest.Item) -> Instance | None:
    """The instance that this item was parametrized with, if any."""
    callspec = getattr(item, "callspec", None)
    value = callspec.params.get("instance") if callspec is not None else None
    return value if isinstance(value, Instance) else None


def instance_fixture(instances: Sequence[Instance]) -> object:
    """A plugin whose `instance` fixture has one parameter per instance.

    A class of its own each time: pytest looks fixtures up on the type of a plugin object. A
    fixture, not pytest_generate_tests: a user's own `instance` fixture must stay the user's.
    """

    @pytest.fixture(params=instances, ids=[instance.id for instance in instances])
    def instance(_: object, request: pytest.FixtureRequest) -> Instance:
        """One instance of the benchmark; a test that takes it runs once for each."""
        found: Instance = request.param
        return found

    return type("InstanceFixture", (), {"instance": instance})()


@functools.cache
def mark(name: str) -> pytest.Mark:
    """The one Mark of this name, shared by all items: fresh ones cost memory and time."""
    found: pytest.Mark = getattr(pytest.mark, name).mark
    return found
