"""`mirsafety store`: look at the store of answers, prune, export and verify it."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from ..errors import ConfigurationError
from ..printable import one_line

if TYPE_CHECKING:
    from ..store.upkeep import Attempts, ModelAnswers, Selection, StoreUpkeep
    from ..store.verdict_upkeep import JudgeVerdicts, VerdictSelection
    from . import Commands

EXIT_WRONG: Final = 1
_MOST_PROBLEMS: Final = 100
_WIDTH: Final = 80
_AGE: Final = re.compile(r"([0-9]{1,6})([hdw])")
_SECONDS: Final = {"h": 3600, "d": 86400, "w": 7 * 86400}


def add(commands: Commands) -> None:
    """Declare the command and its parts."""
    parser = commands.add_parser("store", help="list, prune, export or verify the stored answers")
    parts = parser.add_subparsers(required=True, metavar="ACTION")
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--store", type=Path, metavar="FILE", help="instead of the configured one")
    where.add_argument("--config", type=Path, metavar="FILE", help="instead of the one found here")
    model = argparse.ArgumentParser(add_help=False)
    model.add_argument(
        "--model", metavar="NAME", help="answers of this model only, as in the list; or a pattern"
    )

    model.add_argument(
        "--judge", metavar="NAME", help="verdicts of this judge only, as in the list; or a pattern"
    )

    listing = parts.add_parser("list", parents=[where], help="print what is kept")
    listing.set_defaults(run=run_list)
    prune = parts.add_parser("prune", parents=[where, model], help="remove answers and verdicts")
    prune.add_argument("--older-than", metavar="AGE", help="only those older than 12h, 30d, 8w")
    prune.add_argument("--dry-run", action="store_true", help="print what it would remove")
    prune.set_defaults(run=run_prune)
    export = parts.add_parser("export", parents=[where, model], help="write all as JSON lines")
    export.add_argument("file", nargs="?", type=Path, metavar="FILE", help="instead of printing")
    export.set_defaults(run=run_export)
    verify = parts.add_parser("verify", parents=[where], help="check that the store is whole")
    verify.set_defaults(run=run_verify)


def run_list(options: argparse.Namespace) -> None:
    """Answers by model, verdicts by judge, and attempts by what they were on."""
    from ..store.upkeep import Selection

    with _opened(options) as store:
        models, judges, attempts = store.models(), store.verdicts.judges(), store.attempts()
        behind = _attention(store.attention.number(Selection()))
        kept = ", ".join(filter(None, [_answers(models), _verdicts(judges), behind]))
        print(f"{_shown(store.path)}: {kept}, {_size(store.path.stat().st_size)} on disk")
    _print_models(models)
    _print_judges(judges)
    _print_attempts(attempts)


def run_prune(options: argparse.Namespace) -> None:
    """Remove what is selected, and say what it was."""
    if options.model is None and options.judge is None and options.older_than is None:
        raise ConfigurationError(
            "say what to remove: --model=NAME, --judge=NAME, --older-than=30d, or several"
        )
    before = None if options.older_than is None else time.time() - _age(options.older_than)
    with _opened(options, alone=not options.dry_run) as store:
        answers, verdicts = _selected(store, options, before)
        models = [] if answers is None else store.models(answers)
        judges = [] if verdicts is None else store.verdicts.judges(verdicts)
        behind = "" if answers is None else _attention(store.attention.number(answers))
        if not options.dry_run:
            store.prune(answers, verdicts)
        would = "would remove" if options.dry_run else "removed"
        parts = [_answers(models) if answers is not None else "", behind, _verdicts(judges)]
        what = " and ".join(filter(None, parts)) or "0 verdicts"
        print(f"{_shown(store.path)}: {would} {what}; attempts stay counted")
    _print_models(models)
    _print_judges(judges)


def run_export(options: argparse.Namespace) -> None:
    """Each answer as a line of JSON (key, model, request, completion), then all else.

    That is the attention behind answers, where it was measured, and the verdicts.
    """
    with _opened(options) as store:
        answers, verdicts = _selected(store, options)
        some = () if answers is None else store.lines(answers)
        behind = () if answers is None else store.attention.lines(answers)
        others = () if verdicts is None else store.verdicts.lines(verdicts)
        if options.file is None:
            _write(sys.stdout, chain(some, behind, others))
            return
        with _new_file(options.file) as file:
            numbers = _write(file, some), _write(file, behind), _write(file, others)
    parts = (
        f"{numbers[0]:,} answers" if answers is not None else "",
        _attention(numbers[1]),
        _number(numbers[2]),
    )
    print(f"wrote {' and '.join(filter(None, parts)) or '0 verdicts'} to {_shown(options.file)}")


def run_verify(options: argparse.Namespace) -> int:
    """Whether the file is whole, and every answer and verdict in it what its key says."""
    from ..store.upkeep import Selection

    with _opened(options) as store:
        number = 0
        for number, problem in enumerate(store.problems(), start=1):
            if number <= _MOST_PROBLEMS:
                print(one_line(problem, 400))
        name = _shown(store.path)
        if not number:
            behind = _attention(store.attention.number(Selection()))
            kept = [_answers(store.models()), _verdicts(store.verdicts.judges()), behind]
            print(f"{name}: {', '.join(filter(None, kept))}, all in order")
            return 0
    count = "1 problem" if number == 1 else f"{number:,} problems"
    more = f", the first {_MOST_PROBLEMS} above" if number > _MOST_PROBLEMS else ""
    print(f"{name}: {count}{more}; move it away, or restore a copy of it")
    return EXIT_WRONG


def _opened(options: argparse.Namespace, *, alone: bool = False) -> StoreUpkeep:
    from .. import config
    from ..store.upkeep import StoreUpkeep

    path = options.store
    if path is None:
        configuration = config.load(Path.cwd(), options.config)
        path = configuration.base / configuration.settings.store
    return StoreUpkeep.open(path, alone=alone)


def _selected(
    store: StoreUpkeep, options: argparse.Namespace, before: float | None = None
) -> tuple[Selection | None, VerdictSelection | None]:
    """The answers and the verdicts that are meant; who names one kind alone means that one."""
    from ..store.upkeep import Selection
    from ..store.verdict_upkeep import VerdictSelection

    model, judge = options.model, options.judge
    answers = verdicts = None
    if model is not None or judge is None:
        answers = Selection(None if model is None else store.named(model), before)
    if judge is not None or model is None:
        judges = None if judge is None else store.verdicts.named(judge)
        verdicts = VerdictSelection(judges, before)
    return answers, verdicts


def _age(text: str) -> float:
    """Seconds.

    Raises:
        ConfigurationError: no number of hours, days or weeks.
    """
    if (match := _AGE.fullmatch(text)) is None:
        raise ConfigurationError(f"--older-than takes 12h, 30d or 8w, not '{one_line(text, 60)}'")
    return int(match[1]) * _SECONDS[match[2]]


def _write(file: TextIO, lines: Iterable[str]) -> int:
    written = 0
    for line in lines:
        file.write(f"{line}\n")
        written += 1
    return written


@contextmanager
def _new_file(path: Path) -> Iterator[TextIO]:
    """A private file that was not there; it is taken away again if it was not finished."""
    try:
        path.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        raise ConfigurationError(f"{_shown(path)} exists already; nothing was written") from None
    except OSError as error:
        raise ConfigurationError(f"cannot write {_shown(path)}: {error.strerror}") from None
    try:
        with path.open("w", encoding="ascii") as file:
            yield file
    except OSError as error:
        path.unlink()
        raise ConfigurationError(f"cannot write {_shown(path)}: {error.strerror}") from None
    except BaseException:
        path.unlink()
        raise


def _print_models(models: list[ModelAnswers]) -> None:
    if models:
        print(f"\n{'answers':>9}  {'first':10}  {'last':10}  {'size':>8}  model")
    for m in models:
        numbers = f"{m.answers:9,}  {_date(m.first)}  {_date(m.last)}  {_size(m.size):>8}  "
        _print_row(numbers, m.model)


def _print_judges(judges: list[JudgeVerdicts]) -> None:
    if judges:
        print(f"\n{'verdicts':>9}  {'first':10}  {'last':10}  {'size':>8}  judge")
    for j in judges:
        numbers = f"{j.verdicts:9,}  {_date(j.first)}  {_date(j.last)}  {_size(j.size):>8}  "
        _print_row(numbers, j.judge)


def _print_attempts(attempts: list[Attempts]) -> None:
    if attempts:
        print(f"\n{'attempts':>9}  {'first':10}  {'last':10}  of what")
    for a in attempts:
        about = a.about or f"data, model and judge {a.identity[:12]}"
        asked = "; ".join(f"{_times(number)} {what}" for what, number in a.asked)
        numbers = f"{a.number:9,}  {_date(a.first)}  {_date(a.last)}  "
        _print_row(numbers, f"{one_line(about, 400)}: {asked}")


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number:,} times")


def _print_row(numbers: str, text: str) -> None:
    """The numbers, and the whole text in the column beside them."""
    lines = textwrap.wrap(one_line(text, 1000), _WIDTH - len(numbers)) or ["-"]
    print(numbers + lines[0])
    for line in lines[1:]:
        print(" " * len(numbers) + line)


def _answers(models: list[ModelAnswers]) -> str:
    number = sum(m.answers for m in models)
    return f"{number:,} answer{'' if number == 1 else 's'}"


def _verdicts(judges: list[JudgeVerdicts]) -> str:
    """Their number; empty if there are none."""
    return _number(sum(j.verdicts for j in judges))


def _number(verdicts: int) -> str:
    return f"{verdicts:,} verdict{'' if verdicts == 1 else 's'}" if verdicts else ""


def _attention(answers: int) -> str:
    """Behind how many it was measured; empty if behind none."""
    return f"the attention behind {answers:,}" if answers else ""


def _size(size: int) -> str:
    """In decimal units, at most eight characters wide."""
    power = min(3, (len(str(int(size))) - 1) // 3)
    digits = 1 if power else 0
    return f"{size / 1000**power:.{digits}f} {('B', 'kB', 'MB', 'GB')[power]}"


def _date(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).date().isoformat()
    except (ValueError, OverflowError, OSError, TypeError):
        return "?" * 10


def _shown(path: Path) -> str:
    """As somebody in this folder would name it."""
    here = Path.cwd()
    near = path.relative_to(here) if path.is_relative_to(here) else path
    return one_line(str(near), 400)
