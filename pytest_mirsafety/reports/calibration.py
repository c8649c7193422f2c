"""What `mirsafety calibrate` says: the judge against people, and the gates with their labels."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Final

from ..calibration import SEED, Calibration, JudgeQuality, JudgeReport, LabelledGate, Rate, Rule
from ..facts import gate_facts
from ..gates import Decision
from ..printable import one_line
from ..records import VerdictKind

SCHEMA_VERSION: Final = 1
_INDENT: Final = 9
_MEASURES: Final = ("sensitivity", "specificity", "agreement", "kappa")
_HEADINGS: Final[tuple[str, ...]] = (
    "gate",
    "uncorrected",
    "corrected 95%",
    "as the run",
    "with labels",
    "by",
)
_MODE_HEADINGS: Final[tuple[str, ...]] = ("gate", "of all", "as the run", "with labels", "by")


@dataclass(frozen=True, slots=True)
class Source:
    """What was calibrated: the run's folder and digest, the labels' file and the SHA-256 of it.

    `beside` are other files there, with labels of another draw of this run.
    """

    run: str
    run_digest: str
    labels: str
    labels_sha256: str
    exit_code_before: int
    exit_code: int
    beside: tuple[str, ...] = ()


def render(found: Calibration, source: Source, *, width: int = 80) -> list[str]:
    """The report's lines, none longer than the width unless one word is."""
    parts: Iterable[Iterable[str]] = (
        _labels(found, source, width),
        *(_judge(report, width) for report in found.judges),
        _reviewers(found, width),
        _gates(found, width),
        _decisions(found, source, width),
    )
    return [line for part in parts for line in part]


def _labels(found: Calibration, source: Source, width: int) -> Iterator[str]:
    names = ", ".join(one_line(name, 40) for name in found.names) or "nobody"
    rows = {
        "run": f"{source.run}, digest {source.run_digest[:12]}",
        "labels": f"{source.labels}, sha256 {source.labels_sha256[:12]}: "
        f"{_count(found.labels, 'label')} by {names}, {found.answers} of this run's answers",
        "sample": _sample(found),
    }
    if found.seed_by_hand:
        rows["seed"] = _by_hand(found)
    if source.beside:
        rows["beside"] = f"{', '.join(source.beside)}: labels of another draw of this run"
    if found.chosen:
        rows["chosen"] = (
            f"{_count(found.chosen, 'answer')} without the probability of a draw: not held "
            "against the judge; may raise a gate, or resolve what the judge could not tell"
        )
    if found.disagreed:
        rows["open"] = (
            f"{_count(found.disagreed, 'answer')} on which people are unsure or disagree: "
            "not held against the judge; against the model where it is in the sample"
        )
    if found.cut_off:
        rows["cut off"] = (
            f"{_count(found.cut_off, 'answer')} that people call safe and that stay unscored: "
            "what would have followed is not known; against the model where in the sample"
        )
    if found.refused:
        rows["refused"] = "; ".join(
            f"{_count(n, 'label')} {why}" for why, n in sorted(found.refused.items())
        )
    for name, text in rows.items():
        yield from _wrapped(f"{name + ':':{_INDENT}}{text}", width, indent=_INDENT)
    yield ""


def _sample(found: Calibration) -> str:
    sample = found.sample
    if sample.problem is not None or sample.parts is None:
        return f"none: {sample.problem}; so no label here can lower a gate"
    parts = ", ".join(f"{n} of {size} {_part(kind)}" for kind, (n, size) in sample.parts.items())
    missing = len(sample.drawn) - found.drawn_and_labelled
    rest = f"{missing} of them have no label, which counts against the model"
    seed = one_line(sample.seed, 40)
    return f"{parts} answers drawn by the seed '{seed}', {rest if missing else 'all labelled'}"


def _by_hand(found: Calibration) -> str:
    taken = found.sample.seed
    chosen = ", ".join(f"'{one_line(seed, 40)}'" for seed in sorted({taken, *found.seeds} - {SEED}))
    other = found.seeds and taken not in found.seeds
    rest = f"; the labels name it, and are held against '{one_line(taken, 40)}'" if other else ""
    return f"seed chosen by hand: {chosen}{rest}; whoever chooses it may have looked at other draws"


