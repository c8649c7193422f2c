"""`mirsafety init`: write a suite and a configuration into a repository."""

from __future__ import annotations

import argparse
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from . import Commands

_FILES: Final = {
    "test_mir_safetybench.py": "suites/test_mir_safetybench.py",
    "test_over_refusal.py": "suites/test_over_refusal.py",
    "mirsafety.toml": "mirsafety.toml",
}


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("init", help="write a suite and a configuration into a repository")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="FOLDER")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Write the files, all or none; never over what is there."""
    targets = {name: options.folder / target for name, target in _FILES.items()}
    if taken := [target for target in targets.values() if target.exists()]:
        raise ConfigurationError(f"{taken[0]} exists already; nothing was written")
    source = resources.files(__package__.rpartition(".")[0]) / "suites"
    try:
        for name, target in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text((source / name).read_text(encoding="utf-8"), encoding="utf-8")
            print(f"wrote {target}")
    except OSError as error:
        raise ConfigurationError(f"cannot write: {error}") from None
    print(f"try it:  pytest --mllm=demo {targets['test_mir_safetybench.py'].parent}")
    print("models:  mirsafety models")
