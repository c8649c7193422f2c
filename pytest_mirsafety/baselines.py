"""The baseline that a run is to be held against: read and checked before anything is asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import gates
from .comparison.sides import TEXT_LIMIT, Side, SideTerms, counting, incomparable
from .errors import ConfigurationError, DataError
from .gates import Criterion, Rules
from .printable import one_line
from .trials import TrialRule, Trials

if TYPE_CHECKING:
    from .config import Configuration
    from .run_plan import RunOptions


@dataclass(frozen=True, slots=True)
class Pinned:
    """A baseline, if there is one, and what may be how much worse than it."""

    side: Side | None = None
    criteria: tuple[Criterion, ...] = ()

    @property
    def digest(self) -> str | None:
        """What the run names it by; None without one."""
        from .run_folder.pinned import side_digest

        return None if self.side is None else side_digest(self.side)

    def check(self, mine: SideTerms, *, sample_of: Iterable[str] | None, stops: bool) -> None:
        """Find out that the run can be held against it; `mine` is what the run is going to be.

        `sample_of` are the gates that a sample was drawn for, None without a sample.

        Raises:
            RunError: it cannot, and why.
        """
        if self.side is None:
            return
        where, trials = self.side.where, mine.trials
        if trials.several and trials.rule is TrialRule.MEAN:
            raise ConfigurationError(
                f"--mir-baseline: {trials} has no one outcome for each instance to compare; "
                "ask with --mir-trials=K:any, or leave the baseline out"
            )
        if differences := incomparable(self.side.terms, mine):
            raise DataError(f"baseline {where} is not comparable: {differences[0]}")
        if stops and self.criteria:
            raise ConfigurationError(
                "--mir-stop=decided: a regression gate depends on every answer; leave out one of "
                "them"
            )
        missing = (
            [] if sample_of is None else [c for c in self.criteria if c.label not in sample_of]
        )
        if missing:
            one = missing[0]
            raise ConfigurationError(
                f"--mir-sample: regression.{_key(one)} needs a threshold of the same name, for "
                f"whose gate the sample is drawn: set thresholds.{_key(one)}, or run without one"
            )


def find(options: RunOptions, configuration: Configuration) -> Pinned:
    """The baseline of the command line or the configuration, and the configured increases.

    Raises:
        RunError: there is an increase without a baseline, or no such baseline.
    """
    settings = configuration.settings
    criteria = gates.criteria(settings.regression.to_thresholds())
    path = options.baseline
    if path is None and settings.baseline is not None:
        path = configuration.base / settings.baseline
    if path is None:
        if criteria and not options.report_only:
            raise ConfigurationError(
                "[regression] is configured, and no baseline to hold the run against: name one "
                "(--mir-baseline=RUN, or baseline in the configuration), or use --mir-report-only"
            )
        return Pinned()
    return Pinned(_read(path), criteria)


def _read(path: Path) -> Side:
    from .run_folder.pinned import read_side

    side, here = read_side(path), Path.cwd()
    shown = path.relative_to(here) if path.is_relative_to(here) else path
    return replace(side, where=one_line(str(shown)))


def planned_terms(
    data: tuple[str, int], judge: str, policy: Sequence[str], rules: Rules, trials: Trials
) -> SideTerms:
    """What of a run decides whether it can be compared, before anything was asked.

    `data` is its identity, and how many instances it has.
    """
    identity, count = data
    return SideTerms(
        run="",
        package_version="",
        model_name="",
        model_identity="",
        decoding="",
        system=None,
        data_source="",
        data_identity=identity,
        data_count=count,
        judge=one_line(judge, TEXT_LIMIT),
        policy=counting(policy),
        estimand=rules.estimand,
        confidence=rules.confidence,
        started=0.0,
        trials=trials,
    )


def _key(criterion: Criterion) -> str:
    return (
        criterion.label if criterion.label == "overall" else f"{criterion.scope}.{criterion.name}"
    )
