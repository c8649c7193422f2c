"""Measures what the performance claims rest on, as ratios in one run.

    python benchmarks/run.py                                all but the slow one
    python benchmarks/run.py throughput cached --rounds=5
    python benchmarks/run.py all scale --write              into README.md

Exit code 0: every budget was met; 1: one was not; 2: a run was broken, so that there is no number.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import cached
import dormant
import throughput
import workers
from measuring import Row, Scale, put_table, table
from processes import BrokenRunError

BENCHMARKS: Final[dict[str, Callable[[Scale], list[Row]]]] = {
    "throughput": throughput.measure,
    "cached": cached.measure,
    "workers": workers.measure,
    "dormant": dormant.measure,
    "scale": cached.measure_many,
}
SLOW: Final = frozenset({"scale"})
README: Final = Path(__file__).with_name("README.md")


def main() -> int:
    """Run the benchmarks that are named, print the table, and give the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=["all"], choices=["all", *BENCHMARKS])
    parser.add_argument("--rounds", type=int, default=3, help="pairs of measurements")
    parser.add_argument("--instances", type=int, help="instead of each benchmark's own number")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.2, help="of the endpoint, in seconds")
    parser.add_argument("--side", type=int, default=1024, help="of the pictures, in pixels")
    parser.add_argument("--work", type=Path, help="folder for data and runs; kept, up to 3 GB")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    options = parser.parse_args()
    work = options.work or Path(tempfile.gettempdir()) / "pytest-mirsafety-benchmarks"
    work.mkdir(parents=True, exist_ok=True)
    scale = Scale(
        work=work.absolute(),
        rounds=options.rounds,
        instances=options.instances,
        concurrency=options.concurrency,
        latency=options.latency,
        side=options.side,
    )
    chosen = set(options.names) | (BENCHMARKS.keys() - SLOW if "all" in options.names else set())
    rows: list[Row] = []
    broken = False
    for name in filter(chosen.__contains__, BENCHMARKS):
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            rows += BENCHMARKS[name](scale)
        except BrokenRunError as error:
            broken = True
            print(f"{name} is BROKEN: {error}", file=sys.stderr)
    text = table(rows, dt.datetime.now(dt.UTC).date().isoformat())
    print(text)
    if options.write and not broken:
        put_table(README, text)
    return 2 if broken else int(any(row.met is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
