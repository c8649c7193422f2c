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
"""For the import of the entry module, and the names of the wheel's files, read at each start."""

_REPOSITORY = Path(__file__).resolve().parent.parent
_REPORT = """
import json, sys
import pytest
pytest.main(sys.argv[1:])
print("MODULES", json.dumps(sorted(sys.modules)))
"""
_IMPORT = "import pytest, pytest_mirsafety.plugin"
_NAMES = """
import importlib.metadata, pathlib, sys, timeit
installed = importlib.metadata.Distribution.at(pathlib.Path(sys.argv[1]))
read = lambda: [str(file) for file in installed.files]
print("NAMES", len(read()), min(timeit.repeat(read, number=1, repeat=20)))
"""
_IMPORT_TIME = re.compile(r"\| +(\d+) \| +pytest_mirsafety\.plugin$", re.MULTILINE)
_ENTRY = {"pytest_mirsafety", "pytest_mirsafety.plugin"}


def measure(scale: Scale) -> list[Row]:
    """Modules, and the time that they and the wheel's file names take.

    Raises:
        BrokenRunError: nothing could be measured.
    """
    folder = scale.work / "dormant"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    grown = _modules(folder) - _modules(folder, "-p", "no:mirsafety")
    imported = min(_import_ms(folder) for _ in range(3 * scale.rounds))
    files, named = _names_in_wheel(folder)
    return [
        Row(
            "dormant: modules",
            "entry module and package",
            str(len(grown)),
            grown == _ENTRY,
            ", ".join(f"`{name}`" for name in sorted(grown)),
        ),
        Row(
            "dormant: time of a start",
            f"<= {BUDGET_MS:g} ms",
            f"{imported + named:.1f} ms",
            imported + named <= BUDGET_MS,
            f"{imported:.1f} ms for the import of the entry module, by `-X importtime` after "
            f"pytest; {named:.1f} ms for the names of the wheel's {files} files, which pytest "
            "reads; each the least of several",
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


def _names_in_wheel(folder: Path) -> tuple[int, float]:
    """How many files the wheel installs, and the milliseconds that reading their names takes."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    run(build, _REPOSITORY).expect(0)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    (information,) = (folder / "installed").glob("*.dist-info")
    output = run([sys.executable, "-c", _NAMES, str(information)], folder).expect(0).output
    _, files, seconds = output.split()
    return int(files), 1000 * float(seconds)
