"""A guarded process ends with whoever started it, with all that came of it, whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from vllm_runs import eventually, is_running

from pytest_mirsafety.servers import guardian
from pytest_mirsafety.servers.process import GuardedProcess

# A server with a child; neither minds being asked to end where it is told so.
FAMILY: Final = """
import signal, subprocess, sys, time
stubborn, stray = "stubborn" in sys.argv, "stray" in sys.argv
if stubborn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                         start_new_session=stray)
print("child", child.pid, flush=True)
time.sleep(600)
"""
STARTER: Final = """
import os, sys, time
from pytest_mirsafety.servers.process import GuardedProcess
process = GuardedProcess([sys.executable, "-c", *sys.argv[1:]], os.environ, grace=0.5)
while not process.lines:
    time.sleep(0.01)
print(process.group, process.lines[0].split()[1], process.guardian, flush=True)
time.sleep(600)
"""


class Family:
    """A guarded server and its child."""

    def __init__(self, *how: str) -> None:
        command = [sys.executable, "-c", FAMILY, *how]
        self.process = GuardedProcess(command, os.environ, grace=0.5)
        eventually(lambda: bool(self.process.lines))
        self.child = int(self.process.lines[0].split()[1])

    @property
    def pids(self) -> tuple[int, int]:
        eventually(lambda: self.process.group is not None)
        return self.process.group or 0, self.child

    def are_gone(self) -> bool:
        eventually(lambda: not any(map(is_running, self.pids)))
        return True


@pytest.fixture
def processes() -> Iterator[list[GuardedProcess]]:
    """What a test starts; all of it ends."""
    started: list[GuardedProcess] = []
    yield started
    for process in started:
        assert process.end()


def saying(script: str, **options: object) -> GuardedProcess:
    command = [sys.executable, "-c", script]
    return GuardedProcess(command, os.environ, grace=0.5, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", [(), ("stubborn",), ("stray",), ("stubborn", "stray")])
def test_all_of_it_ends_when_it_is_ended(how: tuple[str, ...]) -> None:
    family = Family(*how)
    assert all(map(is_running, family.pids))
    assert family.process.end()
    assert not any(map(is_running, family.pids))
    assert family.process.exit_code in ({-9} if "stubborn" in how else {-15})
    assert family.process.end(), "it may be ended again"


@pytest.mark.parametrize(
    ("number", "how"),
    [(signal.SIGKILL, ()), (signal.SIGTERM, ()), (signal.SIGKILL, ("stubborn",))],
)
def test_it_ends_with_whoever_started_it(number: signal.Signals, how: tuple[str, ...]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, FAMILY, *how], stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        pids = [int(pid) for pid in starter.stdout.readline().split()]
        assert len(pids) == 3
        assert all(map(is_running, pids))
        starter.send_signal(number)
    eventually(lambda: not any(map(is_running, pids)))


def test_it_ends_with_its_guardian(processes: list[GuardedProcess]) -> None:
    family = Family()
    processes.append(family.process)
    os.kill(family.process.guardian, signal.SIGKILL)
    assert family.are_gone()
    eventually(lambda: family.process.over)
    assert family.process.exit_code == -9


def test_ctrl_c_is_not_for_it(processes: list[GuardedProcess]) -> None:
    family = Family()
    processes.append(family.process)
    assert os.getpgid(family.process.guardian) != os.getpgid(0)
    assert os.getpgid(family.pids[0]) not in {os.getpgid(0), family.process.guardian}
    os.kill(family.process.guardian, signal.SIGINT)
    probe = Family()  # by the time that another has started, the signal was long there
    processes.append(probe.process)
    assert all(map(is_running, family.pids))
    assert not family.process.over


def test_what_dies_by_itself_is_noticed_and_leaves_nothing(
    processes: list[GuardedProcess],
) -> None:
    family = Family("stray")
    processes.append(family.process)
    os.kill(family.pids[0], signal.SIGKILL)
    eventually(lambda: family.process.over)
    assert family.process.exit_code == -9
    assert family.are_gone()


def test_its_exit_code_and_last_lines_are_known(processes: list[GuardedProcess]) -> None:
    process = saying("import sys; print('out'); sys.stdout.flush(); sys.exit('err')")
    processes.append(process)
    eventually(lambda: process.over)
    assert process.end()
    assert process.exit_code == 1
    assert process.lines == ("out", "err")


def test_a_command_that_is_not_there_is_over_at_once(processes: list[GuardedProcess]) -> None:
    process = GuardedProcess(["/no/such/program"], os.environ)
    processes.append(process)
    eventually(lambda: process.over)
    assert process.end()
    assert process.lines == ("/no/such/program: No such file or directory",)


def test_lines_are_printable_and_hide_what_is_secret(processes: list[GuardedProcess]) -> None:
    told: list[str] = []
    script = (
        "import sys; w = sys.stdout.buffer.write; "
        r"w(b'1%\r2%\r\n\x1b[31mred\x1b[0m\n\n\xff\n' + b'x' * 300_000 + b'\nkey=s3cret!\nend')"
    )
    process = saying(script, hidden=("s3cret",), on_line=told.append)
    processes.append(process)
    eventually(lambda: process.over)
    assert process.end()
    assert process.lines[:2] == ("1%", "2%")
    assert process.lines[-2:] == ("key=[key]!", "end")
    assert tuple(told) == process.lines
    assert all(line.isprintable() and len(line) <= 400 for line in process.lines)
    assert any("red" in line for line in process.lines)


def test_a_log_that_never_ends_is_held_in_part(processes: list[GuardedProcess]) -> None:
    process = saying("for number in range(20_000): print(number)")
    processes.append(process)
    eventually(lambda: process.over)
    assert process.end()
    assert process.lines[-1] == "19999"
    assert len(process.lines) == 2000


def test_the_guardian_needs_nothing_but_the_standard_library() -> None:
    script = (
        "import runpy, sys; before = set(sys.modules); "
        f"runpy.run_path({str(Path(guardian.__file__))!r}); "
        "print(*sorted({m.partition('.')[0] for m in set(sys.modules) - before}))"
    )
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True
    )
    assert set(found.stdout.split()) <= set(sys.stdlib_module_names) - {
        "asyncio",
        "multiprocessing",
    }
