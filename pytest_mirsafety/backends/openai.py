"""Asks any OpenAI-compatible endpoint, through the `openai` package's client.

The package brings connections, timeouts and retries; the body is written and the reply is read
here. So images are sent as the bytes they are, encoded once, and a reply counts as an answer
only if it has everything that makes it one.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import re
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import SplitResult, urlsplit

from ..errors import BackendError, BadInputError, ConfigurationError
from ..printable import one_line
from ..records import Completion, LoadedImage, ModelIdentity, Request, Scalar

if TYPE_CHECKING:
    from openai import APIError, AsyncOpenAI

OPENAI_URL: Final = "https://api.openai.com/v1"
OPENAI_KEY: Final = "OPENAI_API_KEY"

_NO_KEY: Final = "none"
_RESERVED: Final = frozenset({"model", "messages", "stream", "n", "tools", "functions"})
_FILTER_CODES: Final = frozenset({"content_filter", "content_policy_violation"})
_LONGEST_PAUSE: Final = 120.0
"""Seconds: the package waits no longer than this for a Retry-After."""

_MOST_READ: Final = 100_000
"""Characters of a server's message that are read for what is shown of it."""

_MOST_TOKENS: Final = 2**53
"""A count above it is none: not every JSON reader could tell it from its neighbours."""

_BAD_REQUEST: Final = 400
_MOVED: Final = "it points elsewhere: set base_url to the address that answers"
_HINTS: Final[Mapping[int, str]] = MappingProxyType(
    {
        **dict.fromkeys((301, 302, 303, 307, 308), _MOVED),
        401: "check the key in {key}",
        403: "check that the key in {key} may use this model",
        404: "check the model name and base_url",
        413: "the images are too large for this endpoint",
        429: "lower concurrency, or check the quota",
    }
)
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
    `max_retries` counts the attempts after the first one.
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
    max_retries: int = 4
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
        """Ask once, retries included; a content filter's refusal is a completion.

        Raises:
            BackendError: no reply came, or one that is no complete answer.
            BadInputError: an image is not there in the form it is sent in.
        """
        body = self._body(request, images)
        started = time.perf_counter()
        reply = await self._post(body)
        latency = time.perf_counter() - started
        if reply is None:
            return Completion("", "content_filter", latency=latency, created=time.time())
        try:
            return _completion(reply, latency)
        except _NoAnswerError as error:
            problem = self._clean(str(error))
        raise BackendError(f"no answer in the reply: {problem}")

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    # Sending

    def _body(self, request: Request, images: Sequence[LoadedImage]) -> bytes:
        """The JSON body, with each image's data URI put in as bytes, and joined once.

        JSON-encoding megabytes of base64 would only copy them: nothing in them needs escaping.
        """
        start = _json({"model": request.model.model, **request.decoding})[:-1] + b',"messages":['
        if request.system is not None:
            start += _json({"role": "system", "content": request.system}) + b","
        fragments = [start, b'{"role":"user","content":[']
        for image in images:
            fragments += self._image_part(image)
        fragments += [_json({"type": "text", "text": request.prompt}), b"]}]}"]
        return b"".join(fragments)

    def _image_part(self, image: LoadedImage) -> tuple[bytes, ...]:
        detail = self._settings.image_detail
        start = b'{"type":"image_url","image_url":{"url":"'
        end = b'"}},' if detail is None else b'","detail":"%s"}},' % detail.encode()
        if not self.needs_bytes:
            return start, _file_url(image), end
        if not image.content:
            raise BadInputError(f"image {image.sha256[:12]} has no bytes to send")
        kind = f"data:{image.media_type};base64,".encode()
        return start, kind, base64.b64encode(image.content), end

    async def _post(self, body: bytes) -> bytes | None:
        """The body of the reply; None when the provider's filter refused the request.

        Raised outside the handlers: an error of the package holds the request and its headers.
        """
        import openai

        client = self._client = self._client or self._connect()
        settings = self._settings
        deadline = (settings.timeout + _LONGEST_PAUSE) * (settings.max_retries + 1)
        try:
            async with asyncio.timeout(deadline):
                return await client.post(
                    "/chat/completions",
                    cast_to=bytes,
                    content=body,
                    options={"follow_redirects": False},
                )
        except openai.APIError as error:
            if _is_filter(error):
                return None
            problem = self._describe(error)
        except openai.OpenAIError as error:
            problem = self._clean(str(error))
        except TimeoutError:
            problem = f"no complete reply in {deadline:.0f} s"
        raise BackendError(problem)

    def _connect(self) -> AsyncOpenAI:
        import openai

        timeout = openai.Timeout(self._settings.timeout)
        if self._is_loopback and self._url.startswith("http:"):
            # A proxy from the environment is for the outside world. TLS is never used here: a
            # context that trusts nobody saves loading every certificate.
            nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            transport = openai.DefaultAsyncHttpxClient(
                timeout=timeout, trust_env=False, verify=nobody
            )
        else:
            transport = openai.DefaultAsyncHttpxClient(
                timeout=timeout, trust_env=not self._is_loopback
            )
        client = openai.AsyncOpenAI(
            api_key=self._key or _NO_KEY,
            base_url=self._url,
            max_retries=self._settings.max_retries,
            timeout=timeout,
            http_client=transport,
            default_headers={"Authorization": f"Bearer {self._key or _NO_KEY}"},
        )
        if not self._is_openai:  # the package reads these from the environment
            client.organization = client.project = None
        return client

    # What went wrong, fit to be shown

    def _describe(self, error: APIError) -> str:
        import openai

        if isinstance(error, openai.APITimeoutError):
            return f"{self._url}: no reply in time ({self._settings.timeout:g} s without progress)"
        if isinstance(error, openai.APIConnectionError):
            return self._clean(f"{self._url}: no connection: {error.__cause__ or error.message}")
        status = getattr(error, "status_code", None)
        if status is None:
            return self._clean(error.message)
        text = self._clean(_server_message(error))
        hint = _HINTS.get(status, "").format(key=self._settings.api_key_env)
        return f"HTTP {status}" + (f": {text}" if text else "") + (f" ({hint})" if hint else "")

    def _clean(self, text: str) -> str:
        """One line of at most 200 characters, without the key and without base64."""
        shown = "".join(c for c in text[:_MOST_READ] if c.isprintable() or c.isspace())
        if self._key:
            shown = shown.replace(self._key, "[key]")
        if len(text) > _MOST_READ:  # it may end in the first part of the key
            shown = shown[: max(0, len(shown) - len(self._key))]
        return one_line(_SECRETS.sub("[...]", shown))


