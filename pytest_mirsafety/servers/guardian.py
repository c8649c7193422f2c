"""Runs a command for as long as whoever started this lives, and ends all of it afterwards.

    python -I -S guardian.py GRACE COMMAND...

A program of its own that imports next to nothing. Its standard input is a pipe that nobody writes
to: it ends when the other side closes it, or dies of whatever, `kill -9` included. Then the
command's process group is asked to end, killed after GRACE seconds, and with it, on Linux, every
other process that came of it, also those that have left the group. On its standard output stand
two lines: `started PID`, and `ended CODE` (`ended -9` after signal 9). What the command writes goes
to its standard error. `exited CODE` between the two tells that the command is over, though others
of its group may not be.
"""

import os
import select
import signal
import subprocess
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK = 0.2
_ORPHANED = 2.0
_GONE = 10.0
"""Seconds in which what was killed must be gone."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main(arguments: list[str]) -> int:
    """Run the command to its end, or to that of whoever watches."""
    parent = os.getppid()
    control = _prctl()
    if control is not None:  # orphans of the command become ours, so that they can be found
        control(_PR_SET_CHILD_SUBREAPER, 1)
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: asked.append(1))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    grace, command = float(arguments[0]), arguments[1:]
    try:
        process = subprocess.Popen(  # noqa: S603 - what it is for
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            start_new_session=True,
            # Nothing else runs in this process, so that nothing can be locked in its child.
            preexec_fn=None if control is None else lambda: control(_PR_SET_PDEATHSIG, 9),  # noqa: PLW1509
        )
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror or error}\n")
        _tell("ended 127")
        return 0
    _tell(f"started {process.pid}")
    while process.poll() is None and not asked and os.getppid() == parent and not _closed():
        pass
    if process.returncode is not None:
        _tell(f"exited {process.returncode}")
    code = _end(process, grace)
    _tell(f"ended {code}")
    return 0


def _prctl() -> "Callable[[int, int], object] | None":
    """Linux's prctl, or None."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        import ctypes

        return ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None


def _closed() -> bool:
    """Whether nobody holds the other side of standard input; waits a moment to find out."""
    ready, _, _ = select.select([0], [], [], _LOOK)
    return bool(ready) and not os.read(0, 4096)


def _tell(line: str) -> None:
    try:
        os.write(1, f"{line}\n".encode())
    except OSError:  # nobody listens any more
        return


def _end(process: subprocess.Popen[bytes], grace: float) -> int:
    """End the group, then whatever else came of it; gives the command's exit code."""
    group = process.pid
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, _GONE)):
        if not _send(group, number):
            break
        until, orphaned = time.monotonic() + patience, False
        while time.monotonic() < until and _send(group, 0):
            _reap(process)
            if process.returncode is not None and not orphaned:
                orphaned = True  # whoever would have ended the others has gone
                until = min(until, time.monotonic() + _ORPHANED)
            time.sleep(0.05)
    until = time.monotonic() + _GONE
    while time.monotonic() < until and (left := _descendants()):
        for pid in left:
            _kill(pid)
        _reap(process)
        time.sleep(0.05)
    _reap(process)
    return -9 if process.returncode is None else process.returncode


def _send(group: int, number: int) -> bool:
    """Send a signal to a group; tells whether somebody was there. 0 only looks."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # some systems say so of a group of zombies
        return False
    return True


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Take leave of what has ended: a zombie would count as one that is there."""
    process.poll()
    for pid in _descendants(state="Z"):
        if pid != process.pid:
            try:
                os.waitpid(pid, os.WNOHANG)
            except OSError:
                continue


def _descendants(state: str = "") -> list[int]:
    """Processes that came of this one and still run; or all of a state, such as zombies."""
    parents, states = {}, {}
    try:
        names = [name for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - no imports
    except OSError:
        return []
    for name in names:
        try:
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123 - no imports
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        states[int(name)], parents[int(name)] = fields[0].decode(), int(fields[1])
    found, known = [], {os.getpid()}
    while fresh := [pid for pid, parent in parents.items() if parent in known and pid not in known]:
        known.update(fresh)
        found += fresh
    return [p for p in found if (states[p] == state if state else states[p] not in "ZX")]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
