"""The tables of a written report, as text: the same for Markdown and for the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from typing import Final

from ..breakdown import Breakdown, Cell, Rate
from ..circumstances import Circumstances
from ..comparison.regression import RegressionResult
from ..gates import Estimand, GateResult
from ..gates.wording import RATES, limit, percent
from ..results import RunResult
from ..tally import Counts
from ..taxonomy import Reason
from . import modes, words
from .gate_tables import share_range
from .increases import gate_cells

NONE: Final = "-"
"""What a cell says that has no number."""


@dataclass(frozen=True, slots=True)
class Table:
    """Headings, rows of as many cells, and remarks; the first cell of a row names it.

    `kinds` has for each row what it is, such as a decision, or nothing. `words` are the places of
    columns that hold words and not numbers, besides the first.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    remarks: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    words: frozenset[int] = frozenset()

    def kind(self, place: int) -> str:
        """What a row is; empty where nothing is to be said."""
        return self.kinds[place] if self.kinds else ""


def gates(result: RunResult, *, on_modes: bool = False) -> Table:
    """Every gate with its counts, the rate that is left open, the threshold, and the decision."""
    chosen = [gate for gate in result.gates if (gate.criterion.mode is not None) is on_modes]
    headings = ("Gate", "Decision", "Unsafe of scored", "Unscored", "N", "ASR", "Limit")
    if on_modes:
        headings = ("Gate", "Decision", "Found", "Unknown", "N", "Share of all", "Limit")
    return Table(
        headings,
        tuple(_gate(gate, report_only=result.design.report_only) for gate in chosen),
        kinds=tuple(kind(gate.decision) for gate in chosen),
        words=frozenset({1}),
    )


def increases(result: RunResult) -> Table:
    """The gates on the increase of a rate against the baseline; no row where there are none."""
    return Table(
        (
            *("Gate", "Decision", "Newly unsafe", "Newly safe", "Without two verdicts", "Pairs"),
            *("Increase in points", "Limit"),
        ),
        tuple(_increase(gate, report_only=result.design.report_only) for gate in result.regression),
        kinds=tuple(kind(gate.decision) for gate in result.regression),
        words=frozenset({1}),
    )


def _increase(gate: RegressionResult, *, report_only: bool) -> tuple[str, ...]:
    *cells, decision = gate_cells(gate, report_only=report_only)
    return gate.label, decision, *cells


def against(result: RunResult) -> str:
    """Which baseline that is, in words; empty where there is none.

    Not where it lies: the same run has the same report, from whatever folder it is made.
    """
    base = result.baseline
    if base is None or not result.regression:
        return ""
    terms = base.terms
    return f"Against the baseline: {terms.model_name}, of {words.date(terms.started)}."


def kind(decision: str) -> str:
    """A decision as one word: `pass`, `fail`, `inconclusive`, `not-evaluated`."""
    return decision.replace(" ", "-")


def _gate(gate: GateResult, *, report_only: bool) -> tuple[str, ...]:
    found = str(gate.found) if gate.criterion.mode else _share(gate.counts, gate.of_scored)
    bounded = gate.planned and not gate.left_out
    return (
        gate.criterion.label,
        words.decided(gate.decision, report_only=report_only),
        found,
        f"{gate.counts.unscored_total:,}",
        size(gate.planned, gate.population),
        share_range(gate.low, gate.high, outward=not gate.exact) if bounded else NONE,
        limit(gate.criterion),
    )


def rates(breakdown: Breakdown) -> Table:
    """ASR of each relation and of all, with its interval."""
    return Table(
        ("Relation", "ASR of scored", "Interval", "Unsafe", "Scored", "Unscored", "N", "Limit"),
        tuple(_rate(rate) for rate in breakdown.rates),
        kinds=tuple("" if one.decision is None else kind(one.decision) for one in breakdown.rates),
    )


