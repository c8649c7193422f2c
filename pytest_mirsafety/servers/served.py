"""Whatever asks a vLLM server of our own: its client comes with the server, and goes with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from ..errors import RetryableError
from .vllm import Address, VllmServer


class Client(Protocol):
    """What speaks to a server at one address."""

    async def aclose(self) -> None:
        """Close its connections."""


_Client = TypeVar("_Client", bound=Client)
_T = TypeVar("_T")


class Served(Generic[_Client]):
    """Starts the server with the first question, and makes the client for where it is then.

    `connect` makes the client. Belongs to one event loop.
    """

    def __init__(self, server: VllmServer, connect: Callable[[Address], _Client]) -> None:
        self._server = server
        self._connect = connect
        self._client: _Client | None = None
        self._turn = asyncio.Lock()

    @property
    def doing(self) -> str:
        """What the server does while it cannot answer yet."""
        return self._server.doing

    async def free(self) -> None:
        """End the server and give its memory back; the next question starts it again.

        Raises:
            ConfigurationError: something of it is left.
        """
        async with self._turn:
            client, self._client = self._client, None
            try:
                if client is not None:
                    await client.aclose()
            finally:
                await self._server.end()

    async def aclose(self) -> None:
        """Close the connections and end the server.

        Raises:
            ConfigurationError: something of it is left.
        """
        await self.free()

    async def _ask(self, call: Callable[[_Client], Awaitable[_T]]) -> _T:
        """What the call gives, once the server has started.

        Raises:
            StartError: the server did not start.
            GoneError: it died.
        """
        address = await self._server.address()
        if self._client is None:
            self._client = self._connect(address)
        try:
            return await call(self._client)
        except RetryableError as error:
            failure = await self._server.explain(error)
        raise failure
