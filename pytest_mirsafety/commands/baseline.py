"""`mirsafety baseline`: the outcomes of a run in one file, to be kept and compared with."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import ConfigurationError
from ..printable import one_line

if TYPE_CHECKING:
    from . import Commands

_DEFAULT: Final = Path("baseline.json")


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("baseline", help="pin a run as one file to compare with")
    parser.add_argument("source", type=Path, metavar="RUN", help="a run folder (--mir-run)")
    parser.add_argument(
        "-o",
        dest="file",
        type=Path,
        default=_DEFAULT,
        metavar="FILE",
        help=f"where to ({_DEFAULT})",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Write the file, which holds ids and outcomes and no text."""
    from ..run_folder.pinned import pin, read_side, side_digest

    folder, target = options.source.resolve(), options.file.resolve()
    if folder in (target, *target.parents):
        raise ConfigurationError(
            f"{one_line(str(options.file))}: would be written into the run; name another file"
        )
    side = read_side(options.source)
    pin(side, options.file)
    unscored = sum(one.reason is not None for one in side.items)
    print(
        f"{one_line(str(options.file))}: {len(side.items)} instances of {side.where} "
        f"({unscored} without a verdict), digest {side_digest(side)[:12]}"
    )
    if unscored:
        print("what has no verdict in a baseline counts as safe there when a gate is to pass")
