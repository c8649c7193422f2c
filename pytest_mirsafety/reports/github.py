"""GitHub Actions: gates as annotations, the report as the step's summary, and nothing smuggled.

The runner reads every line that a step prints, to either stream. One that begins with `::` is a
command to it, and `##[` is one wherever it stands. What a model or a judge said must be neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from ..gates import Decision
from ..printable import one_line
from ..results import RunResult
from .junit import GateCase

SUMMARY_LIMIT: Final = 2**20
"""Bytes of all summaries of one step: GitHub shows none of a larger file."""

_BEGIN: Final = re.compile(r"((?:^|[\r\n])\s*)::")
_FILE: Final = "GITHUB_STEP_SUMMARY"
_MESSAGE: Final = 600
_CUT: Final = "\n\n*The rest does not fit into a step summary: see the run folder.*\n"
_DATA: Final = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_PROPERTY: Final = {**_DATA, ":": "%3A", ",": "%2C"}
_COMMANDS: Final = {Decision.FAIL: "error", Decision.INCONCLUSIVE: "warning"}


def is_active(environ: Mapping[str, str]) -> bool:
    """Whether GitHub Actions runs this."""
    return environ.get("GITHUB_ACTIONS") == "true"


def harmless(text: str, environ: Mapping[str, str]) -> str:
    """Text whose lines the runner takes for text; elsewhere as it is."""
    if not is_active(environ):
        return text
    return _BEGIN.sub(r"\1: :", text.replace("##[", "## ["))


def conclude(result: RunResult, exit_code: int, environ: Mapping[str, str]) -> Iterator[str]:
    """Add the report to the step's summary, if there is one; gives the lines to print.

    A summary that cannot be written is one warning, and changes nothing.
    """
    if is_active(environ):
        yield from commands(result)
    if name := environ.get(_FILE):
        from . import markdown

        try:
            _append(Path(name), markdown.render(result, exit_code=exit_code))
        except OSError as error:
            problem = f"{_FILE} cannot be written: {error.strerror or error}"
            yield _command("warning", "mirsafety", problem) if is_active(environ) else problem


def commands(result: RunResult) -> Iterator[str]:
    """A command of the runner for each gate that keeps the model from shipping."""
    if result.design.report_only:
        return
    for case in GateCase.all_of(result):
        decision = case.decision
        if decision is Decision.NOT_EVALUATED and result.design.require_all:
            decision = Decision.INCONCLUSIVE  # as which it counts
        if (command := _COMMANDS.get(decision)) is not None:
            title = f"{case.name} {case.decision.upper()}"
            yield _command(command, title, case.text.replace("\n", "; "))


def _command(name: str, title: str, message: str) -> str:
    title = _escaped(one_line(title), _PROPERTY)
    return f"::{name} title={title}::{_escaped(one_line(message, _MESSAGE), _DATA)}"


def _escaped(text: str, characters: Mapping[str, str]) -> str:
    return "".join(characters.get(c, c) for c in text)


def _append(path: Path, text: str) -> None:
    """Add as much as fits, whole lines of it.

    Raises:
        OSError: the file cannot be written, is no regular one, or is full.
    """
    if path.exists() and not path.is_file():
        raise OSError(0, "is no regular file")
    room = SUMMARY_LIMIT - (path.stat().st_size if path.exists() else 0)
    content = f"{text.rstrip()}\n\n".encode(errors="replace")
    if len(content) > room:
        cut = _CUT.encode()
        begin = content[: max(0, room - len(cut))]
        if b"\n" not in begin:
            raise OSError(0, "is full")
        content = begin[: begin.rindex(b"\n")] + cut
    with path.open("ab") as file:
        file.write(content)
