"""What the installed plugin costs a pytest run that does not use it."""

from __future__ import annotations

import json
import re
import shutil
import sys
import zipfile
from pathlib import Path

from measuring import Row, Scale
from processes import BrokenRunError, run

BUDGET_MS = 5.0
FEW_FILES = 150
"""pytest reads the name of each file of the wheel at each start: about 8 microseconds a name."""

_REPOSITORY = Path(__file__).resolve().parent.parent
_REPORT = """
import json, sys
import pytest
pytest.main(sys.argv[1:])
print("MODULES", json.dumps(sorted(sys.modules)))
"""
_IMPORT = "import pytest, pytest_mirsafety.plugin"
_IMPORT_TIME = re.compile(r"\| +(\d+) \| +pytest_mirsafety\.plugin$", re.MULTILINE)
_ENTRY = {"pytest_mirsafety", "pytest_mirsafety.plugin"}


def measure(scale: Scale) -> list[Row]:
    """Modules, time of import, and files in the wheel.

    Raises:
        BrokenRunError: nothing could be measured.
    """
    folder = scale.work / "dormant"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    grown = _modules(folder) - _modules(folder, "-p", "no:mirsafety")
    milliseconds = min(_import_ms(folder) for _ in range(3 * scale.rounds))
    files = _files_in_wheel(folder)
    return [
        Row(
            "dormant: modules",
            "entry module and package",
            str(len(grown)),
            grown == _ENTRY,
            ", ".join(f"`{name}`" for name in sorted(grown)),
        ),
        Row(
            "dormant: import",
            f"<= {BUDGET_MS:g} ms",
            f"{milliseconds:.1f} ms",
            milliseconds <= BUDGET_MS,
            "`-X importtime` of the entry module after pytest, the least of several",
        ),
        Row(
            "dormant: files in the wheel",
            f"few (<= {FEW_FILES})",
            str(files),
            files <= FEW_FILES,
            "names that pytest reads at each start",
        ),
    ]


def _modules(folder: Path, *options: str) -> set[str]:
    command = [sys.executable, "-c", _REPORT, "--co", "-q", *options]
    output = run(command, folder).expect(0).output
    line = next(line for line in output.splitlines() if line.startswith("MODULES "))
    return set(json.loads(line.removeprefix("MODULES ")))


def _import_ms(folder: Path) -> float:
    output = run([sys.executable, "-X", "importtime", "-c", _IMPORT], folder).expect(0).output
    if (found := _IMPORT_TIME.search(output)) is None:
        raise BrokenRunError("-X importtime did not name the entry module")
    return int(found[1]) / 1000


def _files_in_wheel(folder: Path) -> int:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    run(build, _REPOSITORY).expect(0)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return len(archive.namelist())
