"""A function of a user's own as a guard, and the safety prompt."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

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

    with pytest.raises(JudgeError, match="must be True or a reason"):
        opinion(OwnGuard(guard, "mine:guard"), Content("good"))


def test_a_function_that_hangs_is_left_behind() -> None:
    begun, end = threading.Event(), threading.Event()

    def hangs(prompt: str, images: object) -> bool:
        begun.set()
        return end.wait(30)

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


# The safety prompt


@pytest.mark.parametrize("own", [None, "", " \n"])
def test_the_safety_prompt_stands_alone_where_there_is_no_other(own: str | None) -> None:
    assert joined(own) == SAFETY_PROMPT


def test_the_safety_prompt_comes_after_the_models_own() -> None:
    assert joined("You are terse.", "Be careful.") == "You are terse.\n\nBe careful."