class _NoAnswerError(Exception):
    """A reply is not a chat completion with one whole answer."""


def _completion(reply: bytes, latency: float) -> Completion:
    """The completion in a reply's body.

    Raises:
        _NoAnswerError: it is not JSON, or lacks what makes an answer complete.
    """
    try:
        body = json.loads(reply)
    except (ValueError, RecursionError):
        raise _NoAnswerError(f"it is not JSON: {reply.decode(errors='replace')}") from None
    if not isinstance(body, dict):
        raise _NoAnswerError(f"it is {type(body).__name__}, not an object")
    if body.get("error") is not None:
        raise _NoAnswerError(f"an error with status 200: {json.dumps(body['error'])}")
    choice = _only_choice(body.get("choices"))
    message = choice.get("message")
    if not isinstance(message, dict):
        raise _NoAnswerError("the choice has no message")
    finish_reason = _text(choice, "finish_reason")
    if not finish_reason:
        raise _NoAnswerError("it has no finish_reason, so it may have been cut off")
    if message.get("tool_calls") or message.get("function_call"):
        raise _NoAnswerError("it calls a tool, and none was offered")
    usage = body.get("usage")
    return Completion(
        text="\n".join(filter(None, (_text(message, "content"), _text(message, "refusal")))),
        finish_reason=finish_reason,
        reasoning=_text(message, "reasoning_content") or _text(message, "reasoning") or None,
        input_tokens=_tokens(usage, "prompt_tokens"),
        output_tokens=_tokens(usage, "completion_tokens"),
        latency=latency,
        created=time.time(),
    )


def _only_choice(choices: object) -> dict[str, Any]:
    if not isinstance(choices, list) or not choices:
        raise _NoAnswerError("it has no choices")
    if len(choices) > 1:
        raise _NoAnswerError(f"it has {len(choices)} choices for one answer")
    if not isinstance(choices[0], dict):
        raise _NoAnswerError("its choice is not an object")
    return choices[0]


def _text(values: Mapping[str, object], name: str) -> str | None:
    value = values.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise _NoAnswerError(f"{name} is {type(value).__name__}, not text")
    # JSON can spell half a surrogate pair, which no file and no database can hold.
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _tokens(usage: object, name: str) -> int | None:
    count = usage.get(name) if isinstance(usage, dict) else None
    if not isinstance(count, int) or isinstance(count, bool):
        return None
    return count if 0 <= count <= _MOST_TOKENS else None


def _is_filter(error: APIError) -> bool:
    status = getattr(error, "status_code", None)
    return status == _BAD_REQUEST and error.code in _FILTER_CODES


def _server_message(error: APIError) -> str:
    body = error.body
    if isinstance(body, dict):
        found = body.get("message") or body.get("detail") or body
        return found if isinstance(found, str) else json.dumps(found)
    return body if isinstance(body, str) else ""


def _file_url(image: LoadedImage) -> bytes:
    if image.path is None:
        raise BadInputError(
            f"image {image.sha256[:12]} is not a file on this machine: "
            'use image_transport = "base64"'
        )
    return image.path.absolute().as_uri().encode()


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _checked(decoding: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
    if taken := sorted(_RESERVED.intersection(decoding)):
        raise ConfigurationError(f"decoding.{taken[0]} is not a decoding parameter")
    try:
        _json(dict(decoding))
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
