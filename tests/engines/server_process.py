"""A server as a process group of its own: started, waited for, and always ended.

with serving(command, environment, ready_url, log) as group:
    ask()
assert not is_alive(group)
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LAST_LINES: Final = 40


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a server may take to start, and to end when asked to, in seconds."""

    start: float = 900
    stop: float = 60


PATIENT: Final = Limits()


class ServerFailedError(Exception):
    """A server did not start, or could not be ended; the message has its last lines."""


@contextmanager
def serving(
    command: Sequence[str],
    environment: Mapping[str, str],
    ready_url: str,
    log: Path,
    limits: Limits = PATIENT,
) -> Iterator[int]:
    """Run a server until the block ends; gives its process group.

    Raises:
        ServerFailedError: it ended or was silent before `ready_url` answered, or outlived the end.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_ready(process, ready_url, log, limits.start)
        yield process.pid
    finally:
        _end(process, log, limits.stop)


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def is_alive(group: int) -> bool:
    """Some process of this group still runs; a zombie does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path, limit: float) -> None:
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerFailedError(f"exit code {process.returncode}\n{_last_lines(log)}")
        with suppress(OSError), urllib.request.urlopen(url, timeout=5):  # noqa: S310 - loopback
            return
        time.sleep(0.2)
    raise ServerFailedError(f"not ready after {limit:.0f} s\n{_last_lines(log)}")


def _end(process: subprocess.Popen[bytes], log: Path, limit: float) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            process.poll()
            if not is_alive(process.pid):
                process.wait()
                return
            time.sleep(0.1)
    raise ServerFailedError(f"process group {process.pid} cannot be ended\n{_last_lines(log)}")


def _last_lines(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-LAST_LINES:])
