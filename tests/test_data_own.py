"""A loader of the user's own: what it may return, and how it is told what it may not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_mirsafety import data
from pytest_mirsafety.data.assembly import identity
from pytest_mirsafety.errors import ConfigurationError, DataError, MissingExtraError
from pytest_mirsafety.protocols import ImageSource
from pytest_mirsafety.records import Dataset, ImageRef, Instance
from pytest_mirsafety.taxonomy import Category, Relation


class NoImages:
    def stamp(self, locator: str) -> str:
        return locator

    def read(self, locator: str) -> bytes:
        return locator.encode()

    def path(self, locator: str) -> Path | None:  # noqa: ARG002 - the protocol's
        return None


def own_suite(base: Path) -> Dataset:
    source: ImageSource = NoImages()
    instance = Instance(
        "team/1",
        Relation.JUMP,
        Category.PRIVACY,
        "Question",
        base.name,
        (ImageRef("a", "a", source),),
    )
    return Dataset("own", None, identity([instance]), (instance,))


def wrong_identity(base: Path) -> Dataset:
    return replace(own_suite(base), identity="0" * 64)


def wrong_id(base: Path) -> Dataset:
    [instance] = own_suite(base).instances
    return replace(own_suite(base), instances=(replace(instance, id="a b"),))


def twice(base: Path) -> Dataset:
    return replace(own_suite(base), instances=own_suite(base).instances * 2)


def another_draw(base: Path) -> Dataset:
    [instance] = own_suite(base).instances
    return replace(own_suite(base), instances=(replace(instance, draw=1),))


def empty(base: Path) -> Dataset:
    return Dataset("own", None, identity([]), ())


def no_dataset(base: Path) -> object:
    return base


def test_a_loader_of_ones_own_gets_the_base(tmp_path: Path) -> None:
    dataset = data.load(f"{__name__}:own_suite", base=tmp_path)
    assert [i.prompt for i in dataset.instances] == [tmp_path.name]


@pytest.mark.parametrize(
    ("name", "error", "problem"),
    [
        ("wrong_identity", DataError, "own: the identity is '000"),
        ("wrong_id", DataError, "own, instance 1: the id 'a b'"),
        ("twice", DataError, "own, instance 2: the id 'team/1' is already used"),
        ("another_draw", DataError, "own, instance 1: field 'draw' must be 0, not 1"),
        ("empty", DataError, "own: holds no instances"),
        ("no_dataset", ConfigurationError, "must return a Dataset, not"),
    ],
)
def test_a_loader_of_ones_own_keeps_the_rules(
    tmp_path: Path, name: str, error: type[Exception], problem: str
) -> None:
    with pytest.raises(error) as caught:
        data.load(f"{__name__}:{name}", base=tmp_path)
    assert problem in str(caught.value)


def with_changes(base: Path, **changes: Any) -> Dataset:
    """The suite with these fields of its instance changed, of whatever type."""
    [instance] = own_suite(base).instances
    return replace(own_suite(base), instances=(replace(instance, **changes),))


def suite_with(base: Path, **changes: Any) -> Dataset:
    """The suite with these fields of its own changed, of whatever type."""
    return replace(own_suite(base), **changes)


def equal_requests(base: Path) -> Dataset:
    [instance] = own_suite(base).instances
    instances = (instance, replace(instance, id="team/2", question="Another question"))
    return Dataset("own", "mine", identity(instances), instances)


def test_equal_requests_are_refused_as_in_a_private_suite(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^own: 'team/1' and 'team/2' ask the same"):
        data.load(f"{__name__}:equal_requests", base=tmp_path)


Loader = Callable[[Path], object]

WRONG_TYPES: dict[str, tuple[Loader, str]] = {
    "no instance": (lambda b: suite_with(b, instances=(3,)), "an Instance, not 3"),
    "a list": (lambda b: suite_with(b, instances=[]), "'instances' must be a tuple"),
    "name": (lambda b: suite_with(b, name=3), "'name' must be a str, not 3"),
    "source": (lambda b: suite_with(b, source=None), "'source' must be a str"),
    "revision": (lambda b: suite_with(b, revision=3), "'revision' must be a str"),
    "identity": (lambda b: suite_with(b, identity=None), "'identity' must be a str"),
    "warnings": (lambda b: suite_with(b, warnings="x"), "'warnings' must be a tuple"),
    "warning": (lambda b: suite_with(b, warnings=(3,)), "'warnings' must be a str"),
    "id": (lambda b: with_changes(b, id=3), "own, instance 1: field 'id' must be text, not 3"),
    "prompt": (lambda b: with_changes(b, prompt=None), "'prompt' must be text, not None"),
    "blank prompt": (lambda b: with_changes(b, prompt=" "), "'prompt' is empty"),
    "surrogate": (lambda b: with_changes(b, prompt="\udcff"), "holds a lone surrogate"),
    "question": (lambda b: with_changes(b, question=b), "'question' must be text"),
    "relation": (lambda b: with_changes(b, relation="jump"), "must be a Relation, not 'jump'"),
    "category": (lambda b: with_changes(b, category=None), "must be a Category, not None"),
    "images": (lambda b: with_changes(b, images="ab"), "'images' must be a tuple, not 'ab'"),
    "image": (lambda b: with_changes(b, images=("a",)), "must be an ImageRef, not 'a'"),
    "locator": (lambda b: with_changes(b, images=(image(locator=3),)), "'locator of an image'"),
    "file": (lambda b: with_changes(b, images=(image(name=b),)), "'name of an image'"),
    "reader": (lambda b: with_changes(b, images=(image(source=b),)), "stamp, read and path"),
    "digest": (lambda b: with_changes(b, images=(image(sha256="A"),)), "64 digits 0-9 a-f"),
}


def image(**changes: Any) -> ImageRef:
    return replace(ImageRef("a", "a", NoImages()), **changes)


def load_with(loader: Loader, base: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setattr(sys.modules[__name__], "loader", loader, raising=False)
    return data.load(f"{__name__}:loader", base=base)


@pytest.mark.parametrize("name", WRONG_TYPES)
def test_wrong_types_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    loader, problem = WRONG_TYPES[name]
    with pytest.raises(DataError) as caught:
        load_with(loader, tmp_path, monkeypatch)
    assert problem in str(caught.value)
    assert str(caught.value).isprintable()


RAISED = [
    ValueError("two\nlines"),
    SystemExit(0),
    MemoryError(),
    RecursionError("deep"),
    ModuleNotFoundError("No module named 'gone'", name="gone"),
    pytest.skip.Exception("not today"),
    pytest.exit.Exception("bye"),
]


@pytest.mark.parametrize("error", RAISED, ids=repr)
def test_whatever_a_loader_raises_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(_: Path) -> object:
        raise error

    with pytest.raises(ConfigurationError) as caught:
        load_with(fail, tmp_path, monkeypatch)
    message = str(caught.value)
    assert message.startswith(f"data '{__name__}:loader': cannot be loaded: {type(error).__name__}")
    assert message.isprintable()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MissingExtraError("it", "hub")])
def test_an_interrupt_and_our_own_errors_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(_: Path) -> object:
        raise error

    with pytest.raises(type(error)) as caught:
        load_with(fail, tmp_path, monkeypatch)
    assert caught.value is error


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("import sys; sys.exit(0)", "cannot be loaded: SystemExit: 0"),
        ("1 / 0", "cannot be loaded: ZeroDivisionError"),
        ("import no_such_thing", "cannot be loaded: ModuleNotFoundError: No module named 'no_s"),
        ("def __getattr__(name): raise OSError(name)", "cannot be loaded: OSError: load"),
        ("(", "cannot be loaded: SyntaxError"),
        ("load = 3", "has no such callable"),
        ("def load(base): yield", "must return a Dataset, not generator"),
    ],
)
def test_a_module_that_cannot_be_used_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, problem: str
) -> None:
    (tmp_path / "folders.py").write_text(body, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "folders", raising=False)
    with pytest.raises(ConfigurationError) as caught:
        data.load("folders:load", base=tmp_path)
    assert str(caught.value).startswith("data 'folders:load': ")
    assert problem in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "text", ["no_such_module:load", "my.suites:load", "json.nope:load", "json.decoder.x:load"]
)
def test_a_module_that_is_not_found_has_to_be_importable(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        data.load(text, base=tmp_path)
    message = str(caught.value)
    assert message.startswith(f"data '{text}': cannot be imported: No module named")
    assert "PYTHONPATH=." in message
