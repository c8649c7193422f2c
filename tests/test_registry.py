"""A user's own module may do anything: what comes of it is an adapter, or one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scripted import ScriptedBackend, ScriptedJudge

from pytest_mirsafety.backend_building import BackendContext, NamedModel
from pytest_mirsafety.config import ModelSettings, Settings
from pytest_mirsafety.errors import ConfigurationError, DataError, FilteredError
from pytest_mirsafety.records import ModelIdentity, Scalar
from pytest_mirsafety.registry import (
    build_backend,
    build_judge,
    find_judge,
    find_model,
)

CONTEXT = BackendContext((), Path(), {"SOME_KEY": "hunter2"})
HALF = "\udcff"


class Skipped(BaseException):
    """No Exception, as the skips of a test runner are none."""


def backend_of(path: str) -> object:
    return build_backend(NamedModel("own", ModelSettings(provider=path, model="m")), CONTEXT)


def judge_of(path: str) -> object:
    return build_judge(find_judge(path, Settings()), Settings())


BUILDS = [backend_of, judge_of]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], object]], str]:
    """Names a module of a user's own with this factory."""

    def name(factory: Callable[[Any], object]) -> str:
        module = ModuleType("somebodys")
        module.factory = factory  # type: ignore[attr-defined]  # a module has any attribute
        monkeypatch.setitem(sys.modules, "somebodys", module)
        return "somebodys:factory"

    return name


def line_of(call: Callable[[], object]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        call()
    line = str(caught.value)
    assert line.isprintable()
    assert len(line) <= 400
    return line


RAISED = [
    ZeroDivisionError("two\nlines"),
    SystemExit(0),
    SystemExit(3),
    Skipped("not today"),
    FilteredError("withheld"),
    RecursionError(HALF),
]


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("error", RAISED, ids=repr)
def test_whatever_a_factory_raises_is_one_line(
    made: Callable[[Callable[[Any], object]], str],
    build: Callable[[str], object],
    error: BaseException,
) -> None:
    def factory(_: object) -> object:
        raise error

    path = made(factory)
    line = line_of(lambda: build(path))
    assert f"'somebodys:factory' failed: {type(error).__name__}" in line


@pytest.mark.parametrize("build", BUILDS)
def test_what_a_factory_says_of_the_run_is_passed_on(
    made: Callable[[Callable[[Any], object]], str], build: Callable[[str], object]
) -> None:
    def factory(_: object) -> object:
        raise DataError("the weights are gone")

    path = made(factory)
    with pytest.raises(DataError, match="the weights are gone"):
        build(path)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("raise SystemExit", "SystemExit"),
        ("import pytest; pytest.skip('no', allow_module_level=True)", "Skipped"),
        ("import no_such_module_at_all", "No module named 'no_such_module_at_all'"),
        ("x = 1", "has no attribute 'factory'"),
        ("factory = 1", "is not callable"),
    ],
)
def test_whatever_a_module_does_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    build: Callable[[str], object],
    source: str,
    named: str,
) -> None:
    (tmp_path / "broken_of_mine.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_of_mine", raising=False)
    line = line_of(lambda: build("broken_of_mine:factory"))
    assert "broken_of_mine:factory" in line
    assert named in line


def test_an_interruption_is_no_error_of_the_factory(
    made: Callable[[Callable[[Any], object]], str],
) -> None:
    def factory(_: object) -> object:
        raise KeyboardInterrupt

    path = made(factory)
    with pytest.raises(KeyboardInterrupt):
        backend_of(path)


