"""Fixtures that several test files share."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from projects import Project

pytest_plugins = ["pytester"]

MEMORY = Path("/dev/shm")  # noqa: S108 - what tests write anywhere in it has names of its own
ROOM = 4 * 2**30
"""Bytes that must be free there; all tests together write less than a tenth of it."""

# A machine that is busy is no failure: no example has a time limit.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """Take what costs time and shows nothing from the tests, and from processes that they start."""
    share_bytecode(config)
    write_to_memory(config)


def share_bytecode(config: pytest.Config) -> None:
    """Let a hundred processes find pytest and the rest compiled.

    Where Python is told to write no bytecode, and the packages were installed without, each of them
    would compile everything anew, for seconds. So they share it in a folder that goes with the
    session.
    """
    if sys.dont_write_bytecode and os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        folder = tempfile.TemporaryDirectory(prefix="bytecode-", ignore_cleanup_errors=True)
        config.add_cleanup(folder.cleanup)
        os.environ["PYTHONPYCACHEPREFIX"] = folder.name


def write_to_memory(config: pytest.Config) -> None:
    """Keep temporary files in memory, where Linux has room for them, and nobody chose a place.

    Each of a thousand stores waits for its disk more than once. What a disk still has after a loss
    of power is nothing that a test here could see.
    """
    chosen = config.getoption("basetemp") or {"TMPDIR", "PYTEST_DEBUG_TEMPROOT"} & os.environ.keys()
    if chosen or not MEMORY.is_dir() or not os.access(MEMORY, os.W_OK | os.X_OK):
        return
    found = os.statvfs(MEMORY)
    # Containers have 64 MiB of it, from which nothing may be run.
    if found.f_bavail * found.f_frsize >= ROOM and not found.f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None  # it was asked before


@pytest.fixture(autouse=True)
def nobodys_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of these tests are none of the job that runs them: its summary is not theirs."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    """Ten instances of analogy and ten of jump, all refused, gated at 0.2."""
    made = Project(pytester)
    made.suite()
    made.data({"analogy": 10, "jump": 10})
    made.answers()
    made.configure()
    return made