def _rate(rate: Rate) -> tuple[str, ...]:
    interval = NONE
    if rate.low is not None and rate.high is not None:
        interval = share_range(rate.low, rate.high, outward=not rate.exact)
    return (
        rate.name,
        share(rate.share),
        interval,
        f"{rate.counts.unsafe:,}",
        f"{rate.counts.scored:,}",
        f"{rate.counts.unscored_total:,}",
        size(rate.planned, rate.population),
        NONE if rate.threshold is None else percent(rate.threshold),
    )


def interval_in_words(result: RunResult) -> str:
    """What the interval of a rate is, at the confidence of the run."""
    rules, open_ = result.design.rules, "with every unscored instance taken for safe, then unsafe"
    if result.design.shard is not None:
        return "A shard has no intervals: they are over all shards."
    if rules.estimand is Estimand.ANSWERS and not result.design.sampled:
        return f"The interval is exact for these answers and this judge, {open_}."
    about = RATES[rules.estimand]
    confidence = percent(rules.confidence)
    shared = f", the lower one over {rules.gates} gates together" if rules.gates > 1 else ""
    return f"The interval encloses {about}: one-sided bounds at {confidence}{shared}, {open_}."


def heatmap(breakdown: Breakdown) -> Table:
    """ASR of each relation in each category; what the data does not have is blank."""
    rows = [
        (
            str(relation),
            *(cell(breakdown.cells.get((relation, c))) for c in breakdown.categories),
            cell(Cell(tally.counts, tally.left_out)),
        )
        for relation, tally in zip(breakdown.relations, breakdown.tallies, strict=False)
    ]
    overall = breakdown.tallies[-1]
    columns = (cell(breakdown.columns[category]) for category in breakdown.categories)
    rows.append(("all", *columns, cell(Cell(overall.counts, overall.left_out))))
    return Table(("Relation", *map(str, breakdown.categories), "all"), tuple(rows))


def cell(one: Cell | None) -> str:
    """Such as `4.1% (12/290), 3 unscored`; blank where there is no such instance."""
    if one is None:
        return ""
    open_ = one.counts.unscored_total
    return _share(one.counts, one.share) + (f", {open_:,} unscored" if open_ else "")


def _share(counts: Counts, fraction: Fraction | None) -> str:
    return f"{share(fraction)} ({counts.unsafe:,}/{counts.scored:,})"


def share(fraction: Fraction | None) -> str:
    """Such as `4.1%`."""
    return NONE if fraction is None else f"{100 * float(fraction):.1f}%"


def size(planned: int, population: int) -> str:
    """The population, or `planned of population` where a sample was drawn of it."""
    return f"{population:,}" if planned == population else f"{planned:,} of {population:,}"


def safe_modes(result: RunResult) -> Table | None:
    """In which ways safe answers are safe; None where no mode is known."""
    if not result.overall.modes.known:
        return None
    rows = []
    for tally in modes.tallies(result):
        shares = (
            NONE
            if mode_share is None
            else f"{share(mode_share)} ({tally.modes.counts.get(mode, 0):,})"
            for mode, mode_share in modes.shares(tally.modes).items()
        )
        rows.append((tally.name, f"{tally.modes.known:,} of {tally.modes.safe:,}", *shares))
    return Table(
        ("Relation", "Mode known of safe", *(name.capitalize() for name in modes.NAMES.values())),
        tuple(rows),
        tuple(modes.remarks(result)),
    )


def unscored(breakdown: Breakdown) -> Table | None:
    """How many have no verdict, by relation and reason; None where all have one."""
    reasons: tuple[Reason, ...] = breakdown.reasons
    if not reasons:
        return None
    rows = [
        (
            tally.name,
            *(f"{tally.counts.unscored.get(reason, 0):,}" for reason in reasons),
            f"{tally.counts.unscored_total:,} of {tally.planned:,}",
        )
        for tally in breakdown.tallies
    ]
    return Table(("Relation", *map(str, reasons), "all"), tuple(rows))


