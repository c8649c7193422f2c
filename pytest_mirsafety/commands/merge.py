"""`mirsafety merge`: the shards of a run become one decision."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigurationError, DataError
from ..printable import one_line

if TYPE_CHECKING:
    from . import Commands


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("merge", help="decide over all shards of a run")
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="the shards' run folders, and their JUnit .xml files if those are elsewhere",
    )
    parser.add_argument("--junitxml", type=Path, metavar="FILE", help="write one JUnit file of all")
    parser.add_argument("--run", dest="folder", type=Path, metavar="FOLDER", help="write a folder")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="write the summary as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check that these are all shards of one run, decide, write what was asked for, and report."""
    from .. import merging, run_folder
    from ..reports import junit, summary, terminal

    given = _Given.of(options.paths)
    outputs = [path for path in (options.junitxml, options.summary) if path is not None]
    given.refuse(outputs, options.folder)
    for path in outputs:
        _clear(path)
    if options.folder is not None:
        run_folder.claim(options.folder)
    runs = [run_folder.read(folder) for folder in given.folders]
    result = merging.merge(runs)
    code = merging.exit_code(result, runs)
    if options.junitxml is not None:
        files = [junit.read(path) for path in given.xml]
        _write(options.junitxml, junit.merge(files, runs, result))
    if options.summary is not None:
        _write(options.summary, "".join(summary.to_json(result, code)).encode())
    if options.folder is not None:
        failed = any(one.tests_failed for one in runs)
        run_folder.write(options.folder, result, tests_failed=failed, exit_code=code)
    for line in terminal.render(result, width=shutil.get_terminal_size().columns):
        print(line.text)
    return code


@dataclass(frozen=True, slots=True)
class _Given:
    """The folders and the JUnit files that were named, or are in the folders."""

    folders: tuple[Path, ...]
    xml: tuple[Path, ...]

    @classmethod
    def of(cls, paths: Iterable[Path]) -> _Given:
        """What the paths are.

        Raises:
            DataError: one is neither a folder nor an .xml file, or is not there.
        """
        folders, xml = [], []
        for path in paths:
            if path.is_dir():
                folders.append(path)
                xml += sorted(path.glob("*.xml"))
            elif path.suffix == ".xml" and path.exists():
                xml.append(path)
            else:
                problem = (
                    "is neither a run folder nor" if path.exists() else "there is no such folder or"
                )
                raise DataError(f"{one_line(str(path))}: {problem} JUnit .xml file")
        return cls(tuple(folders), tuple({path.resolve(): path for path in xml}.values()))

    def refuse(self, outputs: Sequence[Path], folder: Path | None) -> None:
        """Let nothing that is written be one of the things that are read, now or the next time.

        Raises:
            ConfigurationError: it would be.
        """
        read = {path.resolve() for path in (*self.folders, *self.xml)}
        written = [path.resolve() for path in outputs] + ([folder.resolve()] if folder else [])
        for path in written:
            if path in read or any(parent in read for parent in path.parents):
                raise ConfigurationError(
                    f"{one_line(str(path))}: would be written into what is merged; name another"
                )


def _clear(path: Path) -> None:
    """Find out now that a file cannot be written, and leave no earlier one to be read.

    Raises:
        ConfigurationError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
        if path.is_file():
            path.unlink()
    except OSError as error:
        raise _cannot_write(path, error) from None


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise _cannot_write(path, error) from None


def _cannot_write(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"{one_line(str(path))}: cannot be written: {error.strerror}")
