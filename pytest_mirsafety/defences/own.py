"""A function of a user's own as a guard: `guard(prompt, images)`, or with the `answer` after it.

True blocks, or a text that says why; False lets through. Anything else is a failure of it.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from ..digests import text_digest
from ..errors import ConfigurationError, JudgeError
from ..printable import one_line
from ..records import VerdictKind
from .guarding import Content, Opinion

_CONCURRENCY: Final = 8
_TIMEOUT: Final = 600.0


class OwnGuard:
    """Guards with a function, which may be async; one that is not is called in threads.

    `name` is `module:attr`. The function may have `identity` (its version, in a line) and
    `concurrency`, how many calls may be under way at once. One call may take `timeout` seconds.

    Raises:
        ConfigurationError: nothing tells its versions apart, or its concurrency is no number.
    """

    takes_images = True

    def __init__(self, function: Callable[..., Any], name: str, timeout: float = _TIMEOUT) -> None:
        self._function = function
        self._name = name
        self._timeout = timeout
        self.identity = f"{name} ({_version(function, name)})"
        concurrency = getattr(function, "concurrency", _CONCURRENCY)
        if type(concurrency) is not int or concurrency < 1:
            raise ConfigurationError(f"guard '{name}': concurrency must be a whole number from 1")
        self.concurrency: int = concurrency

    async def check(self, content: Content) -> Opinion:
        """What the function says.

        Raises:
            JudgeError: it failed, took too long, or returned something that is no word of a guard.
            Exception: an error of ours that it raised, as it is.
        """
        arguments: tuple[object, ...] = (content.prompt, content.images)
        if content.answer is not None:
            arguments += (content.answer,)
        match told := await self._told(arguments):
            case bool():
                kind = VerdictKind.UNSAFE if told else VerdictKind.SAFE
                return Opinion(kind, f"{self._name} blocked it" if told else "")
            case str() if told.strip():
                return Opinion(VerdictKind.UNSAFE, one_line(told))
        what = "a blank text" if isinstance(told, str) else type(told).__name__
        raise JudgeError(
            f"guard '{self._name}' returned {what}: it must be True or a reason to block, or False "
            "to let through"
        )

    async def _told(self, arguments: tuple[object, ...]) -> object:
        function = self._function
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                if _is_async(function):
                    told: object = await function(*arguments)
                    return told
                return await _in_a_thread(lambda: function(*arguments))
        except TimeoutError:
            if not limit.expired():  # it is the function's own
                raise
            problem = f"guard '{self._name}' said nothing in {self._timeout:g} s"
            raise JudgeError(problem) from None

    async def aclose(self) -> None:
        """There is nothing to let go of."""


async def _in_a_thread(call: Callable[[], object]) -> object:
    """What the call gives. It is left behind if nobody waits any more, also when Python ends.

    An executor would wait for its threads then, and a function that hangs would hang the run.
    """
    loop = asyncio.get_running_loop()
    told: asyncio.Future[object] = loop.create_future()

    def tell(result: object, error: BaseException | None) -> None:
        if told.done():  # cancelled
            return
        if error is None:
            told.set_result(result)
        else:
            told.set_exception(error)

    def run() -> None:
        result: object = None
        error: BaseException | None = None
        try:
            result = call()
        except StopIteration as stopped:  # which no future can hold
            error = RuntimeError(f"StopIteration: {stopped}")
        except BaseException as raised:  # noqa: BLE001 - it must reach who waits
            error = raised
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, result, error)

    threading.Thread(target=run, name="mirsafety-guard", daemon=True).start()
    return await told


def _is_async(function: Callable[..., Any]) -> bool:
    call = getattr(function, "__call__", None)  # noqa: B004 - of an object, whether that is async
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _version(function: Callable[..., Any], name: str) -> str:
    """What another version of it would have otherwise: its own word, or a digest of its source.

    The source tells all of a plain function only. What a closure, a partial, a bound method or an
    object holds may change while their source stays.
    """
    told = getattr(function, "identity", None)
    if isinstance(told, str) and told.strip():
        return one_line(told)
    ask = "give it an attribute identity, a text that changes when what it says does"
    if not inspect.isroutine(function) or inspect.ismethod(function):
        kind = one_line(type(function).__name__, 40)
        raise ConfigurationError(f"guard '{name}' is no plain function but a {kind}: {ask}")
    if getattr(function, "__closure__", None):
        raise ConfigurationError(f"guard '{name}' holds values of where it was made: {ask}")
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        raise ConfigurationError(
            f"guard '{name}' has no source to tell its versions apart by: {ask}"
        ) from None
    return f"source {text_digest(source)[:12]}"
