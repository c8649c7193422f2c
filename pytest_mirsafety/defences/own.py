"""A function of a user's own as a guard: `guard(prompt, images)`, or with the `answer` after it.

True blocks, or a text that says why; False lets through. Anything else is a failure of it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from ..errors import ConfigurationError, JudgeError
from ..printable import one_line
from ..records import VerdictKind, text_digest
from .guarding import Content, Opinion

_CONCURRENCY: Final = 8


class OwnGuard:
    """Guards with a function, which may be async; one that is not is called in threads.

    `name` is `module:attr`. The function may have `identity` (its version, in a line) and
    `concurrency`, how many calls may be under way at once.

    Raises:
        ConfigurationError: nothing tells its versions apart, or its concurrency is no number.
    """

    takes_images = True

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._function = function
        self._name = name
        self.identity = f"{name} ({_version(function, name)})"
        concurrency = getattr(function, "concurrency", _CONCURRENCY)
        if type(concurrency) is not int or concurrency < 1:
            raise ConfigurationError(f"guard '{name}': concurrency must be a whole number from 1")
        self.concurrency: int = concurrency
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="mirsafety-guard")

    async def check(self, content: Content) -> Opinion:
        """What the function says.

        Raises:
            JudgeError: it failed, or returned something that is no word of a guard.
            Exception: an error of ours that it raised, as it is.
        """
        arguments: tuple[object, ...] = (content.prompt, content.images)
        if content.answer is not None:
            arguments += (content.answer,)
        function = self._function
        if _is_async(function):
            told = await function(*arguments)
        else:
            loop = asyncio.get_running_loop()
            told = await loop.run_in_executor(self._threads, lambda: function(*arguments))
        match told:
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

    async def aclose(self) -> None:
        """Begin no other call."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _is_async(function: Callable[..., Any]) -> bool:
    call = getattr(function, "__call__", None)  # noqa: B004 - of an object, whether that is async
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _version(function: Callable[..., Any], name: str) -> str:
    """What another version of it would have otherwise: its own word, or a digest of its source."""
    told = getattr(function, "identity", None)
    if isinstance(told, str) and told.strip():
        return one_line(told)
    try:
        source = inspect.getsource(function if inspect.isroutine(function) else type(function))
    except (OSError, TypeError):
        raise ConfigurationError(
            f"guard '{name}' has no source to tell its versions apart by: give it an attribute "
            "identity, a text that changes when what it says does"
        ) from None
    return f"source {text_digest(source)[:12]}"
