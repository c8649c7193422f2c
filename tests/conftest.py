"""Fixtures that several test files share."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from projects import Project

pytest_plugins = ["pytester"]

# A machine that is busy is no failure: no example has a time limit.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


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
