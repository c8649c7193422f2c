"""Ratios of two things measured in turn, and the table that they end in."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

BEGIN: Final = "<!-- the last table: written by run.py -->"
END: Final = "<!-- end of the last table -->"

_PACKAGES: Final = ("pytest", "pytest-xdist", "openai", "httpx2", "pytest-mirsafety")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is measured: folder to work in, rounds, and what the command line changes.

    `instances` None leaves the number to each benchmark. `latency` is the endpoint's, in seconds.
    """

    work: Path
    rounds: int = 3
    instances: int | None = None
    concurrency: int = 64
    latency: float = 0.2
    side: int = 1024


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what, the budget, what was found; `met` None is no claim."""

    name: str
    budget: str
    found: str
    met: bool | None
    detail: str = ""

    def __str__(self) -> str:
        word = {True: "yes", False: "**no**", None: "-"}[self.met]
        return f"| {self.name} | {self.budget} | {self.found} | {word} | {self.detail} |"


@dataclass(frozen=True, slots=True)
class Ratios:
    """Measurements of two sides taken in turn, one ratio (ours / theirs) for each pair."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def each(self) -> tuple[float, ...]:
        """The ratio of each pair."""
        return tuple(a / b for a, b in zip(self.ours, self.theirs, strict=True))

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.each)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({min(self.each):.2f} to {max(self.each):.2f})"


def in_turn(rounds: int, ours: Callable[[int], float], theirs: Callable[[int], float]) -> Ratios:
    """Measure both sides `rounds` times, turn and turn about; who begins changes each round."""
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        sides = ((0, ours), (1, theirs))
        for index, measure in sides if number % 2 else reversed(sides):
            found[index].append(measure(number))
    return Ratios(tuple(found[0]), tuple(found[1]))


def machine() -> str:
    """What the numbers were measured on, in one line."""
    processor, memory = _read("/proc/cpuinfo", "model name"), _read("/proc/meminfo", "MemTotal")
    gigabytes = int(memory.split()[0]) / 2**20 if memory else 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name)))
    return (
        f"{processor or platform.processor()}, {cores} cores, {gigabytes:.0f} GB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, {packages}"
    )


def table(rows: Sequence[Row], date: str) -> str:
    """The rows as Markdown, with the machine they were measured on."""
    lines = (
        f"Measured on {date}: {machine()}.",
        "",
        "| what | must reach | measured | reached | how |",
        "|---|---|---|---|---|",
        *map(str, rows),
    )
    return "\n".join(lines)


def put_table(document: Path, text: str) -> None:
    """Replace what stands between the marks of a document.

    Raises:
        ValueError: the document lacks them.
    """
    before, begin, rest = document.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{document} lacks the marks of the table")
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}", "utf-8")


def _read(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
