"""What the package offers by name, and that importing it costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest_mirsafety


def test_every_public_name_is_there() -> None:
    for name in pytest_mirsafety.__all__:
        assert getattr(pytest_mirsafety, name).__module__.startswith("pytest_mirsafety")


def test_the_names_are_sorted_and_complete() -> None:
    assert pytest_mirsafety.__all__ == sorted(pytest_mirsafety.__all__)
    assert set(dir(pytest_mirsafety)) >= {"__all__"}


def test_importing_the_package_imports_nothing_of_it() -> None:
    code = "import sys, pytest_mirsafety; print([m for m in sys.modules if 'mirsafety' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['pytest_mirsafety']"


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(pytest_mirsafety, "nonsense")
