"""Fixtures that several test files share."""

from __future__ import annotations

import os
import sys
import tempfile

import pytest
from hypothesis import HealthCheck, settings
from projects import Project

pytest_plugins = ["pytester"]

# A machine that is busy is no failure: no example has a time limit.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """Let the processes that tests start find their modules compiled.

    Where Python is told to write no bytecode, and the packages were installed without, each of a
    hundred processes would compile pytest and all the rest anew, for seconds. So they share
    bytecode in a folder that goes with the session.
    """
    if sys.dont_write_bytecode and os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        folder = tempfile.TemporaryDirectory(prefix="bytecode-", ignore_cleanup_errors=True)
        config.add_cleanup(folder.cleanup)
        os.environ["PYTHONPYCACHEPREFIX"] = folder.name


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    """Ten instances of analogy and ten of jump, all refused, gated at 0.2."""
    made = Project(pytester)
    made.suite()
    made.data({"analogy": 10, "jump": 10})
    made.answers()
    made.configure()
    return made
