"""The channel: who may enter, whose reply is whose, and that nothing is left behind."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Client
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from interrupts import Interrupted, interrupted

from pytest_mirsafety import channel
from pytest_mirsafety.channel import Caller, ChannelError, Invitation, Line, Reception

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such sockets")

Reply = Callable[[Line, dict[str, Any]], None]


def echo(line: Line, message: dict[str, Any]) -> None:
    line.send({"id": message["id"], "said": message["say"]})


@contextmanager
def reception(reply: Reply = echo) -> Iterator[Reception]:
    def serve(line: Line) -> None:
        with suppress(ChannelError):
            while True:
                reply(line, line.receive())

    door = Reception(serve)
    try:
        yield door
    finally:
        door.close()
    ours = {"mirsafety-door", "mirsafety-worker"}
    assert not ours & {thread.name for thread in threading.enumerate()}


def say(caller: Caller, text: object) -> object:
    return caller.call({"say": text})["said"]


def garbage(address: Any, content: bytes) -> None:
    """Connect, send these bytes and hang up."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(address)
        with suppress(OSError):  # turned away before all was sent
            peer.sendall(content)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def test_whatever_is_said_comes_back() -> None:
    with reception() as door:
        caller = Caller(door.invitation)

        @given(json_values)
        def comes_back(value: object) -> None:
            assert say(caller, value) == value

        comes_back()
        assert say(caller, "\ud800\x00") == "\ud800\x00"
        assert say(caller, long := "x" * 3_000_000) == long
        caller.close()


@given(st.permutations(range(6)), st.sets(st.integers(0, 5)))
def test_a_reply_reaches_who_asked_whatever_the_order(
    order: Sequence[int], forgotten: set[int]
) -> None:
    """Some replies are never asked for, and some come twice."""
    held: SimpleQueue[tuple[Line, dict[str, Any]]] = SimpleQueue()
    got: dict[int, object] = {}
    with reception(lambda line, message: held.put((line, message))) as door:
        caller = Caller(door.invitation)

        def ask(number: int) -> None:
            got[number] = say(caller, number)

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        requests = sorted((held.get() for _ in threads), key=lambda pair: pair[1]["say"])
        for number in order:
            line, message = requests[number]
            if number in forgotten:
                line.send({"id": 1000 + number, "said": "nobody asked"})
                line.send({"said": "no id"})
            echo(line, message)
            echo(line, message)
        for thread in threads:
            thread.join()
        caller.close()
    assert got == {n: n for n in range(6)}


def test_an_interrupted_call_leaves_its_reply_to_nobody() -> None:
    held: SimpleQueue[tuple[Line, dict[str, Any]]] = SimpleQueue()
    with reception(lambda line, message: held.put((line, message))) as door:
        caller = Caller(door.invitation)
        with interrupted(after=0.05), pytest.raises(Interrupted):
            say(caller, "first")
        thread = threading.Thread(target=lambda: echo(*held.get()))
        first = held.get()
        thread.start()
        echo(*first)  # the late reply comes before the second is even read
        assert say(caller, "second") == "second"
        thread.join()
        caller.close()


@pytest.mark.parametrize(
    "content",
    [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x04null", b"\xff" * 64, b"\x7f" * 64, b"\x00"],
)
def test_garbage_at_the_door_disturbs_nobody(content: bytes) -> None:
    with reception() as door:
        caller = Caller(door.invitation)
        garbage(door.invitation.address, content)
        assert say(caller, "still here") == "still here"
        late = Caller(door.invitation)
        assert say(late, "and another") == "and another"
        late.close()
        caller.close()


def test_one_who_says_nothing_keeps_nobody_out() -> None:
    with reception() as door, socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(door.invitation.address))
        caller = Caller(door.invitation)
        assert say(caller, "in") == "in"
        caller.close()


