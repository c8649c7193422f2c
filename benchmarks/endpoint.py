"""A lean OpenAI-compatible chat endpoint in a process of its own, which reports what it received.

    python benchmarks/endpoint.py --latency=0.2 --http-500=0.1      prints its base URL

    with Endpoint(Behaviour(latency=0.2)) as endpoint:
        ask(endpoint.url)
        print(endpoint.report().answered)

It reads megabytes of base64 without parsing or keeping them. `GET /report` has what it received,
as JSON. It listens on the loopback interface only.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from behaviour import NOTHING, Behaviour, Fault
from received import Incoming, PromptReport, Report

BUFFER: Final = 2**20
LONGEST_HEAD: Final = 2**16

_WORDS: Final = {200: "OK", 404: "Not Found", 429: "Too Many Requests", 500: "Server Error"}


class Endpoint:
    """The server as a process that listens between `__enter__` and `__exit__`.

    `look_at_images` reports the SHA-256 of what is sent, at the cost of parsing it.

    Raises:
        RuntimeError: it does not start.
    """

    def __init__(
        self, behaviour: Behaviour | None = None, *, port: int = 0, look_at_images: bool = False
    ) -> None:
        self.behaviour = behaviour = behaviour or Behaviour()
        self.url = ""
        self._options = [*behaviour.to_options(), f"--port={port}", "--until-eof"]
        self._options += ["--look-at-images"] if look_at_images else []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = process = subprocess.Popen(  # noqa: S603 - this very file
            [sys.executable, __file__, *self._options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        self.url = process.stdout.readline().strip()
        if not self.url:
            process.communicate()
            raise RuntimeError("the endpoint did not start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.communicate()  # closes its standard input, which ends it

    def report(self) -> Report:
        """What it received so far."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        try:
            connection.request("GET", "/report")
            return Report.from_json(connection.getresponse().read())
        finally:
            connection.close()


@dataclass(frozen=True, slots=True)
class _Reply:
    """What is written, whether the connection ends then, and the prompt that it answers."""

    status: int
    content: bytes
    close: bool = False
    answers: PromptReport | None = None


