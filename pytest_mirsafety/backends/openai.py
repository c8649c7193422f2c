"""Asks any OpenAI-compatible endpoint for a model's answers.

The body is written here; `wire` sends it and reads the reply. So images are sent as the bytes they
are, encoded once, and a reply counts as an answer only if it has everything that makes it one.
Each call is one attempt: whether there is another is for the caller to say.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from ..errors import BadInputError, ConfigurationError
from ..records import Completion, LoadedImage, ModelIdentity, Request, Scalar
from ..wire import replies
from ..wire.bodies import Body, Encoded, Encoder, image_part, listed
from ..wire.connection import OPENAI_KEY, Connection, EndpointSettings, to_json

_RESERVED: Final = frozenset({"model", "messages", "stream", "n", "tools", "functions"})


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAISettings:
    """An endpoint, a model, and how it is asked.

    `base_url` None stands for `OPENAI_BASE_URL`, or else OpenAI's own address. `decoding` is sent
    as it is, whatever its names. `timeout` is in seconds, for one attempt to go on.
    """

    model: str
    base_url: str | None = None
    api_key_env: str = OPENAI_KEY
    key_required: bool = True
    system: str | None = None
    decoding: Mapping[str, Scalar] = field(default_factory=dict)
    image_transport: Literal["base64", "file"] = "base64"
    image_detail: Literal["auto", "low", "high"] | None = None
    concurrency: int = 16
    timeout: float = 600.0
    provider: str = "openai"
    revision: str | None = None


class OpenAIBackend:
    """Answers from a chat-completions endpoint. Belongs to one event loop.

    Raises:
        ConfigurationError: no key where one is needed, an unusable base_url, or a decoding
            parameter that is not one.
    """

    cacheable = True

    def __init__(self, settings: OpenAISettings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._connection = Connection(
            EndpointSettings(
                name=f"{settings.provider}:{settings.model}",
                base_url=settings.base_url,
                api_key_env=settings.api_key_env,
                key_required=settings.key_required,
                timeout=settings.timeout,
            ),
            environ,
        )
        self._decoding = _checked(settings.decoding)
        self._identity = ModelIdentity(
            settings.provider, settings.model, self._connection.url, settings.revision
        )
        self._encoder = Encoder()

    @property
    def identity(self) -> ModelIdentity:
        """Provider, model, endpoint and revision."""
        return self._identity

    @property
    def system(self) -> str | None:
        """The system prompt, or None."""
        return self._settings.system

    @property
    def decoding(self) -> Mapping[str, Scalar]:
        """The decoding parameters, by the name they are sent under."""
        return self._decoding

    @property
    def greedy(self) -> bool:
        """Temperature is declared to be 0."""
        temperature = self._decoding.get("temperature")
        is_number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
        return is_number and temperature == 0

    @property
    def concurrency(self) -> int:
        """How many requests may be in flight at once."""
        return self._settings.concurrency

    @property
    def needs_bytes(self) -> bool:
        """False when images are sent as file:// URLs."""
        return self._settings.image_transport == "base64"

    @property
    def needs_paths(self) -> bool:
        """True when images are sent as file:// URLs."""
        return not self.needs_bytes

    async def complete(
        self,
        request: Request,
        images: Sequence[LoadedImage],
        instance_id: str,  # noqa: ARG002 - part of the protocol
    ) -> Completion:
        """Ask once; a content filter's refusal is a completion.

        Raises:
            RetryableError: no reply came, or one that answers nothing.
            MisconfiguredError: no request like this one can succeed.
            BackendError: this request was refused, or its answer is not one whole answer.
            BadInputError: an image is not there in the form it is sent in.
        """
        body = self._body(request, images)
        started = time.perf_counter()
        reply = await self._connection.post("/chat/completions", body)
        latency = time.perf_counter() - started
        if reply is None:
            return Completion("", "content_filter", latency=latency, created=time.time())
        return self._connection.read(lambda: replies.read(reply, latency))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._connection.aclose()

    # Sending

    def _body(self, request: Request, images: Sequence[LoadedImage]) -> Body:
        start = to_json({"model": request.model.model, **request.decoding})[:-1]
        pieces: list[bytes | Encoded] = [start, b',"messages":[']
        if request.system is not None:
            pieces += [to_json({"role": "system", "content": request.system}), b","]
        text = (to_json({"type": "text", "text": request.prompt}),)
        pieces.append(b'{"role":"user","content":')
        pieces += listed([*map(self._image_part, images), text])
        pieces.append(b"}]}")
        return Body(pieces)

    def _image_part(self, image: LoadedImage) -> Iterable[bytes | Encoded]:
        detail = self._settings.image_detail
        if self.needs_bytes:
            return self._encoder.part(image, detail)
        return image_part((_file_url(image),), detail)


def _file_url(image: LoadedImage) -> bytes:
    if image.path is None:
        raise BadInputError(
            f"image {image.sha256[:12]} is not a file on this machine: "
            'use image_transport = "base64"'
        )
    return image.path.absolute().as_uri().encode()


def _checked(decoding: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
    if taken := sorted(_RESERVED.intersection(decoding)):
        raise ConfigurationError(f"decoding.{taken[0]} is not a decoding parameter")
    try:
        to_json(dict(decoding))
    except ValueError:
        raise ConfigurationError("a decoding parameter is not a finite number") from None
    return MappingProxyType(dict(decoding))
