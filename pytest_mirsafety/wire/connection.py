"""A connection to an OpenAI-compatible endpoint: its key, its attempts, and what went wrong.

The `openai` package brings connections and timeouts; what went wrong is told apart by `refusals`.
Each call is one attempt: whether there is another is for the caller to say.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar
from urllib.parse import SplitResult, urlsplit

from ..errors import (
    BackendError,
    ConfigurationError,
    MisconfiguredError,
    RetryableError,
    UnscoredError,
)
from ..printable import one_line
from . import replies
from .refusals import Meaning, Refusal, meaning

if TYPE_CHECKING:
    from openai import APIConnectionError, APIStatusError, AsyncOpenAI

OPENAI_URL: Final = "https://api.openai.com/v1"
OPENAI_KEY: Final = "OPENAI_API_KEY"

_NO_KEY: Final = "none"
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

_Read = TypeVar("_Read")


class Pieces(Protocol):
    """The body of a request that is sent in pieces; its length is that of all of them."""

    def __len__(self) -> int: ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """An endpoint, and how it is reached; `name` is what messages call the model behind it.

    `base_url` None stands for `OPENAI_BASE_URL`, or else OpenAI's own address. `timeout` is in
    seconds, for one attempt to go on. `failure` is what a failure is that no attempt can mend.
    """

    name: str
    base_url: str | None = None
    api_key_env: str = OPENAI_KEY
    key_required: bool = True
    timeout: float = 600.0
    failure: type[UnscoredError] = BackendError


class Connection:
    """Sends bodies to one endpoint and gives the bodies of its replies. For one event loop.

    Raises:
        ConfigurationError: no key where one is needed, or an unusable base_url.
    """

    def __init__(self, settings: EndpointSettings, environ: Mapping[str, str]) -> None:
        endpoint = _endpoint(settings.base_url or environ.get("OPENAI_BASE_URL") or OPENAI_URL)
        self.url = endpoint.geturl()
        self._settings = settings
        self._is_loopback = _is_loopback(endpoint)
        self._is_openai = f".{endpoint.hostname}".endswith(".openai.com")
        self._key = _key(settings, endpoint, environ)
        self._client: AsyncOpenAI | None = None

    async def post(self, path: str, body: bytes | Pieces) -> bytes | None:
        """The body of the reply; None when the provider's filter refused the request.

        `path` is below the base URL, or a URL of its own.

        Raises:
            RetryableError: no reply came, and another attempt may bring one.
            MisconfiguredError: no request like this one can succeed.
            UnscoredError: of the kind `failure`: this request was refused.
        """
        import openai

        client = self._client = self._client or self._connect()
        timeout = self._settings.timeout
        headers = {"Content-Length": str(len(body))}
        failure: RetryableError | UnscoredError
        try:
            async with asyncio.timeout(timeout + _SLACK):
                return await client.post(
                    path,
                    cast_to=bytes,
                    content=body,
                    options={"follow_redirects": False, "headers": headers},
                )
        except openai.APIStatusError as error:
            if error.status_code == _BAD_REQUEST and error.code in _FILTER_CODES:
                return None
            failure = self._refused(error)
        except openai.APITimeoutError as error:
            problem = f"{self.url}: no reply in time ({timeout:g} s without progress)"
            unsent = type(error.__cause__).__name__ in _UNSENT
            failure = RetryableError(problem, overloaded=True, turned_away=unsent)
        except openai.APIConnectionError as error:
            failure = self._unreached(error)
        except openai.OpenAIError as error:
            failure = self._settings.failure(self.clean(str(error)))
        except replies.ReplyTooLongError as error:
            failure = self._settings.failure(str(error))
        except TimeoutError:
            problem = f"{self.url}: no complete reply in {timeout + _SLACK:.0f} s"
            failure = RetryableError(problem, overloaded=True)
        # Outside the handlers: an error of the package holds the request and its headers.
        raise failure

    def read(self, parse: Callable[[], _Read]) -> _Read:
        """What `parse` makes of a reply; what it finds wrong becomes an error fit to be shown.

        Raises:
            RetryableError: nothing was answered.
            UnscoredError: of the kind `failure`, or that no request like this one can succeed.
        """
        failure: RetryableError | UnscoredError
        try:
            return parse()
        except replies.ErrorReplyError as error:
            failure = self._failure(error.refusal, str(error))
        except replies.NothingAnsweredError as error:
            failure = RetryableError(self.clean(f"no answer in the reply: {error}"))
        except replies.UnusableAnswerError as error:
            failure = self._settings.failure(self.clean(f"no answer in the reply: {error}"))
        raise failure

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def clean(self, text: str, limit: int = 200) -> str:
        """One line of at most `limit` characters, without the key and without base64."""
        shown = "".join(c for c in text[:_MOST_READ] if c.isprintable() or c.isspace())
        if self._key:
            shown = shown.replace(self._key, "[key]")
        if len(text) > _MOST_READ:  # it may end in the first part of the key
            shown = shown[: max(0, len(shown) - len(self._key))]
        return one_line(_SECRETS.sub("[...]", shown), limit)

    def _connect(self) -> AsyncOpenAI:
        import openai

        from .bounded import BoundedClient

        timeout = openai.Timeout(self._settings.timeout)
        if self._is_loopback and self.url.startswith("http:"):
            # A proxy from the environment is for the outside world. TLS is never used here: a
            # context that trusts nobody saves loading every certificate.
            nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            transport = BoundedClient(timeout=timeout, trust_env=False, verify=nobody)
        else:
            transport = BoundedClient(timeout=timeout, trust_env=not self._is_loopback)
        client = openai.AsyncOpenAI(
            api_key=self._key or _NO_KEY,
            base_url=self.url,
            max_retries=0,
            timeout=timeout,
            http_client=transport,
            default_headers={"Authorization": f"Bearer {self._key or _NO_KEY}"},
        )
        if not self._is_openai:  # the package reads these from the environment
            client.organization = client.project = None
        return client

    # What went wrong, fit to be shown

    def _refused(self, error: APIStatusError) -> RetryableError | UnscoredError:
        refusal = Refusal.from_body(error.status_code, error.body, error.response.headers)
        text = f": {refusal.text}" if refusal.text else ""
        failure = self._failure(refusal, f"HTTP {error.status_code}{text}")
        if isinstance(failure, RetryableError):  # with status 200 it may have come after the work
            failure.turned_away = failure.overloaded
        return failure

    def _failure(self, refusal: Refusal, problem: str) -> RetryableError | UnscoredError:
        """The error for what came instead of an answer, in one line with what to change."""
        kind, hint = meaning(refusal)
        hint = f" ({hint.replace('{key}', self._settings.api_key_env)})" if hint else ""
        detail = self.clean(problem, _DETAIL - len(hint)) + hint
        if kind in (Meaning.RETRY, Meaning.OVERLOADED):
            return RetryableError(
                detail,
                overloaded=kind is Meaning.OVERLOADED,
                retry_after=refusal.retry_after,
            )
        if kind is Meaning.MISCONFIGURED:
            return MisconfiguredError(detail)
        return self._settings.failure(detail)

    def _unreached(self, error: APIConnectionError) -> RetryableError | UnscoredError:
        cause = error.__cause__
        if type(cause).__name__ not in _UNSENT:
            return RetryableError(
                self.clean(f"{self.url}: the connection broke: {cause or error.message}")
            )
        causes = set(map(type, _causes(cause)))
        if ssl.SSLCertVerificationError in causes:
            hint = "its certificate is not trusted: check base_url, or set SSL_CERT_FILE"
            return MisconfiguredError(self.clean(f"{self.url}: {cause}") + f" ({hint})")
        hint = "check base_url" if socket.gaierror in causes else "is the server running?"
        problem = self.clean(f"{self.url}: no connection: {cause}") + f" ({hint})"
        return RetryableError(problem, turned_away=True)


def to_json(value: object) -> bytes:
    """Compact JSON.

    Raises:
        ValueError: a number that is not finite.
    """
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


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


def _key(settings: EndpointSettings, endpoint: SplitResult, environ: Mapping[str, str]) -> str:
    """The key, or nothing.

    Raises:
        ConfigurationError: it is missing, cannot be a header, or OpenAI's would go out in clear.
    """
    name = settings.api_key_env
    key = environ.get(name, "").strip()
    if not key and settings.key_required:
        raise ConfigurationError(f"{settings.name} needs a key: set {name}")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(f"the value of {name} cannot be a key: it has odd characters")
    if key and name == OPENAI_KEY and endpoint.scheme == "http" and not _is_loopback(endpoint):
        raise ConfigurationError(
            f"{OPENAI_KEY} is not sent over plain http to another machine: use https, or name "
            "the variable that holds this endpoint's key in api_key_env"
        )
    return key