def challenge(result: RunResult) -> Table | None:
    """What the judge made of known answers; None if none were put to it."""
    tried = result.design.rules.challenge
    if tried is None or not tried.rounds:
        return None
    rows = [
        (f"{count.kind}, {one.when}", str(count.asked), str(count.missed), str(count.failed))
        for one in tried.rounds
        for count in one.counts
    ]
    allowed = f"{tried.allowed} of each kind may be missed each time"
    return Table(
        ("Known answers", "Asked", "Misjudged", "Not judged"),
        tuple(rows),
        (allowed, *tried.troubles()),
    )


def cost(result: RunResult) -> Mapping[str, str]:
    """Answers, tokens, money and time, by name."""
    p = result.provenance
    rows = {
        "Answers asked now": f"{p.answers_asked:,}",
        "Answers from the store": f"{p.answers_from_store:,}",
        "Verdicts from the store": f"{p.verdicts_from_store:,}",
        "Tokens asked now": f"{p.asked_input_tokens:,} in, {p.asked_output_tokens:,} out",
        "Tokens of all answers": f"{p.input_tokens:,} in, {p.output_tokens:,} out",
        "Cost of what was asked": NONE if p.cost_usd is None else words.usd(p.cost_usd),
        "Started": words.date(p.started),
        "Took": str(timedelta(seconds=round(p.elapsed))),
    }
    if p.asked_without_usage:
        rows["Answers without token counts"] = f"{p.asked_without_usage:,}"
    return rows


def provenance(result: RunResult) -> Mapping[str, str]:
    """Of whom it was asked, on which data, judged by whom, and with which rules."""
    p = result.provenance
    rows = {
        **{name.capitalize(): text for name, text in words.provenance_rows(result).items()},
        "Decoding": p.decoding,
        "System prompt": p.system_prompt or "none",
        "Thresholds": p.thresholds_from,
        "Confidence": percent(p.confidence),
        "Data identity": f"sha256:{p.data_identity}",
        **({"Data revision": p.data_revision} if p.data_revision else {}),
        **({"Known answers": p.canaries} if p.canaries else {}),
        "pytest-mirsafety": p.package_version,
    }
    rows.pop("Tokens", None)
    return rows


def circumstances(told: Circumstances) -> Mapping[str, str]:
    """What the run ran on, and when it ended, as far as it was told; shards may have several."""
    rows = {} if told.ended is None else {"Ended": words.date(told.ended)}
    for number, one in enumerate(told.environments, start=1):
        which = f" {number}" if len(told.environments) > 1 else ""
        host, commit = one.host, one.commit
        parts = [f"{host.system} {host.machine}"]
        parts += [f"{host.cpus} CPUs"] if host.cpus else []
        rows[f"Machine{which}"] = ", ".join([*parts, *host.gpus])
        if commit is not None:
            changed = ", with changes" if commit.dirty else ""
            rows[f"Commit{which}"] = f"{commit.sha}{changed}"
        packages = sorted(one.packages.items())
        rows[f"Versions{which}"] = ", ".join(f"{name} {version}" for name, version in packages)
    return rows


def explanations(result: RunResult) -> Iterator[tuple[str, str, str, str]]:
    """Of each gate that did not pass: its decision, its name, why, and what to do next.

    Gates that say the same share one.
    """
    alike: dict[tuple[str, str, str], list[str]] = {}
    named: list[tuple[str, GateResult | RegressionResult]] = [
        *((gate.criterion.label, gate) for gate in result.gates),
        *((gate.label, gate) for gate in result.regression),
    ]
    for label, gate in named:
        if gate.decision != "pass":
            why = "; ".join(filter(None, [gate.reason, gate.tipping]))
            alike.setdefault((gate.decision, why, gate.next_step), []).append(label)
    for (decision, why, step), labels in alike.items():
        yield decision, ", ".join(labels), why, step
