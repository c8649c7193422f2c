"""A terminal for tests: runs a command on one, and shows what is on its screen at the end."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

COLUMNS = 80
_ROWS = 500
# Makes the terminal that of the command, so that Ctrl-C reaches it.
_ATTACH = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
_PART = re.compile(r"\x1b\[(\d*)([A-Za-z])|\r|\n|[^\x1b\r\n]")


@dataclass(frozen=True)
class Shown:
    """How a command ended and everything that it wrote, echoes of the terminal included."""

    code: int
    written: str

    @property
    def screen(self) -> list[str]:
        """The lines that a person sees at the end, without spaces at their ends."""
        return [line.rstrip() for line in _Screen(self.written).lines]


def show(
    command: Sequence[str], folder: Path, *, term: str = "xterm", interrupt_at: str | None = None
) -> Shown:
    """Run a command on a terminal of its own; press Ctrl-C once this was written."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": term, "COLUMNS": str(COLUMNS)}
    with subprocess.Popen(
        [sys.executable, "-c", _ATTACH, *command],
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        close_fds=True,
    ) as process:
        os.close(theirs)
        written = b""
        with suppress(OSError):  # the other end was closed: that is how a terminal ends
            while chunk := os.read(ours, 65536):
                written += chunk
                if interrupt_at is not None and interrupt_at.encode() in written:
                    os.write(ours, b"\x03")
                    interrupt_at = None
        os.close(ours)
    return Shown(process.returncode, written.decode())


class _Screen:
    """As much of a terminal as pytest and the plugin make use of."""

    def __init__(self, written: str) -> None:
        self.lines = [""]
        self._row = self._column = 0
        for match in _PART.finditer(written):
            if match[2] is not None:
                self._control(match[2], int(match[1] or 0))
            elif match[0] == "\r":
                self._column = 0
            elif match[0] == "\n":
                self._down()
            else:
                self._put(match[0])

    def _control(self, word: str, number: int) -> None:
        if word == "A":
            self._row = max(0, self._row - max(1, number))
        elif word == "G":
            self._column = max(1, number) - 1
        elif word == "K":
            self.lines[self._row] = "" if number == 2 else self.lines[self._row][: self._column]
        elif word == "J":
            self.lines[self._row :] = [self.lines[self._row][: self._column]]

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self.lines):
            self.lines.append("")

    def _put(self, character: str) -> None:
        if self._column == COLUMNS:
            self._column = 0
            self._down()
        line = self.lines[self._row].ljust(self._column)
        self.lines[self._row] = line[: self._column] + character + line[self._column + 1 :]
        self._column += 1
