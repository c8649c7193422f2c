"""Without --mllm the plugin costs a pytest run nothing to notice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

REPORT = """
import json, sys
import pytest
code = pytest.main(sys.argv[1:])
print("MODULES", json.dumps(sorted(sys.modules)))
"""


def modules(folder: Path, *arguments: str) -> set[str]:
    command = [sys.executable, "-c", REPORT, "--co", "-q", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    line = next(x for x in done.stdout.splitlines() if x.startswith("MODULES "))
    return set(json.loads(line.removeprefix("MODULES ")))


def test_only_the_entry_module_and_the_package_are_imported(tmp_path: Path) -> None:
    with_plugin = modules(tmp_path)
    without = modules(tmp_path, "-p", "no:mirsafety")
    assert with_plugin - without == {"pytest_mirsafety", "pytest_mirsafety.plugin"}


def test_the_options_are_declared_and_do_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(): pass\n", encoding="utf-8")
    loaded = modules(tmp_path, "--mir-report-only", "--mir-threshold=nonsense")
    assert "pytest_mirsafety.hooks" not in loaded
