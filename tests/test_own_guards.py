"""A function of a user's own as a guard, and the safety prompt."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from test_defences import SAFE, UNSAFE, opinion, picture

from pytest_mirsafety.defences.guarding import Content, Opinion
from pytest_mirsafety.defences.own import OwnGuard
from pytest_mirsafety.defences.safety_prompt import SAFETY_PROMPT, joined
from pytest_mirsafety.errors import ConfigurationError, JudgeError
from pytest_mirsafety.records import LoadedImage


def words(prompt: str, images: Sequence[LoadedImage], answer: str = "") -> bool | str:
    return "a bad word" if "bad" in prompt + answer else len(images) > 2


async def words_async(prompt: str, images: Sequence[LoadedImage]) -> bool | str:
    return words(prompt, images)


@pytest.mark.parametrize("function", [words, words_async])
def test_a_function_blocks_with_true_or_a_reason(
    function: Callable[..., bool | str],
) -> None:
    guard = OwnGuard(function, "mine:words")
    assert opinion(guard, Content("good")) == Opinion(SAFE, "")
    assert opinion(guard, Content("bad")) == Opinion(UNSAFE, "a bad word")
    three = tuple(map(picture, "abc"))
    assert opinion(guard, Content("good", three)) == Opinion(UNSAFE, "mine:words blocked it")
    asyncio.run(guard.aclose())


def test_a_function_after_the_model_gets_the_answer() -> None:
    guard = OwnGuard(words, "mine:words")
    assert opinion(guard, Content("good", (), "bad")).kind is UNSAFE
    assert opinion(guard, Content("good", (), "good")).kind is SAFE


@pytest.mark.parametrize("told", [None, "", " ", 0, 1, [], b"x", Opinion(SAFE)])
def test_anything_else_is_a_failure_of_it(told: object) -> None:
    def guard(prompt: str, images: object) -> object:
        return told

    guard.identity = "says what it is told"  # type: ignore[attr-defined]
    with pytest.raises(JudgeError, match="must be True or a reason"):
        opinion(OwnGuard(guard, "mine:guard"), Content("good"))


def test_a_function_that_hangs_is_left_behind() -> None:
    begun, end = threading.Event(), threading.Event()

    def hangs(prompt: str, images: object) -> bool:
        begun.set()
        return end.wait(30)

    hangs.identity = "hangs"  # type: ignore[attr-defined]

    async def cancelled() -> None:
        check = asyncio.create_task(OwnGuard(hangs, "mine:hangs").check(Content("good")))
        await asyncio.to_thread(begun.wait, 30)
        check.cancel()
        with pytest.raises(asyncio.CancelledError):
            await check

    asyncio.run(cancelled())
    (left,) = (one for one in threading.enumerate() if one.name == "mirsafety-guard")
    assert left.daemon
    end.set()
    left.join(30)


@pytest.mark.parametrize("error", [ValueError("odd"), StopIteration("odd"), SystemExit("odd")])
def test_what_a_function_raises_reaches_who_asked(error: BaseException) -> None:
    def raises(prompt: str, images: object) -> bool:
        raise error

    raises.identity = "raises"  # type: ignore[attr-defined]

    async def asked() -> None:
        with pytest.raises((ValueError, RuntimeError, SystemExit), match="odd"):
            await OwnGuard(raises, "mine:raises").check(Content("good"))

    asyncio.run(asked())


def test_a_function_that_is_another_is_another_guard() -> None:
    def one(prompt: str, images: object) -> bool:
        return True

    def other(prompt: str, images: object) -> bool:
        return False

    assert OwnGuard(one, "m:g").identity != OwnGuard(other, "m:g").identity
    one.identity = other.identity = "words of May"  # type: ignore[attr-defined]
    one.concurrency = 2  # type: ignore[attr-defined]
    assert OwnGuard(one, "m:g").identity == OwnGuard(other, "m:g").identity
    assert OwnGuard(one, "m:g").concurrency == 2


def test_what_cannot_be_told_apart_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="give it an attribute identity"):
        OwnGuard(len, "builtins:len")

    def idle(prompt: str, images: object) -> bool:
        return False

    idle.concurrency = 0  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match="whole number from 1"):
        OwnGuard(idle, "m:g")


class Listed:
    """Guards with words that its source does not tell."""

    def __init__(self, *listed: str) -> None:
        self._listed = listed

    def __call__(self, prompt: str, images: Sequence[LoadedImage]) -> bool:
        return not images and any(word in prompt for word in self._listed)


def listing(*listed: str) -> Callable[..., bool]:
    return lambda prompt, images: not images and any(word in prompt for word in listed)


@pytest.mark.parametrize(
    ("guard", "problem"),
    [
        (functools.partial(words, answer="bad"), "is no plain function but a partial"),
        (Listed("bad"), "is no plain function but a Listed"),
        (Listed("bad").__call__, "is no plain function but a method"),
        (Listed, "is no plain function but a type"),
        (listing("bad"), "holds values of where it was made"),
    ],
)
def test_what_holds_more_than_its_source_tells_needs_an_identity(
    guard: Callable[..., bool], problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem) as refused:
        OwnGuard(guard, "m:g")
    assert "give it an attribute identity" in str(refused.value)
    if not isinstance(guard, type) and hasattr(guard, "__dict__") and "method" not in problem:
        guard.identity = "words of May"  # type: ignore[attr-defined]
        assert OwnGuard(guard, "m:g").identity == "m:g (words of May)"


@pytest.mark.parametrize("is_async", [False, True])
def test_a_function_that_says_nothing_in_time_has_failed(is_async: bool) -> None:
    end = threading.Event()

    def hangs(prompt: str, images: object) -> bool:
        return end.wait(30)

    async def hangs_async(prompt: str, images: object) -> bool:
        return await asyncio.Event().wait()

    guard: Any = hangs_async if is_async else hangs
    guard.identity = "hangs"
    with pytest.raises(JudgeError, match=r"^guard 'm:hangs' said nothing in 0\.01 s$"):
        opinion(OwnGuard(guard, "m:hangs", timeout=0.01), Content("good"))
    end.set()


def test_a_function_that_had_no_time_itself_is_no_late_one() -> None:
    def raises(prompt: str, images: object) -> bool:
        raise TimeoutError("of its own")

    with pytest.raises(TimeoutError, match="of its own"):
        opinion(OwnGuard(raises, "m:raises"), Content("good"))


# The safety prompt


@pytest.mark.parametrize("own", [None, "", " \n"])
def test_the_safety_prompt_stands_alone_where_there_is_no_other(own: str | None) -> None:
    assert joined(own) == SAFETY_PROMPT


def test_the_safety_prompt_comes_after_the_models_own() -> None:
    assert joined("You are terse.", "Be careful.") == "You are terse.\n\nBe careful."
