"""Asks a vLLM server of our own, which starts when it is first needed and ends with the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..records import Completion, LoadedImage, ModelIdentity, Request, Scalar
from ..servers.served import Served
from ..servers.vllm import KEY, Address, VllmServer
from .openai import OpenAIBackend, OpenAISettings


class VllmBackend(Served[OpenAIBackend]):
    """Answers from a managed server; `settings` say how it is asked, whatever their address is.

    Its identity has no address, so that an answer is found again whatever port it came from.
    Belongs to one event loop.

    Raises:
        ConfigurationError: a decoding parameter that is not one.
    """

    cacheable = True

    def __init__(
        self, settings: OpenAISettings, identity: ModelIdentity, server: VllmServer
    ) -> None:
        own = replace(settings, api_key_env=KEY, key_required=False)

        def connect(address: Address) -> OpenAIBackend:
            return OpenAIBackend(replace(own, base_url=address.base_url), address.environ)

        super().__init__(server, connect)
        self._identity = identity
        self._form = connect(Address("http://127.0.0.1:1/v1", {}))

    @property
    def identity(self) -> ModelIdentity:
        """The checkpoint, with its revision or a digest of its files."""
        return self._identity

    @property
    def system(self) -> str | None:
        """The system prompt, or None."""
        return self._form.system

    @property
    def decoding(self) -> Mapping[str, Scalar]:
        """The decoding parameters, by the name they are sent under."""
        return self._form.decoding

    @property
    def greedy(self) -> bool:
        """Temperature is declared to be 0."""
        return self._form.greedy

    @property
    def concurrency(self) -> int:
        """How many requests may be in flight at once."""
        return self._form.concurrency

    @property
    def needs_bytes(self) -> bool:
        """False when images are sent as file:// URLs."""
        return self._form.needs_bytes

    @property
    def needs_paths(self) -> bool:
        """True when images are sent as file:// URLs."""
        return self._form.needs_paths

    async def complete(
        self, request: Request, images: Sequence[LoadedImage], instance_id: str
    ) -> Completion:
        """Ask once, after the server has started; a content filter's refusal is a completion.

        Raises:
            StartError: the server did not start.
            GoneError: it died.
            RetryableError: no reply came, or one that answers nothing.
            MisconfiguredError: no request like this one can succeed.
            BackendError: this request was refused, or its answer is not one whole answer.
            BadInputError: an image is not there in the form it is sent in.
        """
        return await self._ask(lambda asked: asked.complete(request, images, instance_id))