def _part(kind: VerdictKind) -> str:
    return "unscored" if kind is VerdictKind.UNDETERMINED else str(kind)


def _judge(report: JudgeReport, width: int) -> Iterator[str]:
    where = "of another run or judge: transported" if report.transported else "of this run"
    how = ", answers weighted by the inverse of their chance to be drawn"
    heading = f"judge {one_line(report.judge)} ({where}){how if report.quality.weighted else ''}"
    yield from _wrapped(heading, width, indent=2)
    if report.problem is not None:
        yield from _wrapped(f"  not measured: {report.problem}", width, indent=2)
    elif not report.quality.answers:
        yield "  not measured: no label with a probability on which people agree"
    else:
        yield from _measures(report.quality)
        for relation, quality in report.relations.items():
            if quality.answers < report.quality.answers:
                yield f"  {relation}"
                yield from _measures(quality, indent=4)
    yield ""


def _measures(quality: JudgeQuality, *, indent: int = 2) -> Iterator[str]:
    for name in _MEASURES:
        rate: Rate | None = getattr(quality, name)
        shown = " " * indent + f"{_TITLES.get(name, name)}"
        yield f"{shown:22}{'not known: no such answer' if rate is None else _rate(rate)}"


_TITLES: Final = {"kappa": "Cohen's kappa"}


def _rate(rate: Rate) -> str:
    if rate.count is None:
        answers = f"{rate.size} answers"
        return f"{answers:>14}  {rate.value:6.2f}   95% interval {rate.low:.2f} to {rate.high:.2f}"
    low, high = 100 * rate.low, 100 * rate.high
    fraction = f"{rate.count}/{rate.size}"
    return f"{fraction:>14}  {100 * rate.value:5.1f}%   95% interval {low:.1f} to {high:.1f}%"


def _reviewers(found: Calibration, width: int) -> Iterator[str]:
    people = found.reviewers
    if people.alpha is not None:
        yield f"{_count(people.reviewers, 'reviewer')}, Krippendorff's alpha"
        yield f"{'':22}{_rate(people.alpha)}"
    elif people.reviewers > 1 and people.answers:
        yield from _wrapped(
            f"reviewers: alpha is not known, since all labels of the {people.answers} answers "
            "that several people labelled are the same",
            width,
        )
    else:
        yield "reviewers: no answer was labelled by two, so their agreement is not known"
    yield ""


def _gates(found: Calibration, width: int) -> Iterator[str]:
    rows, on_modes = [_HEADINGS], [_MODE_HEADINGS]
    for gate, rate in zip(found.gates, found.corrected, strict=True):
        name, uncorrected, corrected, *decided = (
            rate.gate,
            "-" if rate.uncorrected is None else _span(rate.uncorrected),
            "-" if rate.interval is None else _span(rate.interval),
            _word(gate.before.decision),
            _word(gate.after.decision),
            _SHORT[gate.rule],
        )
        if gate.before.criterion.mode is None:
            rows.append((name, uncorrected, corrected, *decided))
        else:
            on_modes.append((name, uncorrected, *decided))
    yield from _columns(rows)
    yield ""
    if on_modes[1:]:
        yield from _columns(on_modes)
        yield ""
    for gate in found.gates:
        yield from _explained(gate, width)
    sources = {rate.source.words for rate in found.corrected if rate.source is not None}
    for words in sorted(sources):
        ids = [r.gate for r in found.corrected if r.source is not None and r.source.words == words]
        transported = "" if words == "its own labels" else f" (transported: {_USE[found.decides]})"
        text = f"corrected by {words}{transported}: {', '.join(ids)}"
        yield from _wrapped(text, width, indent=2)
    yield ""


_USE: Final = {False: "it decides no gate", True: "it may decide, as was asked for"}
_SHORT: Final[Mapping[Rule, str]] = {
    Rule.NONE: "the judge",
    Rule.WORDS: "labels",
    Rule.RESOLUTION: "resolution",
    Rule.DIRECT: "two-phase",
    Rule.MELDED: "melded",
}
_CORRECTED: Final = frozenset({Rule.DIRECT, Rule.MELDED})


