"""The closing section in the terminal: a table of gates, the findings, the ruling."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from ..arms import ArmKind, kind_of
from ..gates.wording import AGAINST
from ..printable import one_line
from ..results import NOT_SELECTED, InstanceOutcome, RunResult
from ..sharding import Shard
from ..taxonomy import Status
from ..trials import Trials
from . import flips, modes, words
from .arms import arms
from .gate_tables import share_range, table
from .increases import increases
from .lines import BOLD, COLOURS, PLAIN, Line
from .merging import merge_command
from .tables import explanations

MAX_LISTED: Final = 12
Zone = tuple[Fraction, Fraction]


@dataclass(frozen=True, slots=True)
class Planned:
    """What a run is about to ask: `asked` of the data's `population` instances, each so often.

    `shard` is which part of a run this is; `kept` says that a run folder will hold its result.
    `cautions` are sentences on what keeps gates from passing, or is not asked as usual. `arms` are
    the ways of asking beside the benchmark's own.
    """

    model: str
    data: str
    asked: int
    population: int
    shard: Shard | None = None
    kept: bool = True
    cautions: tuple[str, ...] = ()
    trials: Trials = field(default_factory=Trials)
    arms: tuple[str, ...] = ()


def render(
    result: RunResult, *, width: int = 80, folder: str | None = None, page: str | None = None
) -> list[Line]:
    """The section's lines, none longer than the width unless one name or word is.

    `folder` is the run folder that holds the result, as the user named it, and `page` the report
    in it, if there is one.
    """
    parts: Iterable[Iterable[Line]] = (
        _provenance(result, width),
        table(result, width),
        increases(result, width),
        arms(result, width),
        flips.lines(result, width),
        _modes(result, width),
        _explanations(result, width),
        _outcomes(_listed(result), width),
        _notes([*result.notes, *words.left_out(result)], width),
        _page(page, width),
        _decision(result, width, folder)
        if result.design.shard is None
        else _shard(result.design.shard, width, folder),
    )
    return [line for part in parts for line in part]


def header(plan: Planned, zones: Mapping[str, Zone], *, width: int = 80) -> list[str]:
    """What is about to be asked, and at which rates the gates could decide nothing."""
    whole = plan.asked == plan.population
    size = f"all {plan.population}" if whole else f"a sample of {plan.asked} of {plan.population}"
    if plan.shard is not None:
        size = f"shard {plan.shard}, {plan.asked} of {plan.population}"
    often = f", {plan.trials}" if plan.trials.several else ""
    data = f"{one_line(plan.data)}{often}"
    lines = [f"mirsafety: {one_line(plan.model)}, {size} instances of {data}"]
    if plan.arms:
        text = f"mirsafety: also asked as {', '.join(plan.arms)}"
        lines += textwrap.wrap(text, width, subsequent_indent=" " * len("mirsafety: "))
    if plan.shard is not None and not plan.kept:
        lines += textwrap.wrap(f"mirsafety: {_NOT_KEPT}", width, subsequent_indent=" " * 11)
    for caution in plan.cautions:
        lines += textwrap.wrap(
            f"mirsafety: {one_line(caution, 1000)}",
            width,
            subsequent_indent=" " * len("mirsafety: "),
            break_on_hyphens=False,
        )
    if zones:
        shown = ", ".join(f"{name} {share_range(*zone)}" for name, zone in zones.items())
        text = f"mirsafety: too close to the threshold to decide, if observed: {shown}"
        lines += textwrap.wrap(text, width, subsequent_indent=" " * len("mirsafety: "))
    return lines


def _provenance(result: RunResult, width: int) -> Iterator[Line]:
    for name, text in words.provenance_rows(result).items():
        yield from _wrapped(f"{name + ':':9}{words.shortened(text)}", width, indent=9)
    yield Line("")


def _modes(result: RunResult, width: int) -> Iterator[Line]:
    lines = modes.table(result)
    for number, line in enumerate(lines):
        yield Line(line, PLAIN if number else BOLD)
    for remark in modes.remarks(result):
        yield from _wrapped(f"  {remark}", width, indent=4)
    if lines:
        yield Line("")


def _explanations(result: RunResult, width: int) -> Iterator[Line]:
    """Why a gate did not pass, and what to do; gates that say the same share a paragraph."""
    decision = None
    for decision, labels, why, next_step in explanations(result):
        yield from _wrapped(f"{labels}: {why}", width, indent=2, markup=COLOURS[decision])
        if next_step:
            yield from _wrapped(f"  next: {next_step}", width, indent=4)
    if decision is not None:
        yield Line("")


def _listed(result: RunResult) -> list[InstanceOutcome]:
    """What is told by name: of other arms only which twins were not answered, and the unscored.

    What is unsafe in another arm is in its count, and in the page.
    """
    found = list(result.outcomes)
    for arm in result.arms:
        twins = arm.design.kind is ArmKind.TWIN
        found += [
            one
            for one in arm.outcomes
            if (twins or one.outcome.reason is not None) and one.outcome.detail != NOT_SELECTED
        ]
    return found


def _outcomes(outcomes: Sequence[InstanceOutcome], width: int) -> Iterator[Line]:
    """Findings with their evidence, then the unscored by name; those with one cause together."""
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for entry in outcomes:
        outcome = entry.outcome
        if outcome.status is not Status.SAFE:
            name = outcome.reason or AGAINST[kind_of(entry.arm)]
            alike[name, outcome.detail].append(entry.instance_id)
    sizes = Counter({name: 0 for name, _ in alike})
    for (name, _), ids in alike.items():
        sizes[name] += len(ids)
    found = tuple(AGAINST.values())
    for name in sorted(sizes, key=lambda name: name not in found):
        yield Line(f"{name} ({sizes[name]})", BOLD)
        causes = {detail: ids for (other, detail), ids in alike.items() if other == name}
        yield from _named(causes, width, each=name in found)
    if alike:
        yield Line("")


def _named(causes: Mapping[str, Sequence[str]], width: int, *, each: bool) -> Iterator[Line]:
    """The ids under one heading, up to a limit: each with its detail, or by their detail."""
    left, more = MAX_LISTED, 0
    for detail, ids in causes.items():
        shown = [] if detail == NOT_SELECTED else ids[:left]
        left -= len(shown)
        if each or len(ids) == 1:
            more += len(ids) - len(shown)
            for instance_id in shown:
                yield Line("  " + one_line(f"{instance_id}  {detail}", width - 2))
            continue
        yield from _wrapped(f"  {one_line(detail, 400) or 'no detail'}:", width, indent=4)
        for instance_id in shown:
            yield Line("    " + one_line(instance_id, width - 4))
        yield from _left(len(ids) - len(shown))
    yield from _left(more)


def _left(number: int) -> Iterator[Line]:
    if number:
        yield Line(f"    (+{number} more; --mir-summary=FILE has them all)")


def _notes(notes: Sequence[str], width: int) -> Iterator[Line]:
    for note in notes:
        yield from _wrapped(f"note: {one_line(note, 1000)}", width)


def _page(page: str | None, width: int) -> Iterator[Line]:
    if page is not None:
        yield from _wrapped(f"report: {one_line(page)}", width)


def _decision(result: RunResult, width: int, folder: str | None) -> Iterator[Line]:
    if folder is not None:
        files = ["run.json", "results.jsonl", *(["flips.jsonl"] if result.flips else [])]
        yield from _wrapped(f"kept in {one_line(folder)}: {', '.join(files)}", width)
    sentence = words.sentence(result)
    colour = COLOURS.get(result.ruling, {"yellow": True})
    yield from _wrapped(sentence, width, markup={**colour, "bold": True})


_NOT_KEPT: Final = (
    "note: without --mir-run=FOLDER nothing of this shard is kept for mirsafety merge"
)


def _shard(shard: Shard, width: int, folder: str | None) -> Iterator[Line]:
    """What a shard says in place of a ruling: where its part of one is, and who decides."""
    markup = {"yellow": True, "bold": True}
    if folder is None:
        yield from _wrapped(_NOT_KEPT, width)
        step = "run it again with --mir-run=FOLDER: what was answered is kept"
    else:
        step = f"once all {shard.count} have run, decide with"
    sentence = f"NO DECISION: shard {shard} decides nothing; {step}"
    yield from _wrapped(sentence, width, markup=markup)
    if folder is not None:
        for line in merge_command(folder, shard, width=width):
            yield Line(line, markup)


def _wrapped(
    text: str, width: int, *, indent: int = 0, markup: Mapping[str, bool] | None = None
) -> Iterator[Line]:
    for line in textwrap.wrap(
        text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    ):
        yield Line(line, markup or {})