NOT_COUNTS: list[object] = [0, -1, True, 2.0, "4", None]
NOT_BOOLS: list[object] = [0, 1, None, "False"]
WRONG_IN_BACKENDS: Mapping[str, list[object]] = {
    "identity": [
        "gpt",
        None,
        ModelIdentity("own", ""),
        ModelIdentity("own", HALF),
        ModelIdentity("own", "m", revision=7),  # type: ignore[arg-type]  # a user's own
    ],
    "system": [b"Be brief.", 0, HALF],
    "decoding": [
        None,
        [("temperature", 0)],
        {"temperature": float("nan")},
        {"temperature": float("-inf")},
        {"stop": ["a"]},
        {"extra": {}},
        {"stop": HALF},
        {"seed": 10**5000},
        {0: 1},
    ],
    "greedy": NOT_BOOLS,
    "cacheable": NOT_BOOLS,
    "needs_bytes": NOT_BOOLS,
    "concurrency": NOT_COUNTS,
    "complete": [None, "x"],
    "aclose": [None],
}
WRONG_IN_JUDGES: Mapping[str, list[object]] = {
    "identity": ["", " \n", None, 7, HALF, ModelIdentity("own", "m")],
    "screening": NOT_BOOLS,
    "concurrency": NOT_COUNTS,
    "judge": [None],
    "aclose": [None, "x"],
}
WRONG = [
    (build, kind, member, value)
    for build, kind, table in (
        (backend_of, ScriptedBackend, WRONG_IN_BACKENDS),
        (judge_of, ScriptedJudge, WRONG_IN_JUDGES),
    )
    for member, values in table.items()
    for value in values
]


@pytest.mark.parametrize(("build", "kind", "member", "value"), WRONG)
def test_a_member_that_cannot_be_used_is_named(
    made: Callable[[Callable[[Any], object]], str],
    build: Callable[[str], object],
    kind: type,
    member: str,
    value: object,
) -> None:
    adapter = kind()
    setattr(adapter, member, value)
    path = made(lambda _: adapter)
    assert f"'somebodys:factory': {member} must be " in line_of(lambda: build(path))


@pytest.mark.parametrize("build", BUILDS)
def test_what_is_no_adapter_is_named(
    made: Callable[[Callable[[Any], object]], str], build: Callable[[str], object]
) -> None:
    path = made(lambda _: None)
    assert "it made NoneType, which has no identity" in line_of(lambda: build(path))


def test_a_member_that_raises_is_named(
    made: Callable[[Callable[[Any], object]], str],
) -> None:
    class Lazy(ScriptedJudge):
        @property
        def judge(self) -> Any:
            raise SystemExit(0)

    path = made(lambda _: Lazy())
    assert "failed: SystemExit: 0" in line_of(lambda: judge_of(path))


def test_an_adapter_that_has_everything_is_given_back(
    made: Callable[[Callable[[Any], object]], str],
) -> None:
    decoding: dict[str, Scalar] = {
        "temperature": 0,
        "top_p": 0.5,
        "stop": "x",
        "greedy": True,
        "seed": None,
    }
    backend = ScriptedBackend(decoding=decoding, system="")
    assert backend_of(made(lambda _: backend)) is backend
    judge = ScriptedJudge()
    assert judge_of(made(lambda _: judge)) is judge


LONG = "x" * 501


def named(call: Callable[[], str]) -> str | None:
    """What the call gives; None where the name is refused in one line."""
    try:
        return call()
    except ConfigurationError as error:
        line = str(error)
    assert line.isprintable()
    assert len(line) <= 400
    return None


@given(st.text(st.characters(), max_size=40))
@example(HALF)
@example(LONG)
@example(f"openai:{LONG}")
@example("openai:a\udcff")
@example("replay:\ud800")
@example("http://h/v1#\udcff")
@example("http://\udcff/v1#m")
@example(f"http://{LONG}/v1")
@example(f"{'a' * 501}:factory")
@example(f"no.module:{'f' * 501}")
def test_any_name_is_a_model_or_one_line(text: str) -> None:
    assert named(lambda: find_model(text, Settings()).name) in (text, None)


@given(st.text(st.characters(), max_size=40))
@example(HALF)
@example(LONG)
@example("")
def test_any_name_is_a_judge_or_one_line(text: str) -> None:
    found = named(lambda: build_judge(find_judge(text, Settings()), Settings()).identity)
    assert found is None or text == "rules"


def test_the_environment_is_not_shown() -> None:
    assert "hunter2" not in repr(CONTEXT)
    assert CONTEXT.environ["SOME_KEY"] == "hunter2"
