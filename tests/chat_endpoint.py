"""A real OpenAI-compatible server on the loopback interface, scripted by a test.

    with ChatEndpoint("I can't help with that.") as endpoint:
        ask(endpoint.url)
    assert endpoint.requests[0].images == (digest_of_first, digest_of_second)

The script is one reply for every request, a sequence of replies (the last one repeats), or a
function of the request. A reply is a `Reply`, or the answer's text. The server records what it
received, in order of arrival, whatever it replies. Raw prompts (`/completions`) are asked in the
same way; `/tokenize` and `/detokenize` work as vLLM's do, with words for tokens.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Literal, Self
from urllib.parse import unquote, urlsplit

import pytest

Cut = Literal["before-reply", "in-body", "in-stream"]


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One request as it came over the wire. Header names are lower-case."""

    method: str
    path: str
    headers: Mapping[str, str]
    content: bytes = field(repr=False)

    @property
    def body(self) -> Any:
        """The parsed JSON body."""
        return json.loads(self.content)

    @property
    def model(self) -> str:
        return str(self.body["model"])

    @property
    def system(self) -> str | None:
        """The system prompt, or None."""
        found = [m["content"] for m in self.body["messages"] if m["role"] == "system"]
        return str(found[0]) if found else None

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The parts of the one user turn, in order."""
        (turn,) = [m for m in self.body["messages"] if m["role"] == "user"]
        content = turn["content"]
        return [{"type": "text", "text": content}] if isinstance(content, str) else content

    @property
    def prompt(self) -> str:
        """All text of the user turn."""
        return "".join(p["text"] for p in self.parts if p["type"] == "text")

    @property
    def image_urls(self) -> tuple[str, ...]:
        """The image URLs of the user turn, in order."""
        return tuple(p["image_url"]["url"] for p in self.parts if p["type"] == "image_url")

    @property
    def images(self) -> tuple[str, ...]:
        """SHA-256 of each image's bytes, in order; data: and file: URLs are resolved."""
        return tuple(hashlib.sha256(_image_bytes(url)).hexdigest() for url in self.image_urls)

    @property
    def decoding(self) -> dict[str, Any]:
        """Everything in the body but the model and the messages."""
        return {k: v for k, v in self.body.items() if k not in ("model", "messages")}


def _image_bytes(url: str) -> bytes:
    if url.startswith("file:"):
        return Path(unquote(urlsplit(url).path)).read_bytes()
    try:
        return base64.b64decode(url.partition(",")[2], validate=True)
    except binascii.Error as error:
        raise AssertionError(f"not an image as base64: {url[:80]}") from error


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server sends back.

    `content`, when given, is the raw body and replaces everything that describes a completion.
    `hold` is waited for before replying, `delay` (seconds) is slept.
    """

    text: object = "I can't help with that."
    finish_reason: object = "stop"
    message: Mapping[str, object] = field(default_factory=dict)
    logprobs: object = None
    usage: object = field(default_factory=lambda: {"prompt_tokens": 11, "completion_tokens": 7})
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    delay: float = 0.0
    hold: threading.Event | None = None
    cut: Cut | None = None

    @classmethod
    def error(
        cls,
        status: int,
        message: str = "scripted failure",
        code: str | None = None,
        retry_after: float | None = None,
    ) -> Self:
        """An error in OpenAI's form; `retry_after` is in seconds and sent as given."""
        body = {"error": {"message": message, "type": "scripted", "param": None, "code": code}}
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return cls(status=status, content=json.dumps(body).encode(), headers=headers)

    @classmethod
    def garbage(cls, content: bytes = b"<html>502 Bad Gateway</html>", status: int = 200) -> Self:
        """A body that is not a chat completion."""
        return cls(status=status, content=content)

    @classmethod
    def json(cls, value: object) -> Self:
        """Any JSON as the body of a 200."""
        return cls(content=json.dumps(value).encode())

    def body(self, model: str, number: int, *, chat: bool = True) -> bytes:
        """The bytes of the body."""
        if self.content is not None:
            return self.content
        message = {"role": "assistant", "content": self.text, "refusal": None, **self.message}
        said = {"message": message} if chat else {"text": self.text}
        choice = {"index": 0, **said, "finish_reason": self.finish_reason}
        if self.logprobs is not None:
            choice["logprobs"] = self.logprobs
        completion = {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion" if chat else "text_completion",
            "created": 1_700_000_000,
            "model": model,
            "choices": [choice],
            "usage": self.usage,
        }
        return json.dumps(completion).encode()


Script = str | Reply | Sequence[str | Reply] | Callable[[ReceivedRequest], str | Reply]

RETRY_AT_ONCE: Final = MappingProxyType({"Retry-After-Ms": "1"})


