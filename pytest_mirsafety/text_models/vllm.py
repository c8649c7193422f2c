"""Asks a text model of a vLLM server of our own, which starts when it is first needed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from ..errors import RetryableError
from ..records import Clipped, ModelIdentity, TextPrompt, TextReply
from ..servers.vllm import KEY, VllmServer
from .endpoint import EndpointModel, EndpointModelSettings

_T = TypeVar("_T")


class VllmModel:
    """A text model behind a managed server; `settings` say how it is asked.

    `numerics` is the number format, where one was chosen. Belongs to one event loop.
    """

    def __init__(
        self,
        settings: EndpointModelSettings,
        identity: ModelIdentity,
        server: VllmServer,
        numerics: str = "",
    ) -> None:
        self._settings = replace(settings, api_key_env=KEY, key_required=False)
        self.identity = identity
        self.numerics = numerics
        self._server = server
        self._asked: EndpointModel | None = None
        self._turn = asyncio.Lock()

    @property
    def concurrency(self) -> int:
        """How many prompts may be in flight at once."""
        return self._settings.concurrency

    @property
    def doing(self) -> str:
        """What the server does while it cannot answer yet."""
        return self._server.doing

    async def complete(self, prompt: TextPrompt) -> TextReply:
        """The reply, in one attempt, after the server has started.

        Raises:
            StartError: the server did not start.
            GoneError: it died.
            RetryableError: no reply came, or one that says nothing.
            MisconfiguredError: no prompt like this one can succeed.
            JudgeError: this prompt was refused, or the reply is not one whole reply.
        """
        return await self._ask(lambda model: model.complete(prompt))

    async def clip(self, text: str, most: int) -> Clipped:
        """The text as it is, or what its first `most` tokens say.

        Raises:
            StartError: the server did not start.
            GoneError: it died.
            RetryableError: nothing came, and another attempt may bring it.
            MisconfiguredError: the server does not tell its tokens.
            JudgeError: this text cannot be clipped.
        """
        return await self._ask(lambda model: model.clip(text, most))

    async def free(self) -> None:
        """End the server and give its memory back; the next prompt starts it again.

        Raises:
            ConfigurationError: something of it is left.
        """
        async with self._turn:
            asked, self._asked = self._asked, None
            try:
                if asked is not None:
                    await asked.aclose()
            finally:
                await self._server.end()

    async def aclose(self) -> None:
        """Close the connections and end the server.

        Raises:
            ConfigurationError: something of it is left.
        """
        await self.free()

    async def _ask(self, call: Callable[[EndpointModel], Awaitable[_T]]) -> _T:
        address = await self._server.address()
        if self._asked is None:
            settings = replace(self._settings, base_url=address.base_url)
            self._asked = EndpointModel(settings, address.environ)
        try:
            return await call(self._asked)
        except RetryableError as error:
            failure = await self._server.explain(error)
        raise failure
