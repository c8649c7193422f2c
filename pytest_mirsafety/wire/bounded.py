"""An HTTP client that takes no reply without end: no server has a say in how much memory is used.

The `openai` package reads a reply whole, however long it is, and that of an error too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import openai

from .replies import ReplyTooLongError

if TYPE_CHECKING:
    import httpx2

MOST_BYTES: Final = 32 * 2**20
"""Of a reply as it is read, decompressed: many times the longest answer."""

_USUAL_BYTES: Final = 2**18
"""A reply that says it is no longer need not be counted, which spares a few percent of an ask."""


class BoundedClient(openai.DefaultAsyncHttpxClient):
    """A client with the package's defaults, that reads each reply whole, up to `MOST_BYTES`."""

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:  # noqa: ANN401 - as they are
        """The reply, read.

        Raises:
            ReplyTooLongError: it is too long; its connection is then closed.
        """
        options["stream"] = True
        response = await super().send(request, **options)
        headers = response.headers
        try:
            if _declared(headers) <= _USUAL_BYTES:
                await response.aread()
                return response
            content = await _counted(response)
        finally:
            await response.aclose()
        headers.pop("content-encoding", None)  # of what was on the wire: it is decoded now
        return type(response)(
            response.status_code,
            headers=headers,
            content=content,
            request=request,
            extensions=response.extensions,
        )


def _declared(headers: httpx2.Headers) -> float:
    """The length that a reply cannot exceed, by what it says; infinite where it does not say."""
    length = headers.get("content-length", "")
    if not length.isdecimal() or "transfer-encoding" in headers or "content-encoding" in headers:
        return math.inf
    return int(length)


async def _counted(response: httpx2.Response) -> bytes:
    content = bytearray()  # not a list of pieces: each may be of one byte
    async for piece in response.aiter_bytes():
        content += piece
        if len(content) > MOST_BYTES:
            raise _too_long()
    return bytes(content)


def _too_long() -> ReplyTooLongError:
    return ReplyTooLongError(f"the reply is longer than {MOST_BYTES // 2**20} MiB")
