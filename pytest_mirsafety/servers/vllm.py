"""A vLLM server of our own: started when it is first needed, watched, and ended with the run."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import secrets
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ..errors import (
    BadInputError,
    ConfigurationError,
    GoneError,
    MissingExtraError,
    RetryableError,
    StartError,
)
from ..printable import one_line
from . import gpu
from .arguments import HOST, VllmSettings, check_arguments, command, fixed_port
from .diagnosis import diagnose, ending, last_lines, stage
from .process import GuardedProcess

KEY: Final = "VLLM_API_KEY"
CONCURRENCY: Final = 256
"""Requests in flight where the settings say nothing: the server batches what is there."""

_FIRST_LOOK: Final = 0.05
_LOOK: Final = 0.3
"""Seconds between two looks whether it answers: few at first, then so many."""

_NOTICE: Final = 2.0
"""Seconds in which the end of a server is noticed behind the connection that it broke."""

_ASKING: Final = 5.0
_starting = threading.Lock()
"""One server of this process starts at a time: each measures what memory is free meanwhile."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server of ours is, and the key that it wants, which is never shown."""

    base_url: str
    environ: Mapping[str, str] = field(repr=False)


def check_installed() -> None:
    """Do nothing when vLLM is installed here, under whatever distribution's name.

    Raises:
        MissingExtraError: it is not.
    """
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:  # a mere folder of that name
        raise MissingExtraError("starting a vLLM server", "vllm")