def test_another_key_is_turned_away() -> None:
    heard: list[object] = []
    with reception(lambda _, message: heard.append(message)) as door:
        address = door.invitation.address
        with pytest.raises(ChannelError, match="no connection"):
            Caller(Invitation(address, secrets.token_bytes(32)))
        without = Client(address)
        without.recv_bytes()  # the challenge, which it does not answer
        with suppress(OSError, EOFError):
            without.send_bytes(b'{"id": 1}')
            without.recv_bytes()
            without.recv_bytes()
        without.close()
    assert not heard


@pytest.mark.parametrize("content", [b"[1]", b"no json", b"[" * 100_000, b"\xff", b"3"])
def test_what_is_no_message_ends_that_connection_alone(content: bytes) -> None:
    with reception() as door:
        caller = Caller(door.invitation)
        peer = Client(door.invitation.address, authkey=door.invitation.key)
        peer.send_bytes(content)
        with pytest.raises((EOFError, ConnectionError)):
            peer.recv_bytes()
        peer.close()
        assert say(caller, "still here") == "still here"
        caller.close()


def test_a_message_that_is_too_long_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with reception() as door:
        caller = Caller(door.invitation)
        monkeypatch.setattr(channel, "MOST_BYTES", 1000)
        with pytest.raises(ChannelError, match="longer than 1000") as caught:
            say(caller, "x" * 1000)
        assert not caught.value.closed
        assert say(caller, "short") == "short"
        caller.close()


def test_who_waits_is_told_when_the_other_side_is_gone() -> None:
    waits = threading.Event()
    with reception(lambda *_: waits.set()) as door:
        caller = Caller(door.invitation)
        errors: list[ChannelError] = []

        def ask() -> None:
            with pytest.raises(ChannelError) as caught:
                say(caller, "hello?")
            errors.append(caught.value)

        thread = threading.Thread(target=ask)
        thread.start()
        assert waits.wait(30)
    thread.join(30)
    assert errors[0].closed
    with pytest.raises(ChannelError):
        say(caller, "and now?")
    caller.close()


LISTEN = """
import time
from pytest_mirsafety.channel import Reception
door = Reception(lambda line: None)
print("listens", flush=True)
time.sleep(60)
"""


@only_linux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_dies_leaves_nothing_behind(tmp_path: Path, number: int) -> None:
    """pytest dies of SIGTERM at once, and what it would have cleaned up stays."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN], env=environ, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listens\n"
        process.send_signal(number)
        assert process.wait(30) == -number
    assert not list(tmp_path.iterdir())


ENTER = """
import os, sys
from multiprocessing.connection import Client
from pytest_mirsafety.channel import Caller, ChannelError, Invitation
import json
os.setuid(65534)
try:
    Caller(Invitation.from_plain(json.load(sys.stdin)))
except ChannelError as error:
    print(error)
"""


@only_linux
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_is_turned_away_even_with_the_key() -> None:
    with reception() as door:
        entered = subprocess.run(
            [sys.executable, "-c", ENTER],
            input=json.dumps(door.invitation.to_plain()),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        caller = Caller(door.invitation)
        assert say(caller, "still here") == "still here"
        caller.close()
    assert entered.stderr == ""
    assert entered.stdout.startswith("no connection to the controller")


@pytest.fixture
def with_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a system where each socket is a file."""
    monkeypatch.setattr(channel, "_HAS_NAMES", False)


@pytest.mark.usefixtures("with_files")
def test_nothing_is_left_behind_and_nobody_else_may_enter() -> None:
    with reception() as door:
        socket_file = Path(str(door.invitation.address))
        assert socket_file.parent.stat().st_mode & 0o777 == 0o700
        assert "key" not in repr(door.invitation)
        caller = Caller(door.invitation)
        assert say(caller, "in") == "in"
        caller.close()
    assert not socket_file.parent.exists()


@pytest.mark.usefixtures("with_files")
def test_without_a_socket_file_a_port_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of a socket has about a hundred characters."""
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with reception() as door:
        assert isinstance(door.invitation.address, tuple)
        assert door.invitation.address[0] == "127.0.0.1"
        plain = door.invitation.to_plain()
        caller = Caller(Invitation.from_plain(plain))
        assert say(caller, "in") == "in"
        caller.close()
    assert not list(long.iterdir())
