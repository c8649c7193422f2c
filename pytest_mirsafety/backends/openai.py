"""Asks any OpenAI-compatible endpoint, through the `openai` package's client.

The package brings connections and timeouts; the body is written here, the reply is read by
`replies`, and what went wrong is told apart by `refusals`. So images are sent as the bytes they
are, encoded once, and a reply counts as an answer only if it has everything that makes it one.
Each call is one attempt: whether there is another is for the caller to say.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import SplitResult, urlsplit

from ..errors import (
    BackendError,
    BadInputError,
    ConfigurationError,
    MisconfiguredError,
    RetryableError,
)
from ..printable import one_line
from ..records import Completion, LoadedImage, ModelIdentity, Request, Scalar
from . import replies
from .bodies import Body, Encoded, Encoder, to_json
from .refusals import Meaning, Refusal, meaning

if TYPE_CHECKING:
    from openai import APIConnectionError, APIStatusError, AsyncOpenAI

OPENAI_URL: Final = "https://api.openai.com/v1"
OPENAI_KEY: Final = "OPENAI_API_KEY"

_NO_KEY: Final = "none"
_RESERVED: Final = frozenset({"model", "messages", "stream", "n", "tools", "functions"})
_FILTER_CODES: Final = frozenset({"content_filter", "content_policy_violation"})
_SLACK: Final = 120.0
"""Seconds that a reply may take beyond `timeout`, which allows for progress without end."""

_DETAIL: Final = 280
"""Characters of a failure, with what to change."""

_MOST_READ: Final = 100_000
"""Characters of a server's message that are read for what is shown of it."""

_BAD_REQUEST: Final = 400
_UNSENT: Final = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout"})
"""No connection was made: names of errors, of whichever httpx the package rests on."""