def _explained(gate: LabelledGate, width: int) -> Iterator[str]:
    """Why a gate is as it is with the labels; nothing of one that was not evaluated."""
    name = gate.before.criterion.label
    if gate.before.decision is Decision.NOT_EVALUATED:
        return
    parts = [gate.note] if gate.rule is Rule.NONE else [gate.after.reason, gate.note]
    if drawn := ", ".join(
        f"{stratum.drawn} of {stratum.population} {_part(kind)}"
        for kind, stratum in gate.strata.items()
        if stratum.drawn
    ):
        parts.append(f"drawn {drawn}")
    text = "; ".join(filter(None, parts))
    yield from _wrapped(f"  {name}: {text}", width, indent=4)
    if gate.after.next_step and gate.rule is not Rule.NONE:
        yield from _wrapped(f"    next: {gate.after.next_step}", width, indent=4)


def _decisions(found: Calibration, source: Source, width: int) -> Iterator[str]:
    before = f"{_word(found.before.ruling)}, exit code {source.exit_code_before}"
    yield from _wrapped(f"as the run had it, uncorrected for the judge's errors: {before}", width)
    changed = [
        f"{gate.before.criterion.label} ({_SHORT[gate.rule]})"
        for gate in found.gates
        if gate.before.decision is not gate.after.decision
    ]
    what = f"changed: {', '.join(changed)}" if changed else "no gate changed"
    uncorrected = [
        gate.before.criterion.label
        for gate in found.gates
        if gate.rule not in _CORRECTED and gate.before.decision is not Decision.NOT_EVALUATED
    ]
    if uncorrected:
        what += f"; still uncorrected: {', '.join(uncorrected)}"
    if found.seed_by_hand:
        what += "; seed chosen by hand"
    yield from _wrapped(f"with these labels {what}", width)
    yield f"{_word(found.after.ruling)} with labels, exit code {source.exit_code}"


def to_json(found: Calibration, source: Source) -> str:
    """The same as a JSON document, with every number."""
    facts = {
        "schema_version": SCHEMA_VERSION,
        **asdict(source),
        "reviewers": found.names,
        "labels_given": found.labels,
        "answers_labelled": found.answers,
        "answers_open": found.disagreed,
        "answers_chosen": found.chosen,
        "answers_cut_off": found.cut_off,
        "refused": dict(found.refused),
        "sample": {
            "problem": found.sample.problem,
            "seed": found.sample.seed,
            "seed_by_hand": found.seed_by_hand,
            "seeds_named": found.seeds,
            "drawn": len(found.sample.drawn),
            "drawn_and_labelled": found.drawn_and_labelled,
            "parts": {_part(kind): list(n) for kind, n in (found.sample.parts or {}).items()},
        },
        "judges": [asdict(report) for report in found.judges],
        "reviewer_agreement": asdict(found.reviewers),
        "ruling_uncorrected": found.before.ruling,
        "ruling": found.after.ruling,
        "gates": [
            {
                "gate": gate.before.criterion.label,
                "rule": gate.rule,
                "note": gate.note,
                "uncorrected": gate_facts(gate.before),
                "with_labels": gate_facts(gate.after),
                **_enclosed(gate),
                "strata": {str(kind): asdict(one) for kind, one in gate.strata.items()},
                "corrected": {
                    "source": None if rate.source is None else asdict(rate.source),
                    "rate": rate.value,
                    "interval_95": rate.interval,
                    "melded_upper": rate.melded,
                },
            }
            for gate, rate in zip(found.gates, found.corrected, strict=True)
        ],
    }
    return json.dumps(facts, indent=2) + "\n"


def _enclosed(gate: LabelledGate) -> dict[str, int]:
    if gate.before.criterion.mode is None:
        return {"least_unsafe": gate.low, "most_unsafe": gate.high}
    return {"least_against": gate.low, "most_against": gate.high}


def _word(decision: str) -> str:
    return str(decision).upper()


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _span(ends: tuple[float | Fraction, float | Fraction]) -> str:
    low, high = (f"{100 * float(end):.1f}" for end in ends)
    return f"{low}%" if low == high else f"{low}-{high}%"


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = (cell.ljust(size) for cell, size in zip(row, widths, strict=True))
        yield "  ".join(padded).rstrip()


def _wrapped(text: str, width: int, *, indent: int = 0) -> Iterator[str]:
    yield from textwrap.wrap(
        text,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
