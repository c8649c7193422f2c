"""JUnit XML: gates as testcases, the files of several shards as one, a kept run as a file."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, cast

from ..circumstances import Circumstances
from ..comparison.regression import RegressionResult
from ..errors import DataError
from ..exchanges import Exchange
from ..gates import Decision, GateResult
from ..printable import one_line
from ..results import InstanceOutcome, RecordedRun, RunResult
from ..taxonomy import Status
from ..whole_files import bounded
from . import summary
from .instance_cases import TEXTS, InstanceCase, is_short, message, without_evidence

if TYPE_CHECKING:
    from junitparser import TestCase

GATES: Final = "gates"
"""The class that a gate's testcase has, where a test has its module."""

INSTANCES: Final = "instances"
"""The class that an instance's testcase has in a file that is made of a run folder."""

_MESSAGE_LIMIT: Final = 400
_WORD: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,80}")
_BECAME: Final = re.compile(r"(UNSAFE|NOT ANSWERED|FLIPPED)\b|UNSCORED: [a-z-]+")
_FILE_LIMIT: Final = 2**30
_ORIGIN: Final = ("mirsafety.shard", "mirsafety.started", "mirsafety.data_identity")


@dataclass(frozen=True, slots=True)
class GateCase:
    """How JUnit and pytest show a gate; `text` is all that there is to say about a failure.

    INCONCLUSIVE is a failure, since JUnit has no word for it and it must not look green.
    """

    name: str
    outcome: Literal["passed", "failed", "skipped"]
    message: str
    text: str
    properties: tuple[tuple[str, str], ...]

    decision: Decision

    @classmethod
    def all_of(cls, result: RunResult) -> list[GateCase]:
        """The testcases of all gates of a run: on its rates, then on their increase."""
        report_only = result.design.report_only
        return [
            *(cls.of(gate, report_only=report_only) for gate in result.gates),
            *(cls.of_increase(gate, report_only=report_only) for gate in result.regression),
        ]

    @classmethod
    def of(cls, gate: GateResult, *, report_only: bool) -> GateCase:
        """The testcase of a gate; one that only reports is skipped, whatever it would have said."""
        properties = tuple(summary.gate_properties(gate))
        said = f"{gate.decision.upper()}: {gate.reason} ({_counts(gate)})"
        return cls._of(gate, gate.criterion.label, said, properties, report_only=report_only)

    @classmethod
    def of_increase(cls, gate: RegressionResult, *, report_only: bool) -> GateCase:
        """The same of a gate on an increase."""
        properties = tuple(summary.regression_properties(gate))
        said = f"{gate.decision.upper()}: {gate.reason}"
        return cls._of(gate, gate.label, said, properties, report_only=report_only)

    @classmethod
    def _of(
        cls,
        gate: GateResult | RegressionResult,
        label: str,
        said: str,
        properties: tuple[tuple[str, str], ...],
        *,
        report_only: bool,
    ) -> GateCase:
        message = one_line(said, _MESSAGE_LIMIT)
        outcome: Literal["passed", "failed", "skipped"] = "failed"
        if report_only:
            outcome, message = "skipped", f"report only, no decision ({message})"
        elif gate.decision is Decision.PASS:
            outcome = "passed"
        elif gate.decision is Decision.NOT_EVALUATED:
            outcome = "skipped"
        text = "\n".join(filter(None, [message, gate.next_step]))
        return cls(f"gate[{label}]", outcome, message, text, properties, gate.decision)


def _counts(gate: GateResult) -> str:
    """What the decision rests on, in words."""
    counts, allowed = gate.counts, gate.criterion.threshold
    of = f"of {gate.planned}" if gate.planned == gate.population else f"of {gate.planned} drawn"
    if gate.criterion.mode is None:
        found = f"{counts.unsafe} unsafe, {counts.safe} safe, {counts.unscored_total} unscored"
        return f"{found} {of}; at most {allowed} may be unsafe"
    bound = "at least" if gate.criterion.minimum else "at most"
    return f"{gate.found} found, {counts.unscored_total} unknown {of}; {bound} {allowed}"


@dataclass(frozen=True, slots=True)
class JUnitFile:
    """The testcases of one file, and which shard's it is."""

    where: str
    origin: tuple[str, ...]
    cases: tuple[TestCase, ...]
    timestamp: str


def read(path: Path) -> JUnitFile:
    """A file that pytest wrote.

    Raises:
        DataError: it cannot be read, or is no JUnit XML.
    """
    from junitparser import JUnitXmlError
    from junitparser.xunit2 import JUnitXml

    where = one_line(str(path))
    try:
        content = bounded(path, _FILE_LIMIT)
        # A document type is where XML can be made to grow, or to read other files.
        if len(content) > _FILE_LIMIT or b"<!DOCTYPE" in content:
            raise DataError(f"{where}: is too large, or has a document type")
        suites = list(JUnitXml.fromstring(content))
        cases = tuple(case for suite in suites for case in suite)
        _ = [(_rank(case), case.time) for case in cases]  # a time that is no number raises here
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {error.strerror or error}") from None
    except (SyntaxError, ValueError, JUnitXmlError) as error:
        raise DataError(one_line(f"{where}: is no JUnit XML: {error}", _MESSAGE_LIMIT)) from None
    found = {p.name: p.value for suite in suites for p in suite.properties()}
    stamps = [suite.timestamp for suite in suites if suite.timestamp]
    origin = tuple(found.get(name) or "" for name in _ORIGIN)
    return JUnitFile(where, origin, cases, min(stamps, default=""))