_SECRETS: Final = re.compile(
    r"""(?ix)
    (?<= bearer\s ) \s* [^\s"',]+             # whatever follows the word, ours or not
    | \b sk-[\w-]{8,}                         # a key of OpenAI's form
    | data: [\w/.+-]* ;base64, [^\s"']*
    | [a-z0-9+/_=-]{64,}                      # a run of base64
    """
)


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
        endpoint = _endpoint(settings.base_url or environ.get("OPENAI_BASE_URL") or OPENAI_URL)
        self._settings = settings
        self._url = endpoint.geturl()
        self._is_loopback = _is_loopback(endpoint)
        self._is_openai = f".{endpoint.hostname}".endswith(".openai.com")
        self._key = _key(settings, endpoint, environ)
        self._decoding = _checked(settings.decoding)
        self._identity = ModelIdentity(
            settings.provider, settings.model, self._url, settings.revision
        )
        self._encoder = Encoder()
        self._client: AsyncOpenAI | None = None

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
        reply = await self._post(body)
        latency = time.perf_counter() - started
        if reply is None:
            return Completion("", "content_filter", latency=latency, created=time.time())
        failure: RetryableError | BackendError
        try:
            return replies.read(reply, latency)
        except replies.ErrorReplyError as error:
            failure = self._failure(error.refusal, str(error))
        except replies.NothingAnsweredError as error:
            failure = RetryableError(self._clean(f"no answer in the reply: {error}"))
        except replies.UnusableAnswerError as error:
            failure = BackendError(self._clean(f"no answer in the reply: {error}"))
        raise failure

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    # Sending

    def _body(self, request: Request, images: Sequence[LoadedImage]) -> Body:
        start = to_json({"model": request.model.model, **request.decoding})[:-1]
        pieces: list[bytes | Encoded] = [start, b',"messages":[']
        if request.system is not None:
            pieces += [to_json({"role": "system", "content": request.system}), b","]
        pieces.append(b'{"role":"user","content":[')
        for image in images:
            pieces += self._image_part(image)
        pieces += [to_json({"type": "text", "text": request.prompt}), b"]}]}"]
        return Body(pieces)

    def _image_part(self, image: LoadedImage) -> tuple[bytes | Encoded, ...]:
        detail = self._settings.image_detail
        start = b'{"type":"image_url","image_url":{"url":"'
        end = b'"}},' if detail is None else b'","detail":"%s"}},' % detail.encode()
        if not self.needs_bytes:
            return start, _file_url(image), end
        if not image.content:
            raise BadInputError(f"image {image.sha256[:12]} has no bytes to send")
        kind = f"data:{image.media_type};base64,".encode()
        return start, kind, self._encoder.encode(image), end

    async def _post(self, body: Body) -> bytes | None:
        """The body of the reply; None when the provider's filter refused the request.

        Raised outside the handlers: an error of the package holds the request and its headers.
        """
        import openai

        client = self._client = self._client or self._connect()
        timeout = self._settings.timeout
        failure: RetryableError | BackendError
        try:
            async with asyncio.timeout(timeout + _SLACK):
                return await client.post(
                    "/chat/completions",
                    cast_to=bytes,
                    content=body,
                    options={
                        "follow_redirects": False,
                        "headers": {"Content-Length": str(len(body))},
                    },
                )
        except openai.APIStatusError as error:
            if error.status_code == _BAD_REQUEST and error.code in _FILTER_CODES:
                return None
            failure = self._refused(error)
        except openai.APITimeoutError as error:
            problem = f"{self._url}: no reply in time ({timeout:g} s without progress)"
            unsent = type(error.__cause__).__name__ in _UNSENT
            failure = RetryableError(problem, overloaded=True, turned_away=unsent)
        except openai.APIConnectionError as error:
            failure = self._unreached(error)
        except openai.OpenAIError as error:
            failure = BackendError(self._clean(str(error)))
        except TimeoutError:
            problem = f"{self._url}: no complete reply in {timeout + _SLACK:.0f} s"
            failure = RetryableError(problem, overloaded=True)
        raise failure

    def _connect(self) -> AsyncOpenAI:
        import openai

        from .bounded import BoundedClient

        timeout = openai.Timeout(self._settings.timeout)
        if self._is_loopback and self._url.startswith("http:"):
            # A proxy from the environment is for the outside world. TLS is never used here: a
            # context that trusts nobody saves loading every certificate.
            nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            transport = BoundedClient(timeout=timeout, trust_env=False, verify=nobody)
        else:
            transport = BoundedClient(timeout=timeout, trust_env=not self._is_loopback)
        client = openai.AsyncOpenAI(
            api_key=self._key or _NO_KEY,
            base_url=self._url,
            max_retries=0,
            timeout=timeout,
            http_client=transport,
            default_headers={"Authorization": f"Bearer {self._key or _NO_KEY}"},
        )
        if not self._is_openai:  # the package reads these from the environment
            client.organization = client.project = None
        return client

    # What went wrong, fit to be shown

    def _refused(self, error: APIStatusError) -> RetryableError | BackendError:
        refusal = Refusal.from_body(error.status_code, error.body, error.response.headers)
        text = f": {refusal.text}" if refusal.text else ""
        failure = self._failure(refusal, f"HTTP {error.status_code}{text}")
        if isinstance(failure, RetryableError):  # with status 200 it may have come after the work
            failure.turned_away = failure.overloaded
        return failure

    def _failure(self, refusal: Refusal, problem: str) -> RetryableError | BackendError:
        """The error for what came instead of an answer, in one line with what to change."""
        kind, hint = meaning(refusal)
        hint = f" ({hint.replace('{key}', self._settings.api_key_env)})" if hint else ""
        detail = self._clean(problem, _DETAIL - len(hint)) + hint
        if kind in (Meaning.RETRY, Meaning.OVERLOADED):
            return RetryableError(
                detail,
                overloaded=kind is Meaning.OVERLOADED,
                retry_after=refusal.retry_after,
            )
        return (MisconfiguredError if kind is Meaning.MISCONFIGURED else BackendError)(detail)

    def _unreached(self, error: APIConnectionError) -> RetryableError | BackendError:
        cause = error.__cause__
        if type(cause).__name__ not in _UNSENT:
            return RetryableError(
                self._clean(f"{self._url}: the connection broke: {cause or error.message}")
            )
        causes = set(map(type, _causes(cause)))
        if ssl.SSLCertVerificationError in causes:
            hint = "its certificate is not trusted: check base_url, or set SSL_CERT_FILE"
            return MisconfiguredError(self._clean(f"{self._url}: {cause}") + f" ({hint})")
        hint = "check base_url" if socket.gaierror in causes else "is the server running?"
        problem = self._clean(f"{self._url}: no connection: {cause}") + f" ({hint})"
        return RetryableError(problem, turned_away=True)

    def _clean(self, text: str, limit: int = 200) -> str:
        """One line of at most `limit` characters, without the key and without base64."""
        shown = "".join(c for c in text[:_MOST_READ] if c.isprintable() or c.isspace())
        if self._key:
            shown = shown.replace(self._key, "[key]")
        if len(text) > _MOST_READ:  # it may end in the first part of the key
            shown = shown[: max(0, len(shown) - len(self._key))]
        return one_line(_SECRETS.sub("[...]", shown), limit)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


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


def _endpoint(url: str) -> SplitResult:
    """The base URL without a slash at its end; what it may hold is never repeated in an error."""
    try:
        parts = urlsplit(url.strip())
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ConfigurationError("base_url is not an http:// or https:// URL of a host")
    if "@" in parts.netloc:
        raise ConfigurationError(
            "base_url holds a user name or password: put the key into an environment variable "
            "and name it in api_key_env"
        )
    if parts.query or parts.fragment:
        raise ConfigurationError("base_url cannot have a query (?...) or a fragment (#...)")
    return parts._replace(path=parts.path.rstrip("/"))


def _is_loopback(endpoint: SplitResult) -> bool:
    host = endpoint.hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _key(settings: OpenAISettings, endpoint: SplitResult, environ: Mapping[str, str]) -> str:
    """The key, or nothing.

    Raises:
        ConfigurationError: it is missing, cannot be a header, or OpenAI's would go out in clear.
    """
    name = settings.api_key_env
    key = environ.get(name, "").strip()
    if not key and settings.key_required:
        raise ConfigurationError(f"{settings.provider}:{settings.model} needs a key: set {name}")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(f"the value of {name} cannot be a key: it has odd characters")
    if key and name == OPENAI_KEY and endpoint.scheme == "http" and not _is_loopback(endpoint):
        raise ConfigurationError(
            f"{OPENAI_KEY} is not sent over plain http to another machine: use https, or name "
            "the variable that holds this endpoint's key in api_key_env"
        )
    return key
