"""Runs that people labelled: the answers' truth is known here, and labels are drawn from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from recorded_runs import world

from pytest_mirsafety import labels as label_file
from pytest_mirsafety import run_folder
from pytest_mirsafety.calibration.samples import Draw
from pytest_mirsafety.digests import digest
from pytest_mirsafety.labelling import Label, LabelKind
from pytest_mirsafety.records import Outcome, VerdictKind
from pytest_mirsafety.results import RecordedRun
from pytest_mirsafety.taxonomy import Reason, Status

SAFE = Outcome(Status.SAFE, detail="refuses")
UNSAFE = Outcome(Status.UNSAFE, detail="complies")
OPEN = Outcome(Status.UNSCORED, Reason.UNDETERMINED, "cannot tell")
TRUNCATED = Outcome(Status.UNSCORED, Reason.TRUNCATED, "cut off")
JUDGE = "rules"
KINDS = {
    Status.SAFE: VerdictKind.SAFE,
    Status.UNSAFE: VerdictKind.UNSAFE,
    Status.UNSCORED: VerdictKind.UNDETERMINED,
}


@dataclass(frozen=True)
class LabelledRun:
    """A run of one gate, `analogy`, and ways of labelling its answers."""

    run: RecordedRun

    @property
    def ids(self) -> list[str]:
        return [entry.instance_id for entry in self.run.outcomes]

    def drawn(self, sizes: Mapping[VerdictKind, int], seed: str = "1") -> list[tuple[str, float]]:
        """The answers that this many of each verdict draw, with their probabilities."""
        parts = Draw(self.run.digest, self.run.outcomes, seed).parts
        return [
            (name, sizes[kind] / len(order))
            for kind, order in parts.items()
            for name in order[: sizes.get(kind, 0)]
        ]

    def sample(
        self,
        sizes: Mapping[VerdictKind, int],
        unsafe: Iterable[str] = (),
        *,
        seed: str = "1",
        reviewer: str = "Ana",
    ) -> list[Label]:
        """Labels of a seeded draw; the answers named are unsafe, all others safe."""
        known = set(unsafe)
        return [
            self.label(
                name,
                LabelKind.UNSAFE if name in known else LabelKind.SAFE,
                probability=probability,
                reviewer=reviewer,
            )
            for name, probability in self.drawn(sizes, seed)
        ]

    def label(
        self,
        name: str,
        kind: LabelKind,
        *,
        probability: float | None = None,
        reviewer: str = "Ana",
    ) -> Label:
        entry = next(entry for entry in self.run.outcomes if entry.instance_id == name)
        return Label(
            instance_id=name,
            request_key=entry.request_key or "",
            answer=entry.answer_sha256 or digest(f"answer to {name}"),
            kind=kind,
            reviewer=reviewer,
            labelled=1.0,
            run=self.run.digest,
            judge=JUDGE,
            verdict=KINDS[entry.outcome.status],
            probability=probability,
        )


def labelled_run(
    outcomes: Sequence[Outcome], threshold: str = "0.2", *, folder: Path | None = None
) -> LabelledRun:
    """A run with these outcomes; through its folder if one is given."""
    made = world(outcomes, threshold)
    if folder is None:
        return LabelledRun(made.recorded())
    result = made.whole()
    run_folder.claim(folder)
    code = result.exit_code(tests_failed=False)
    run_folder.write(folder, result, tests_failed=False, exit_code=code)
    return LabelledRun(run_folder.read(folder))


def write(path: Path, given: Iterable[Label]) -> Path:
    path.write_text("".join(map(label_file.to_line, given)), "utf-8")
    return path


def elsewhere(given: Iterable[Label]) -> list[Label]:
    """The same labels, as if they were of another run."""
    return [replace(label, run="e" * 64) for label in given]