class ChatEndpoint:
    """The server: listening between `__enter__` and `__exit__`, on a port of its own."""

    def __init__(self, script: Script = Reply(), models: Sequence[str] = ("test-model",)) -> None:
        self.script = script
        self.models = tuple(models)
        self.peak = 0
        self.has_tokenizer = True
        self.tokenized: list[ReceivedRequest] = []
        self._words: list[str] = []
        self._requests: list[ReceivedRequest] = []
        self._in_flight = 0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.endpoint = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        """The base URL, such as http://127.0.0.1:40123/v1."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The chat requests received so far, in order of arrival."""
        with self._lock:
            return list(self._requests)

    @property
    def in_flight(self) -> int:
        """Chat requests that are being answered now; `peak` is the most there were."""
        with self._lock:
            return self._in_flight

    def wait_for(self, count: int, timeout: float = 10.0) -> None:
        """Return once this many chat requests have arrived.

        Raises:
            AssertionError: they did not arrive in `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while len(self.requests) < count:
            if time.monotonic() > deadline:
                raise AssertionError(f"{len(self.requests)} of {count} requests arrived")
            time.sleep(0.002)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.close_connections()
        self._server.server_close()
        if error is None and self._server.failures:
            raise AssertionError("the endpoint's script failed") from self._server.failures[0]

    def receive(self, request: ReceivedRequest) -> tuple[int, Reply]:
        """Record a request; its number, and the reply that the script has for it."""
        with self._lock:
            self._requests.append(request)
            self._in_flight += 1
            self.peak = max(self.peak, self._in_flight)
            number = len(self._requests) - 1
        return number, self._reply_to(request, number)

    def tokenize(self, request: ReceivedRequest) -> bytes:
        """What vLLM's tokenizer endpoints reply; each word is a token, with the space before it."""
        with self._lock:
            self.tokenized.append(request)
            if request.path == "/detokenize":
                text = "".join(self._words[token] for token in request.body["tokens"])
                return json.dumps({"prompt": text}).encode()
            words = re.findall(r"\s*\S+|\s+$", request.body["prompt"])
            first = len(self._words)
            self._words += words
            tokens = list(range(first, len(self._words)))
        return json.dumps({"count": len(tokens), "max_model_len": 4096, "tokens": tokens}).encode()

    def finish(self) -> None:
        """A reply has been sent."""
        with self._lock:
            self._in_flight -= 1

    def _reply_to(self, request: ReceivedRequest, number: int) -> Reply:
        script = self.script
        if callable(script):
            script = script(request)
        elif not isinstance(script, str | Reply):
            script = script[min(number, len(script) - 1)]
        return Reply(text=script) if isinstance(script, str) else script


@pytest.fixture
def chat_endpoint() -> Iterator[ChatEndpoint]:
    """A listening endpoint; set its `script` before asking."""
    with ChatEndpoint() as endpoint:
        yield endpoint


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 256
    endpoint: ChatEndpoint

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._connections: set[socket.socket] = set()
        self._connections_lock = threading.Lock()
        self.failures: list[BaseException] = []

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._connections_lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._connections_lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, *_: Any) -> None:
        """Keep a failure of the script; a client that went away is none."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):
            self.failures.append(error)

    def close_connections(self) -> None:
        """End the idle connections that clients keep open, and with them their threads."""
        with self._connections_lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one write per reply: small writes would wait for delayed acknowledgements
    server: _Server

    def do_GET(self) -> None:
        models = [{"id": m, "object": "model"} for m in self.server.endpoint.models]
        self._send(200, {}, json.dumps({"object": "list", "data": models}).encode())

    def do_POST(self) -> None:
        endpoint = self.server.endpoint
        length = int(self.headers["Content-Length"])
        content = self.rfile.read(length)
        if len(content) < length:  # the client hung up while it was sending
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = ReceivedRequest("POST", self.path, MappingProxyType(headers), content)
        if self.path in ("/tokenize", "/detokenize") and endpoint.has_tokenizer:
            self._send(200, {}, endpoint.tokenize(request))
            return
        if not self.path.endswith("/completions"):
            self._send(404, {}, b'{"error": {"message": "no such path"}}')
            return
        try:
            number, reply = endpoint.receive(request)
            if reply.hold is not None:
                reply.hold.wait(30)
            if reply.delay:
                time.sleep(reply.delay)
            chat = self.path.endswith("/chat/completions")
            self._reply(reply, reply.body(_model_of(request), number, chat=chat))
        finally:
            endpoint.finish()

    def _reply(self, reply: Reply, body: bytes) -> None:
        if reply.cut is None:
            self._send(reply.status, reply.headers, body)
            return
        self.close_connection = True
        if reply.cut == "before-reply":
            return
        self.send_response(reply.status)
        self.send_header("Content-Type", "application/json")
        if reply.cut == "in-body":
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])

    def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Stay silent."""


def _model_of(request: ReceivedRequest) -> str:
    body = json.loads(request.content)
    return str(body.get("model", "")) if isinstance(body, dict) else ""
