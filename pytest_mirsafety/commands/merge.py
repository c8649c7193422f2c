"""`mirsafety merge`: the shards of a run become one decision."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import whole_files
from ..errors import ConfigurationError, DataError, RunError
from ..printable import one_line

if TYPE_CHECKING:
    from ..attention.gathering import Gathered
    from ..circumstances import Circumstances
    from ..results import RecordedRun, RunResult
    from ..run_folder import Exchanges
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
    parser.add_argument(
        "--redact", action="store_true", help="leave out every text, and keep its digest"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check that these are all shards of one run, decide, write what was asked for, and report."""
    from ..reports import github, terminal

    outputs = _Outputs(options.junitxml, options.summary, options.folder)
    outputs.refuse(options.paths)
    try:
        given = _Given.of(options.paths)
        merged = _merged(given, junit_too=options.junitxml is not None, redact=options.redact)
        result = outputs.write(merged)
    except RunError:
        outputs.discard()
        raise
    for line in terminal.render(result, width=shutil.get_terminal_size().columns):
        print(github.harmless(line.text, os.environ))
    for text in github.conclude(result, merged.exit_code, os.environ):
        print(text)
    return merged.exit_code


@dataclass(frozen=True, slots=True)
class _Merged:
    """The result of all shards, and the JUnit file where one was asked for.

    `attention` is what they measured, where `--mir-attention` was given to them.
    """

    result: RunResult
    exit_code: int
    tests_failed: bool
    junit: bytes
    exchanges: Exchanges
    circumstances: Circumstances
    attention: Gathered | None


def _merged(given: _Given, *, junit_too: bool, redact: bool) -> _Merged:
    """Read everything and decide; nothing is written. With a shard that is redacted, all is.

    Raises:
        DataError: these are not all shards of one run, or a file is not as it was written.
    """
    from .. import merging, run_folder
    from ..redaction import redacted_result
    from ..reports import junit

    runs = [run_folder.read(folder) for folder in given.folders]
    result = merging.merge(runs)
    if redact or any(run.redacted for run in runs):
        result = redacted_result(result)
    files = [junit.read(path) for path in given.xml] if junit_too else []
    around = merging.circumstances(runs)
    return _Merged(
        result,
        merging.exit_code(result, runs),
        any(one.tests_failed for one in runs),
        junit.merge(files, runs, result, around) if junit_too else b"",
        run_folder.Exchanges(zip(given.folders, runs, strict=True)),
        around,
        _attention(given.folders, runs),
    )


def _attention(folders: Iterable[Path], runs: Sequence[RecordedRun]) -> Gathered | None:
    """What the shards measured; None where they were not to.

    Raises:
        DataError: a file is not as it was written.
    """
    from ..entropies import NOTE

    if not any(note.startswith(NOTE) for run in runs for note in run.notes):
        return None
    from ..attention.gathering import gather

    return gather(zip(folders, runs, strict=True))


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


@dataclass(frozen=True, slots=True)
class _Outputs:
    """Where the merge is written to, each None if it was not asked for."""

    junit: Path | None
    summary: Path | None
    folder: Path | None

    @property
    def files(self) -> list[Path]:
        """Those that are one file each."""
        return [path for path in (self.junit, self.summary) if path is not None]

    def refuse(self, given: Iterable[Path]) -> None:
        """Let nothing that is written be written twice, or be what is read, now or the next time.

        Raises:
            ConfigurationError: it would be.
        """
        from ..run_folder import FLIPS, MANIFEST, RESULTS

        read = {path.resolve() for each in given for path in (each, *each.glob("*"))}
        files = [path.resolve() for path in self.files]
        written = list(files)
        if self.folder is not None:
            folder = self.folder.resolve()
            written += [folder, folder / MANIFEST, folder / RESULTS, folder / FLIPS]
        for path in written:
            if not read.isdisjoint((path, *path.parents)):
                raise _taken(path, "would be written into what is merged")
        for path in written:
            if written.count(path) > 1 or not set(files).isdisjoint(path.parents):
                raise _taken(path, "is where two outputs would go")

    def write(self, merged: _Merged) -> RunResult:
        """Find out whether all can be written before any is; the run folder comes last.

        Gives the result with what was found of attention, which is written first.

        Raises:
            ConfigurationError: one cannot be written.
        """
        from .. import run_folder
        from ..reports import summary

        for path in self.files:
            whole_files.clear(path)
        if self.folder is not None:
            run_folder.claim(self.folder)
        result = merged.result
        if merged.attention is not None:
            found = _report_attention(self.folder, result, merged.attention)
            result = replace(result, notes=(*result.notes, *found))
        if self.junit is not None:
            whole_files.write(self.junit, [merged.junit])
        if self.summary is not None:
            pieces = summary.to_json(result, merged.exit_code)
            whole_files.write(self.summary, map(str.encode, pieces))
        if self.folder is not None:
            run_folder.write(
                self.folder,
                result,
                tests_failed=merged.tests_failed,
                exit_code=merged.exit_code,
                exchanges=merged.exchanges,
                circumstances=merged.circumstances,
            )
        return result

    def discard(self) -> None:
        """Leave nothing of an earlier merge to be read as this one, nor a part of this one."""
        from .. import run_folder

        for path in self.files:
            if path.is_file():
                with suppress(OSError):  # the exit code says it too
                    path.unlink()
        if self.folder is not None:
            run_folder.discard(self.folder)


def _report_attention(folder: Path | None, result: RunResult, found: Gathered) -> list[str]:
    """Write what all shards measured, and its comparison, as one run would; gives sentences.

    Raises:
        ConfigurationError: it cannot be written.
    """
    from ..attention import picture
    from ..attention.reporting import report
    from ..entropies import NOTE
    from ..errors import MissingExtraError

    if folder is None:
        return [f"{NOTE}name --run=FOLDER to have what the shards measured compared"]
    sentences = []
    if found.without:
        where = one_line(", ".join(found.without), 300)
        sentences.append(f"{NOTE}there is none in {where}: keep all files of a run folder")
    drawn = True
    try:
        picture.check_installed()
    except MissingExtraError as error:
        drawn = False
        sentences.append(f"{NOTE}no picture is drawn: {error}")
    shown = one_line(str(folder))
    return sentences + report(folder, result, found.answers.get, shown=shown, drawn=drawn)


def _taken(path: Path, problem: str) -> ConfigurationError:
    return ConfigurationError(f"{one_line(str(path))}: {problem}; name another")
