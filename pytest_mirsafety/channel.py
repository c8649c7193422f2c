"""A local channel between processes of one run: authenticated, JSON only, replies by id.

The standard library's `multiprocessing.connection` frames and authenticates; nothing is pickled.
A request carries an id and its reply that id, so that an answer nobody waits for any more is
dropped and can never be taken for another's.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import secrets
import shutil
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing.connection import (
    Client,
    Connection,
    Listener,
    answer_challenge,
    deliver_challenge,
)
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from .errors import MirsafetyError

MOST_BYTES: Final = 512 * 2**20
"""The longest message, in bytes: prompts, answers and a test's own images fit many times over."""

Message = Mapping[str, Any]
Address = str | tuple[str, int]

_WAITING: Final = 64
"""Connections that may wait to be accepted: all workers of a large run start at once."""
_PAUSE: Final = 0.05
"""Seconds until the next try when a connection could not be accepted."""

_HAS_NAMES: Final = sys.platform == "linux"
"""A socket can have a name in place of a file; it goes with its process, however that ends."""
_PEER: Final = struct.Struct("3i")
"""Process, user and group of the other side, as Linux tells them."""


class ChannelError(MirsafetyError):
    """The other side is gone, or a message is none; `closed` tells them apart."""

    def __init__(self, text: str, *, closed: bool = False) -> None:
        super().__init__(text)
        self.closed = closed


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a process needs to connect. `key` is never shown."""

    address: Address
    key: bytes = field(repr=False)

    def to_plain(self) -> dict[str, object]:
        """In words that any serializer takes."""
        address = self.address if isinstance(self.address, str) else list(self.address)
        return {"address": address, "key": base64.b64encode(self.key).decode()}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Invitation:
        """From what `to_plain` gave."""
        address = plain["address"]
        place = address if isinstance(address, str) else (str(address[0]), int(address[1]))
        return cls(place, base64.b64decode(plain["key"]))


# One of our own: a test that replaces json.dumps must not keep it from being answered.
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))


class Line:
    """One side of an open connection: whole messages, in order. Several threads may send."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._ending = threading.Lock()

    def send(self, message: Message) -> None:
        """Send one message.

        Raises:
            ChannelError: it is none that can be sent, or the other side is gone.
        """
        try:
            content = _ENCODER.encode(message).encode("ascii")
        except (TypeError, ValueError, RecursionError) as error:
            raise ChannelError(f"not a message: {error}") from None
        if len(content) > MOST_BYTES:
            raise ChannelError(f"a message of {len(content)} bytes is longer than {MOST_BYTES}")
        try:
            with self._sending:
                self._connection.send_bytes(content)
        except OSError as error:
            raise ChannelError(f"the other side is gone: {error}", closed=True) from None

    def receive(self) -> dict[str, Any]:
        """The next message; blocks until it is there.

        Raises:
            ChannelError: the other side is gone, or sent something else than a message.
        """
        try:
            message = json.loads(self._connection.recv_bytes(MOST_BYTES))
        except (EOFError, OSError) as error:
            raise ChannelError(f"the other side is gone: {error}", closed=True) from None
        except (ValueError, RecursionError):
            raise ChannelError("not a message") from None
        if not isinstance(message, dict):
            raise ChannelError("not a message")
        return message

    def hang_up(self) -> None:
        """Wake whoever receives on either side; any thread may call this."""
        with self._ending, suppress(OSError):
            shared = socket.fromfd(self._connection.fileno(), socket.AF_UNSPEC, 0)
            with shared:  # closing the descriptor alone would wake nobody here
                shared.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the connection; for the one thread that receives."""
        with self._ending, suppress(OSError):
            self._connection.close()


class Reception:
    """Accepts connections, each in a thread of its own, and authenticates before it hands over.

    `serve` is called with an open line in that thread; the line is closed when it returns.
    Whoever does not know the key, or talks another language, is turned away and disturbs nobody.
    """

    def __init__(self, serve: Callable[[Line], None]) -> None:
        self._serve = serve
        self._key = secrets.token_bytes(32)
        self._folder, self._listener = _listen()
        self._lock = threading.Lock()
        self._lines: dict[Line, threading.Thread] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="mirsafety-door", daemon=True)
        self._thread.start()

    @property
    def invitation(self) -> Invitation:
        """What to hand to whoever may connect."""
        address = self._listener.address
        if isinstance(address, bytes):  # a name
            address = os.fsdecode(address)
        return Invitation(address, self._key)

    def close(self) -> None:
        """End all connections and their threads, and remove the socket."""
        self._closing.set()
        with suppress(OSError, EOFError):
            Client(self._listener.address).close()  # accept() notices nothing else everywhere
        self._thread.join()
        self._listener.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        with self._lock:
            threads = dict(self._lines)
        for line in threads:
            line.hang_up()
        for thread in threads.values():
            thread.join()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection = self._listener.accept()
            except OSError:  # it hung up again, or there are no file descriptors left
                self._closing.wait(_PAUSE)
                continue
            line = Line(connection)
            thread = threading.Thread(
                target=self._receive, args=(line, connection), name="mirsafety-worker", daemon=True
            )
            with self._lock:
                self._lines[line] = thread
            thread.start()

    def _receive(self, line: Line, connection: Connection) -> None:
        try:
            welcome = not self._closing.is_set() and _is_ours(connection)
            if welcome and _knows(connection, self._key):
                self._serve(line)
        finally:
            line.close()
            with self._lock:
                del self._lines[line]


def _knows(connection: Connection, key: bytes) -> bool:
    """Whether the other side proves that it has the key, and believes that we have it."""
    try:
        deliver_challenge(connection, key)
        answer_challenge(connection, key)
    except (AuthenticationError, OSError, EOFError, AssertionError, ValueError):
        return False
    return True


def _is_ours(connection: Connection) -> bool:
    """Whether the other side is of the same user, where a name is all that leads here."""
    if sys.platform != "linux":
        return True
    shared = socket.socket(fileno=connection.fileno())
    try:
        if shared.family != socket.AF_UNIX:
            return True
        peer = shared.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    finally:
        shared.detach()
    return bool(_PEER.unpack(peer)[1] == os.geteuid())


def _listen() -> tuple[str | None, Listener]:
    """A socket with a name and no file, where there are such; or in a folder; or a port.

    A signal may end pytest at once, and whatever is a file then stays. Nobody else may enter the
    folder, and the port is of this machine.
    """
    if _HAS_NAMES:
        with suppress(OSError):
            name = f"\0mirsafety-{secrets.token_hex(16)}"
            return None, Listener(name, "AF_UNIX", backlog=_WAITING)
    if hasattr(socket, "AF_UNIX"):
        folder = tempfile.mkdtemp(prefix="mirsafety-")
        with suppress(OSError):  # the path of the temporary folder may be too long for a socket
            path = str(Path(folder) / "run")
            return folder, Listener(path, "AF_UNIX", backlog=_WAITING)
        shutil.rmtree(folder, ignore_errors=True)
    return None, Listener(("127.0.0.1", 0), "AF_INET", backlog=_WAITING)


class Caller:
    """The side that asks: each call waits for its own reply. For one process, any thread.

    A call that is interrupted leaves nothing behind: its reply is dropped when it comes.

    Raises:
        ChannelError: nobody listens there, or the key is another.
    """

    def __init__(self, invitation: Invitation) -> None:
        try:
            connection = Client(invitation.address, authkey=invitation.key)
        except (OSError, EOFError, AuthenticationError) as error:
            raise ChannelError(f"no connection to the controller: {error}", closed=True) from None
        self._line = Line(connection)
        self._numbers = itertools.count(1)
        self._pending: dict[int, SimpleQueue[Message | ChannelError]] = {}
        self._gone: ChannelError | None = None
        # Sent by a thread: a signal that interrupts this one could leave half a message behind.
        self._outbox: SimpleQueue[Message | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=target, name=f"mirsafety-{name}", daemon=True)
            for name, target in (("sending", self._send), ("receiving", self._receive))
        ]
        for thread in self._threads:
            thread.start()

    def call(self, message: Message) -> Message:
        """The reply to this message; blocks until it is there.

        Raises:
            ChannelError: the other side is gone, or the message is too long.
        """
        number = next(self._numbers)
        # A queue, since a wait at it is one call into C: what a signal raises comes out whole.
        bell: SimpleQueue[Message | ChannelError] = SimpleQueue()
        self._pending[number] = bell
        try:
            self._outbox.put({**message, "id": number})
            if self._gone is not None:  # looked at after the entry: whoever sets it clears those
                raise self._gone
            reply = bell.get()
        finally:
            self._pending.pop(number, None)
        if isinstance(reply, ChannelError):
            raise reply
        return reply

    def post(self, message: Message) -> None:
        """Send a message that has no reply. One that cannot be sent is lost."""
        self._outbox.put(message)

    def close(self) -> None:
        """Send what is still to be sent, and end the connection and its threads."""
        self._outbox.put(None)
        self._threads[0].join()
        self._line.hang_up()
        self._threads[1].join()
        self._line.close()

    def _send(self) -> None:
        while (message := self._outbox.get()) is not None:
            try:
                self._line.send(message)
            except ChannelError as error:
                if error.closed:
                    self._line.hang_up()  # the receiving thread tells those who wait
                elif (waiting := self._pending.get(message.get("id", 0))) is not None:
                    waiting.put(error)  # it was not sent: no reply will come

    def _receive(self) -> None:
        try:
            while True:
                reply = self._line.receive()
                waiting = self._pending.get(reply.get("id", 0))
                if waiting is not None:
                    waiting.put(reply)
        except ChannelError as error:
            self._gone = error
            for waiting in list(self._pending.values()):
                waiting.put(error)
