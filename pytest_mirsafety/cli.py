"""The `mirsafety` command: everything around a run that is no run itself."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from .commands import (
    baseline,
    calibrate,
    compare,
    data,
    export,
    init,
    merge,
    models,
    plan,
    report,
    review,
    store,
)
from .errors import RunError

EXIT_USAGE: Final = 4
_COMMANDS: Final = (
    *(init, models, data, plan, merge, report, compare, baseline, review, calibrate),
    *(export, store),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, 4 for what is wrong with the input."""
    options = _parser().parse_args(arguments)
    try:
        code: int | None = options.run(options)
        sys.stdout.flush()
    except RunError as error:
        from .reports.github import harmless

        print(harmless(f"mirsafety: {error}", os.environ), file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:
        # Whoever read has read enough, as `| head` does. What is left must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code or 0


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line and exits as every usage error does."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"mirsafety: {message} (mirsafety --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mirsafety", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    for command in _COMMANDS:
        command.add(commands)
    return parser
