"""A process that cannot outlive whoever started it, with its last words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from ..printable import one_line

GRACE: Final = 10.0
"""Seconds that a server has to end by itself when it is asked to."""

_SLACK: Final = 30.0
_GONE: Final = 5.0
_KEPT: Final = 2000
"""Lines of its log that are held."""

_LONGEST: Final = 400
_PIECE: Final = 2**16
_GUARDIAN: Final = Path(__file__).with_name("guardian.py")


class GuardedProcess:
    """A command in a process group of its own, which a guardian ends when this process is over.

    `on_line` is called with each line that the command writes, in a thread of its own. Texts in
    `hidden` are taken out of what is kept of them.
    """

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        *,
        grace: float = GRACE,
        hidden: Sequence[str] = (),
        on_line: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.group: int | None = None
        """Its process group, once it is known."""
        self.exit_code: int | None = None
        """Of the command, once it is over; -9 stands for signal 9."""
        self._grace = grace
        self._hidden = tuple(filter(None, hidden))
        self._on_line = on_line
        self._lines: deque[str] = deque(maxlen=_KEPT)
        # In a session of its own: Ctrl-C in the terminal is for pytest, which ends it in order.
        self._guardian = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-I", "-S", str(_GUARDIAN), str(grace), *command],
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._threads = [
            threading.Thread(target=target, name=f"mirsafety-server-{name}", daemon=True)
            for name, target in (("log", self._read_log), ("state", self._read_state))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def guardian(self) -> int:
        """The guardian's own process."""
        return self._guardian.pid

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines that it wrote, printable and without what is hidden."""
        return tuple(self._lines)

    @property
    def over(self) -> bool:
        """The command has ended, by itself or not."""
        return self.exit_code is not None

    def end(self) -> bool:
        """End the whole group; blocks until it is gone, and tells whether it is.

        May be called again.
        """
        guardian = self._guardian
        if guardian.stdin is not None:
            with suppress(OSError):
                guardian.stdin.close()
        try:
            guardian.wait(self._grace + _SLACK)
        except subprocess.TimeoutExpired:
            guardian.kill()
            self._kill_group()
            guardian.wait()
        for thread in self._threads:
            thread.join(_SLACK)
        for pipe in (guardian.stdout, guardian.stderr):
            if pipe is not None:
                pipe.close()
        until = time.monotonic() + _GONE
        while self.group is not None and _is_there(self.group):
            if time.monotonic() > until:
                return False
            self._kill_group()
            time.sleep(0.05)
        return True

    def _read_log(self) -> None:
        if (pipe := self._guardian.stderr) is not None:
            for line in _lines(pipe):
                for text in self._hidden:
                    line = line.replace(text, "[key]")  # noqa: PLW2901 - the same line
                shown = one_line(line, _LONGEST)
                if shown:
                    self._lines.append(shown)
                    self._on_line(shown)

    def _read_state(self) -> None:
        if (pipe := self._guardian.stdout) is None:
            return
        ended = False
        for line in pipe:
            word, _, number = line.decode().partition(" ")
            if word == "started":
                self.group = int(number)
                continue
            self.exit_code = int(number) if self.exit_code is None else self.exit_code
            ended |= word == "ended"
        if not ended:  # the guardian itself was killed
            self._kill_group()
            self.exit_code = -signal.SIGKILL if self.exit_code is None else self.exit_code

    def _kill_group(self) -> None:
        if self.group is not None:
            with suppress(OSError):
                os.killpg(self.group, signal.SIGKILL)


def _lines(pipe: IO[bytes]) -> Iterator[str]:
    """Lines as they come: a progress bar writes over itself, and what has no end is cut."""
    rest = b""
    while piece := os.read(pipe.fileno(), _PIECE):
        *whole, rest = (rest + piece).replace(b"\r", b"\n").split(b"\n")
        yield from (line.decode(errors="replace") for line in whole if line.strip())
        if len(rest) > _PIECE:
            yield rest.decode(errors="replace")
            rest = b""
    if rest.strip():
        yield rest.decode(errors="replace")


def _is_there(group: int) -> bool:
    """Whether a process of this group runs; the dead whom nobody buries do not."""
    proc = Path("/proc")
    if not (proc / "self").exists():
        with suppress(OSError):
            os.killpg(group, 0)
            return True
        return False
    for stat in proc.glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, its_group = stat.read_text("utf-8", "replace").rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False