class VllmServer:
    """A server that starts with the first `address`, and ends with `end`, or with this process.

    Belongs to one event loop. `media` gives the folder that images are read from; None without.

    Raises:
        ConfigurationError: its arguments do not go with the run's.
    """

    def __init__(
        self,
        settings: VllmSettings,
        environ: Mapping[str, str],
        media: Callable[[], Path] | None = None,
    ) -> None:
        check_arguments(settings)
        self._settings = settings
        self._environ = environ
        self._media = media
        self._turn = asyncio.Lock()
        self._process: GuardedProcess | None = None
        self._address: Address | None = None
        self._failure: StartError | None = None
        self._stage = ""
        self._begun = 0.0
        self._used: Mapping[str, int] = {}

    @property
    def doing(self) -> str:
        """What it does while it cannot answer yet, such as `starting vLLM: loading weights, 41 s`.

        Empty once it can, and before it is needed. Any thread may look.
        """
        return f"{self._stage}, {time.monotonic() - self._begun:.0f} s" if self._stage else ""

    async def address(self) -> Address:
        """Where it is; starts it if it does not run, and waits until it answers.

        Raises:
            StartError: it did not start; it is not tried again.
            GoneError: it died.
        """
        async with self._turn:
            if self._failure is not None:
                raise self._failure
            if self._address is None or self._process is None:
                await self._start()
            elif self._process.over:
                raise self._gone(self._process)
            if self._address is None:
                raise StartError(f"{self._title} was ended while it started")
            return self._address

    async def explain(self, error: RetryableError) -> GoneError | RetryableError:
        """What an attempt without an answer means: that it died, or nothing more than before."""
        until = time.monotonic() + (0.0 if error.overloaded else _NOTICE)
        while (process := self._process) is not None:
            if process.over:
                return self._gone(process)
            if time.monotonic() >= until:
                break
            await asyncio.sleep(0.05)
        return error

    async def end(self) -> None:
        """End it with all that came of it, and wait until the GPUs' memory is back.

        The next `address` starts it anew.

        Raises:
            ConfigurationError: something of it is left.
        """
        process, self._process, self._address = self._process, None, None
        self._stage = ""
        if process is None:
            return
        gone = await asyncio.to_thread(process.end)
        left = await asyncio.to_thread(gpu.not_returned, self._used, self._environ)
        if not gone:
            raise ConfigurationError(f"{self._title} does not end: process group {process.group}")
        if left:
            raise ConfigurationError(
                f"{self._title} has ended, and {left} did not come back: see nvidia-smi"
            )

    @property
    def _title(self) -> str:
        return f"the vLLM server of {one_line(self._settings.name, 80)}"

    def _gone(self, process: GuardedProcess) -> GoneError:
        code = -1 if process.exit_code is None else process.exit_code
        found = diagnose(process.lines)
        why = f": {found.cause}" if found.cause else ""
        return GoneError(f"{self._title} died ({ending(code)}){why}")

    # Starting

    async def _start(self) -> None:
        self._begun, self._stage = time.monotonic(), "waiting for another server to start"
        try:
            while not _starting.acquire(blocking=False):  # noqa: ASYNC110 - held in other loops too
                await asyncio.sleep(_LOOK)
            try:
                self._begun, self._stage = time.monotonic(), "starting vLLM"
                await self._start_alone()
            finally:
                _starting.release()
        except StartError as error:
            self._failure = error
            raise
        finally:
            self._stage = ""

    async def _start_alone(self) -> None:
        settings, environ = self._settings, self._environ
        if self._process is not None:  # of a start that was cancelled
            await self._give_up(self._process)
        self._used = await asyncio.to_thread(gpu.used_memory, environ)
        media = None if self._media is None else await self._media_folder(self._media)
        port = fixed_port(settings.arguments)
        if port is not None and not _is_free(port):
            raise StartError(
                f"{self._title} cannot start: port {port} is taken; leave --port out of "
                "server_args, and a free one is chosen"
            )
        port = port or _free_port()
        token, mark = secrets.token_urlsafe(32), f"mirsafety-{secrets.token_hex(8)}"
        added = {KEY: token, "PYTHONUNBUFFERED": "1"}
        try:
            process = self._process = GuardedProcess(
                command(settings, port, mark, media),
                {"VLLM_NO_USAGE_STATS": "1", **environ, **added},
                hidden=(token,),
                on_line=self._read,
            )
        except OSError as error:
            problem = error.strerror or str(error)
            raise StartError(f"{self._title} cannot start: {one_line(problem, 200)}") from None
        await self._wait(process, f"http://{HOST}:{port}/v1/models", token, mark)
        self._address = Address(f"http://{HOST}:{port}/v1", {KEY: token})

    async def _media_folder(self, media: Callable[[], Path]) -> Path:
        try:
            return await asyncio.to_thread(media)
        except (BadInputError, OSError) as error:
            problem = one_line(str(error), 200)
        raise StartError(f"{self._title} cannot start: {problem}")

    def _read(self, line: str) -> None:
        """Called in the log's thread."""
        if self._stage and (words := stage(line)) is not None:
            self._stage = f"starting vLLM: {words}"

    async def _wait(self, process: GuardedProcess, url: str, token: str, mark: str) -> None:
        """Until it lists the mark that it was given: another program may have taken its port.

        Raises:
            StartError: it ended, or took too long; it is gone by then.
        """
        limit = self._settings.start_timeout
        until = self._begun + limit
        pause = _FIRST_LOOK
        while not process.over:
            if mark in await asyncio.to_thread(_models, url, token):
                return
            if time.monotonic() > until:
                await self._give_up(process)
                raise StartError(
                    f"{self._title} was not ready after {limit:g} s: raise start_timeout if it "
                    f"was still at work\n{_last_words(process)}"
                )
            await asyncio.sleep(pause)
            pause = min(_LOOK, 1.5 * pause)
        code = -1 if process.exit_code is None else process.exit_code
        await self._give_up(process)
        found = diagnose(process.lines)
        cause = found.cause or found.evidence or f"it ended ({ending(code)})"
        said = f"\n  it said: {found.evidence}" if found.cause and found.evidence else ""
        raise StartError(f"{self._title} did not start: {cause}{said}\n{_last_words(process)}")

    async def _give_up(self, process: GuardedProcess) -> None:
        self._process = None
        await asyncio.to_thread(process.end)


def _last_words(process: GuardedProcess) -> str:
    lines = last_lines(process.lines)
    return f"its last lines:\n{lines}" if lines else "it wrote nothing"


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def _is_free(port: int) -> bool:
    try:
        with socket.create_server((HOST, port)):
            return True
    except OSError:
        return False


def _models(url: str, token: str) -> frozenset[str]:
    """The names that a server has for what it serves; none while it does not answer."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - loopback
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_ASKING) as reply:
            told = json.loads(reply.read(2**20))
        return frozenset(str(model["id"]) for model in told["data"])
    except (OSError, ValueError, LookupError, TypeError):
        return frozenset()
