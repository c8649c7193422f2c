"""The arms of a run as tables: what came of each, what it buys, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Final

from ..arms import BENIGN_TWIN, PROBES, TWIN_SUFFIX, ArmKind
from ..comparison.arms import ArmDifference
from ..comparison.wording import points
from ..gates.wording import percent
from ..records import MULTI
from ..results import ArmResult, ArmUsage, RunResult, Tally
from ..taxonomy import Relation
from .gate_tables import share_range
from .tables import NONE, Table, share, size

UNSETTLED: Final = "*"
"""Marks a difference that leaves out pairs without two verdicts."""

LEGEND: Final = (
    f"{UNSETTLED} leaves out pairs that lack a verdict; of all pairs: however those are judged"
)
AVERAGES: Final = "in points; seconds and tokens are how many more an answer took, on average"


def safety(result: RunResult) -> list[ArmResult]:
    """The arms that were asked whose answers are to be safe."""
    return [arm for arm in _asked(result) if arm.design.kind is ArmKind.SAFETY]


def twins(result: RunResult) -> list[ArmResult]:
    """The arms that were asked whose asks are harmless, and are to be answered."""
    return [arm for arm in _asked(result) if arm.design.kind is ArmKind.TWIN]


def _asked(result: RunResult) -> list[ArmResult]:
    return [arm for arm in result.arms if arm.overall.selected]


def unasked(result: RunResult) -> str:
    """Which arms were planned, and no test selected; empty where there is none."""
    names = [arm.design.name for arm in result.arms if not arm.overall.selected]
    return f"not asked: {', '.join(names)}" if names else ""


def changes(result: RunResult) -> list[ArmResult]:
    """The arms that a model could ship with: all whose answers are to be safe, but for probes."""
    return [arm for arm in safety(result) if arm.design.name not in PROBES]


def twins_of(arm: str, result: RunResult) -> ArmResult | None:
    """The twins as they are asked where instances are asked in this arm; None if they are not."""
    return result.arm(BENIGN_TWIN if arm == MULTI else f"{arm}{TWIN_SUFFIX}")


def tally_share(tally: Tally) -> Fraction | None:
    """Unsafe, or not answered, of scored; 0 of 0 has none, nor has what was stopped early."""
    counts = tally.counts
    if not counts.scored or tally.left_out:
        return None
    return Fraction(counts.unsafe, counts.scored)


def rates(result: RunResult) -> Table | None:
    """The rate of each arm, and its difference to `multi`; None where there is none but that."""
    arms = safety(result)
    if not arms:
        return None
    rows = [_rate_row(MULTI, result.overall, None)]
    rows += [_rate_row(arm.design.name, arm.overall, arm.difference) for arm in arms]
    headings = ("Arm", "ASR of scored", "Unsafe", "Scored", "Unscored", "N")
    held = ("Against multi", "Interval", "Of all pairs")
    told = [*meaning(result, arms), *parts(arms)]
    told += [LEGEND] if any(one.difference and one.difference.unsettled for one in arms) else []
    return Table((*headings, *held), tuple(rows), tuple(told))


def _rate_row(name: str, tally: Tally, held: ArmDifference | None) -> tuple[str, ...]:
    counts = tally.counts
    return (
        name,
        share(tally_share(tally)),
        f"{counts.unsafe:,}",
        f"{counts.scored:,}",
        f"{counts.unscored_total:,}",
        size(tally.planned, tally.population),
        difference(held),
        interval(held),
        bracket(held) if held is not None and held.unsettled else NONE,
    )


def difference(held: ArmDifference | None) -> str:
    """Such as `-18.9`, with a mark where it leaves pairs out; a dash where there is none."""
    if held is None or held.difference is None:
        return NONE
    return f"{points(held.difference)}{UNSETTLED * held.unsettled}"


def interval(held: ArmDifference | None) -> str:
    """Such as `-21.1 to -16.7`, rounded outward."""
    if held is None or held.low is None or held.high is None:
        return NONE
    return f"{points(held.low, up=False)} to {points(held.high, up=True)}"


def bracket(held: ArmDifference) -> str:
    """Between what the difference of all pairs can be; of settled ones, what it is."""
    if held.bracket is None:
        return NONE
    low, high = held.bracket
    return points(low) if low == high else f"{points(low)} to {points(high)}"


def in_short(held: ArmDifference | None) -> str:
    """The difference with its interval: `-18.9 (-21.1 to -16.7)`."""
    span = interval(held)
    return difference(held) if span == NONE else f"{difference(held)} ({span})"


def meaning(result: RunResult, arms: list[ArmResult]) -> Iterator[str]:
    """What the differences of these arms and their intervals are about."""
    held = [one for arm in arms if (one := arm.difference) is not None and one.low is not None]
    if not held:
        return
    confidence = percent(result.design.rules.confidence)
    seeds = ", clustered by seed question" if any(one.clustered for one in held) else ""
    exact = "; of these answers nothing is estimated" if all(one.exact for one in held) else ""
    yield (
        f"differences are in points, of the same instances; {confidence} intervals, for new items "
        f"like these{seeds}{exact}"
    )


def unsettled(arms: list[ArmResult]) -> Iterator[str]:
    """Between what the differences are that leave pairs out."""
    for arm in arms:
        held = arm.difference
        if held is not None and held.difference is not None and held.unsettled:
            counts = held.counts
            yield (
                f"{arm.design.name}{UNSETTLED}: {counts.unscored:,} of {counts.total:,} pairs lack "
                f"a verdict: of all {bracket(held)}, however they are judged"
            )


def parts(arms: list[ArmResult]) -> Iterator[str]:
    """Which arms were asked of a part of the instances only."""
    for arm in arms:
        held = arm.difference
        if held is not None and 0 < held.counts.total < held.population:
            yield (
                f"{arm.design.name}: {held.counts.total:,} of {held.population:,} instances were "
                "asked in both arms: a part has no interval"
            )


def false_refusals(result: RunResult) -> Table | None:
    """How many benign twins were not answered, plain and under each defence; None without any."""
    arms = twins(result)
    if not arms:
        return None
    rows = [
        (
            arm.design.name,
            share(tally_share(arm.overall)),
            f"{arm.overall.counts.unsafe:,}",
            f"{arm.overall.counts.scored:,}",
            f"{arm.overall.counts.unscored_total:,}",
            size(arm.overall.planned, arm.overall.population),
            refusal_range(arm),
            in_short(arm.difference),
        )
        for arm in arms
    ]
    headings = ("Twins", "Rate of scored", "Not answered", "Scored", "Unscored", "N")
    held = ("Interval", f"Against {BENIGN_TWIN}")
    return Table((*headings, *held), tuple(rows), (*refusal_meaning(result), *unsettled(arms)))


def refusal_range(arm: ArmResult) -> str:
    """The interval of the rate of not answered."""
    found = arm.false_refusals
    if found is None or found.low is None or found.high is None or arm.overall.left_out:
        return NONE
    return share_range(found.low, found.high, outward=True)


def refusal_meaning(result: RunResult) -> Iterator[str]:
    """What the interval of false refusals is about."""
    if any(refusal_range(arm) != NONE for arm in twins(result)):
        confidence = percent(result.design.rules.confidence)
        yield (
            f"twins are harmless and are to be answered; {confidence} intervals, for twins like "
            "these, with every unscored one taken for answered, then for not"
        )


def bargains(result: RunResult) -> Table | None:
    """What each arm that could ship buys, and what it costs, against asking as the benchmark does.

    None where there is none.
    """
    arms = changes(result)
    if not arms:
        return None
    rows = []
    for arm in arms:
        name = arm.design.name
        other = twins_of(name, result)
        rows.append(
            (
                name,
                in_short(arm.difference),
                NONE if other is None else in_short(other.difference),
                *more(result, name),
            )
        )
    bought = ("Against multi", "ASR", "False refusals")
    cost = ("Seconds an answer", "Tokens in", "Tokens out")
    return Table((*bought, *cost), tuple(rows), (AVERAGES,))


def more(result: RunResult, arm: str) -> tuple[str, str, str]:
    """By how much an answer took longer, and more tokens, than one in `multi`; all on average."""
    usage = result.provenance.usage
    own, base = usage.get(arm), usage.get(MULTI)
    if own is None or base is None:
        return NONE, NONE, NONE
    return (
        _more(seconds(own), seconds(base), 2),
        _more(tokens_in(own), tokens_in(base), 0),
        _more(tokens_out(own), tokens_out(base), 0),
    )


def _more(own: float | None, base: float | None, decimals: int) -> str:
    if own is None or base is None:
        return NONE
    rounded = round(Decimal(own - base), decimals)
    return f"{rounded or abs(rounded):+,f}"


def usage(result: RunResult) -> Table | None:
    """What an answer of each arm took on average; None where nothing is known of it."""
    told = result.provenance.usage
    names = [MULTI, *(arm.design.name for arm in result.arms)]
    rows = [
        (
            name,
            f"{told[name].answers:,}",
            _number(seconds(told[name]), 2),
            _number(tokens_in(told[name]), 0),
            _number(tokens_out(told[name]), 0),
        )
        for name in names
        if name in told and (told[name].counted or told[name].timed)
    ]
    if not rows or not result.arms:
        return None
    return Table(("Arm", "Answers", "Seconds each", "Tokens in", "Tokens out"), tuple(rows))


def seconds(one: ArmUsage) -> float | None:
    """From request to answer, on average."""
    return one.seconds / one.timed if one.timed else None


def tokens_in(one: ArmUsage) -> float | None:
    """Of a request, on average."""
    return one.input_tokens / one.counted if one.counted else None


def tokens_out(one: ArmUsage) -> float | None:
    """Of an answer, on average."""
    return one.output_tokens / one.counted if one.counted else None


def _number(value: float | None, decimals: int) -> str:
    return NONE if value is None else f"{value:,.{decimals}f}"


def by_relation(result: RunResult) -> Table | None:
    """The rate of each arm, and its difference, in each relation and overall."""
    arms = safety(result)
    if not arms:
        return None
    headings = ["Relation", MULTI]
    for arm in arms:
        headings += [arm.design.name, "against multi"]
    found = [tally for tally in result.relations if tally.planned]
    rows = [tuple(_cells(Relation(tally.name), tally, arms)) for tally in found]
    rows.append(tuple(_cells(None, result.overall, arms)))
    return Table(tuple(headings), tuple(rows))


def _cells(relation: Relation | None, own: Tally, arms: list[ArmResult]) -> Iterator[str]:
    """Of one relation, or of all."""
    yield own.name
    yield _of_scored(own)
    for arm in arms:
        name = own.name
        tallies = (arm.overall,) if relation is None else arm.relations
        tally = next((one for one in tallies if one.name == name), None)
        held = next((one for one in arm.differences if one.name == name), None)
        yield NONE if tally is None or not tally.planned else _of_scored(tally)
        yield in_short(held)


def _of_scored(tally: Tally) -> str:
    counts = tally.counts
    return f"{share(tally_share(tally))} ({counts.unsafe:,}/{counts.scored:,})"
