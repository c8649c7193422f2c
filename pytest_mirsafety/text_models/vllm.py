"""Asks a text model of a vLLM server of our own, which starts when it is first needed."""

from __future__ import annotations

from dataclasses import replace

from ..records import ModelIdentity
from ..servers.served import Served
from ..servers.vllm import KEY, Address, VllmServer
from ..texts import Clipped, TextPrompt, TextReply
from .endpoint import EndpointModel, EndpointModelSettings


class VllmModel(Served[EndpointModel]):
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
        own = replace(settings, api_key_env=KEY, key_required=False)

        def connect(address: Address) -> EndpointModel:
            return EndpointModel(replace(own, base_url=address.base_url), address.environ)

        super().__init__(server, connect)
        self.identity = identity
        self.numerics = numerics
        self._concurrency = own.concurrency

    @property
    def concurrency(self) -> int:
        """How many prompts may be in flight at once."""
        return self._concurrency

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