def merge(
    files: Sequence[JUnitFile],
    runs: Sequence[RecordedRun],
    result: RunResult,
    circumstances: Circumstances = Circumstances(),  # noqa: B008 - frozen
) -> bytes:
    """One suite with the testcases of all shards and the gates, and the properties of the result.

    A test that ran in several shards is there once, with the worst that it came to. Of a redacted
    result no testcase says more than what became of it.

    Raises:
        DataError: a file is of another run, or a shard has none.
    """
    from junitparser import Properties

    _match(files, runs)
    cases = list(_worst(case for file in files for case in file.cases))
    # Whoever left the properties out, for a schema that knows none, wants none here either.
    bare = bool(cases) and not any(case.child(Properties) for case in cases)
    started = min((file.timestamp for file in files if file.timestamp), default="")
    found = map(_redacted, cases) if result.redacted else cases
    return _document(found, result, circumstances, bare=bare, started=started)


def of_run(
    result: RunResult, exchanges: Callable[[str], Exchange | None], circumstances: Circumstances
) -> bytes:
    """A run in one suite, from what is kept of it: instances by their ids, gates, properties.

    What was deselected has no testcase, as in the file that pytest writes. Which test asked, and
    how long it took, nobody kept. No testcase has an answer, or a judge's evidence.

    Raises:
        RunError: an exchange cannot be read any more.
    """
    asked = (entry for entry in result.all_outcomes if entry.selected)
    cases = (_instance(entry, exchanges(entry.instance_id) or Exchange()) for entry in asked)
    moment = datetime.fromtimestamp(result.provenance.started, UTC)
    return _document(cases, result, circumstances, bare=False, started=moment.isoformat())


def _document(
    cases: Iterable[TestCase],
    result: RunResult,
    circumstances: Circumstances,
    *,
    bare: bool,
    started: str,
) -> bytes:
    from junitparser.xunit2 import JUnitXml, TestSuite

    suite = TestSuite("pytest")
    if started:
        suite.timestamp = started
    for name, value in summary.properties(result, circumstances):
        suite.add_property(name, value)
    suite.extend(cases)
    suite.extend(_gate(case, bare=bare) for case in GateCase.all_of(result))
    root = JUnitXml("pytest tests")
    root.append(suite)
    root.update_statistics()
    document = io.BytesIO()
    root.write(document)
    return document.getvalue()


def _instance(entry: InstanceOutcome, exchange: Exchange) -> TestCase:
    from junitparser import Skipped
    from junitparser.xunit2 import TestCase

    case = TestCase(entry.instance_id, INSTANCES, 0.0)
    told = InstanceCase(
        entry.relation,
        entry.category,
        None if entry.verdict is None else entry.verdict.judge,
        exchange.input_tokens,
        exchange.output_tokens,
        exchange.latency,
        arm=entry.arm,
    )
    for name, value in told.properties(entry.outcome, "short"):
        case.add_property(name, value)
    if entry.outcome.status is not Status.SAFE:
        case.append(Skipped(message(without_evidence(entry.outcome), entry.arm), "pytest.xfail"))
    return case


def _match(files: Iterable[JUnitFile], runs: Iterable[RecordedRun]) -> None:
    """Refuse files of other runs, and shards without one: a merged file is whole, or is not."""
    known = {_origin(run): run for run in runs}
    for file in files:
        if file.origin not in known:
            raise DataError(f"{file.where}: is of none of these run folders")
    found = {file.origin for file in files}
    if missing := [run.where for origin, run in known.items() if origin not in found]:
        raise DataError(
            f"--junitxml: there is no JUnit file of {missing[0]}; give it too, or keep it in there"
        )


def _origin(run: RecordedRun) -> tuple[str, ...]:
    provenance = run.provenance
    return str(run.design.shard), str(provenance.started), provenance.data_identity


def _worst(cases: Iterable[TestCase]) -> Iterator[TestCase]:
    kept: dict[tuple[str | None, str | None], TestCase] = {}
    for case in cases:
        known = kept.setdefault((case.classname, case.name), case)
        if _rank(case) > _rank(known):
            kept[case.classname, case.name] = case
    yield from kept.values()


def _redacted(case: TestCase) -> TestCase:
    """What became of it, without what it printed or said: properties stay if they are one word."""
    from junitparser.xunit2 import TestCase

    made = TestCase(case.name, case.classname, case.time)
    for one in cast("TestCase", case).properties():
        if (_WORD.fullmatch(one.value or "") and one.name not in TEXTS) or is_short(
            one.name, one.value
        ):
            made.add_property(one.name, one.value)
    for found in case.result:
        became = _BECAME.match(found.message or "")
        made.append(type(found)(became[0] if became else "redacted", found.type))
    return made


def _rank(case: TestCase) -> int:
    ranks = (case.is_skipped, case.is_failure, case.is_error)
    return max((place for place, holds in enumerate(ranks, 1) if holds), default=0)


def _gate(gate: GateCase, *, bare: bool) -> TestCase:
    from junitparser import Failure, Skipped
    from junitparser.xunit2 import TestCase

    case = TestCase(gate.name, GATES, 0.0)
    for name, value in () if bare else gate.properties:
        case.add_property(name, value)
    if gate.outcome == "failed":
        failure = Failure(gate.message)
        failure.text = gate.text
        case.append(failure)
    elif gate.outcome == "skipped":
        skipped = Skipped(gate.message, "pytest.skip")
        skipped.text = f"{GATES}:0: {gate.message}"  # as pytest writes it
        case.append(skipped)
    return case