class _Connection(asyncio.BufferedProtocol):
    """One connection of a client, whose requests are answered one after the other."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._buffer = server.buffer
        self._head = bytearray()
        self._incoming: Incoming | None = None
        self._in_flight = False
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - of the protocol
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._leave()

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - of the protocol
        return self._buffer  # one for all connections: it is used up before it is asked for again

    def buffer_updated(self, nbytes: int) -> None:
        position = 0
        while position < nbytes and self._transport is not None:
            if self._incoming is None:
                position = self._take_head(position, nbytes)
            else:
                position = self._take_body(self._incoming, position, nbytes)

    def reply(self, reply: _Reply, delay: float = 0.0) -> None:
        """Send a reply in `delay` seconds, if the client is still there."""
        if delay > 0:
            self._timer = asyncio.get_running_loop().call_later(delay, self._send, reply)
        else:
            self._send(reply)

    def _send(self, reply: _Reply) -> None:
        self._timer = None
        self._leave()
        if self._transport is not None:
            self._transport.write(reply.content)
            if reply.answers is not None:
                self._server.answered(reply.answers)
            if reply.close:
                self._transport.close()

    def _leave(self) -> None:
        if self._in_flight:
            self._in_flight = False
            self._server.report.in_flight -= 1

    def _take_head(self, start: int, stop: int) -> int:
        before = len(self._head)
        self._head += self._buffer[start:stop]
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            if before > LONGEST_HEAD and self._transport is not None:
                self._transport.abort()
            return stop
        head, self._head = bytes(self._head[:end]), bytearray()
        whole = self._server.look_at_images
        self._incoming = incoming = Incoming.from_head(head, time.monotonic(), whole=whole)
        if incoming.is_chat:
            self._in_flight = True
            self._server.report.in_flight += 1
        if not incoming.length:
            self._finish(incoming)
        return start + end + 4 - before

    def _take_body(self, incoming: Incoming, start: int, stop: int) -> int:
        stop = min(stop, start + incoming.length - incoming.taken)
        incoming.take(self._buffer, start, stop)
        if incoming.taken == incoming.length:
            self._finish(incoming)
        return stop

    def _finish(self, incoming: Incoming) -> None:
        self._incoming = None
        self._server.received(self, incoming)


class _Server:
    """Answers requests, and keeps the report."""

    def __init__(self, behaviour: Behaviour, *, look_at_images: bool) -> None:
        self.look_at_images = look_at_images or behaviour.looks
        self.buffer = bytearray(BUFFER)
        self.report = Report()
        self._behaviour = behaviour
        self._began: float | None = None

    def received(self, connection: _Connection, incoming: Incoming) -> None:
        """Reply to a request that was read to its end."""
        if incoming.is_chat:
            self._chat(connection, incoming)
        elif incoming.path == "/report":
            connection.reply(_Reply(200, _json(200, asdict(self.report))))
        elif incoming.path.endswith("/models"):
            connection.reply(_Reply(200, _json(200, {"object": "list", "data": []})))
        else:
            connection.reply(_Reply(404, _json(404, {"error": {"message": "no such path"}})))

    def answered(self, entry: PromptReport) -> None:
        """Count an answer that was sent."""
        entry.answered += 1
        entry.last_answer = time.monotonic()
        self.report.answered += 1

    def _chat(self, connection: _Connection, incoming: Incoming) -> None:
        prompt, behaviour = incoming.prompt, self._behaviour
        began = self._began = incoming.began if self._began is None else self._began
        entry = self.report.add(incoming)
        if behaviour.storms(self.report.in_flight, incoming.began - began):
            entry.turned_away += 1
            error = {"message": "too many requests", "type": "rate_limit_error"}
            self.report.replied(429)
            headers = behaviour.storm_headers()
            connection.reply(_Reply(429, _json(429, {"error": error}, *headers)))
            return
        # Storms depend on time: the number leaves them out, so that faults can be repeated.
        attempt = entry.requests - entry.turned_away - 1
        fault = behaviour.fault(prompt, attempt)
        if fault is None:
            seen = incoming.seen() if behaviour.looks else NOTHING
            body = _completion(incoming.model, behaviour.answer(prompt, seen))
            reply = _Reply(200, _json(200, body), answers=entry)
        else:
            reply = _FAULTS[fault]
        self.report.replied(reply.status, fault)
        connection.reply(reply, behaviour.delay(prompt, attempt))


def _completion(model: str, text: str) -> dict[str, object]:
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }


def _json(status: int, body: Mapping[str, object], *headers: str) -> bytes:
    return _http(status, json.dumps(body).encode(), *headers)


def _http(status: int, body: bytes, *headers: str) -> bytes:
    lines = (
        f"HTTP/1.1 {status} {_WORDS[status]}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
    )
    return "\r\n".join((*lines, "", "")).encode() + body


_GARBAGE: Final = b"<html>502 Bad Gateway</html>"
_FAULTS: Final = {
    Fault.HTTP_500: _Reply(500, _json(500, {"error": {"message": "scripted failure"}})),
    Fault.CUT_BEFORE: _Reply(0, b"", close=True),
    Fault.CUT_IN_BODY: _Reply(200, _json(200, _completion("", "half of"))[:-50], close=True),
    Fault.GARBAGE: _Reply(200, _http(200, _GARBAGE)),
    Fault.EMPTY: _Reply(200, _http(200, b"")),
}


async def _serve(behaviour: Behaviour, options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    server = _Server(behaviour, look_at_images=options.look_at_images)
    listening = await loop.create_server(
        lambda: _Connection(server), "127.0.0.1", options.port, backlog=1024
    )
    print(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1", flush=True)
    if options.until_eof:
        await loop.run_in_executor(None, sys.stdin.read)
    else:
        await listening.serve_forever()


def main() -> None:
    """Serve until killed, or until standard input ends."""
    parser = argparse.ArgumentParser(
        description=Behaviour.__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    Behaviour.add_options(parser)
    parser.add_argument("--port", type=int, default=0, help="0 for any that is free")
    parser.add_argument("--look-at-images", action="store_true", help="report their SHA-256")
    parser.add_argument("--until-eof", action="store_true", help="end with standard input")
    options = parser.parse_args()
    asyncio.run(_serve(Behaviour.from_options(options), options))


if __name__ == "__main__":
    main()
