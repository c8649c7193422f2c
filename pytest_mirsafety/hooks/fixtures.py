"""The fixtures of a working run: `mllm`, `judge`; `instance` and `twin` with one parameter each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from ..arms import ArmKind, kind_of
from ..errors import UnscoredError
from ..records import Instance, Response, Verdict

if TYPE_CHECKING:
    from .testing import Testing


class Model:
    """What the `mllm` fixture gives: call it with an instance."""

    def __init__(self, testing: Testing) -> None:
        self._testing = testing

    def __call__(self, instance: Instance) -> Response:
        """The model's response to this instance.

        An instance with another prompt or other images (`dataclasses.replace`) is asked on the
        spot and enters no gate.

        Raises:
            UnscoredError: there is no answer; the instance is reported as unscored.
        """
        __tracebackhide__ = True
        try:
            return self._testing.answer(instance)
        except UnscoredError as error:
            raise type(error)(error.detail) from None  # the reader wants the reason, not our frames


class InstanceJudge:
    """What the `judge` fixture gives: call it with an instance and a response."""

    def __init__(self, testing: Testing) -> None:
        self._testing = testing

    def __call__(self, instance: Instance, response: Response) -> Verdict:
        """The judge's verdict on this response.

        Raises:
            UnscoredError: the answer was cut off, blank or filtered, or the judge failed.
        """
        __tracebackhide__ = True
        try:
            return self._testing.verdict(instance, response)
        except UnscoredError as error:
            raise type(error)(error.detail) from None


def fixtures_module(testing: Testing, instances: Sequence[Instance]) -> ModuleType:
    """A plugin that holds the fixtures.

    A module, since pytest looks for the fixtures of other objects on their type, where these,
    which differ from run to run, cannot be. And fixtures, not pytest_generate_tests: a user's own
    `instance` must stay the user's.
    """
    module = ModuleType("mirsafety_fixtures")

    @pytest.fixture(scope="session")
    def mllm() -> Model:
        """The model under test: `mllm(instance)` gives its response."""
        return Model(testing)

    @pytest.fixture(scope="session")
    def judge() -> InstanceJudge:
        """The judge: `judge(instance, response)` gives its verdict."""
        return InstanceJudge(testing)

    by_kind = {kind: [i for i in instances if kind_of(i.arm) is kind] for kind in ArmKind}

    def each(kind: ArmKind) -> Callable[[Callable[[], Instance]], object]:
        known = by_kind[kind]
        if not known:
            return _not_asked
        return pytest.fixture(params=known, ids=[instance.id for instance in known])

    @each(ArmKind.SAFETY)
    def instance() -> Instance:
        """One instance of the benchmark, in one arm; a test that takes it runs once for each."""
        return testing.instance  # not request.param: pytest would inspect signatures for each item

    @each(ArmKind.TWIN)
    def twin() -> Instance:
        """One benign twin, which must be answered; a test that takes it runs once for each."""
        return testing.instance

    vars(module).update(mllm=mllm, judge=judge, instance=instance, twin=twin)
    return module


def _not_asked(function: Callable[[], Instance]) -> object:
    """A fixture in place of this one, for a run without any of its instances."""

    @pytest.fixture(name=function.__name__)
    def none() -> None:
        pytest.skip(f"this run asks no {function.__name__}: see --mir-arm")

    return none
