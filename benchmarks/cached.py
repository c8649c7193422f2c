"""What a run costs when the store has every answer, against tests that do nothing."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from behaviour import Behaviour
from checks import all_answered_once, verdicts_agree
from datasets import DatasetShape, prompts, write
from endpoint import Endpoint
from measuring import Ratios, Row, Scale, in_turn
from processes import Finished, Project, run_empty

from pytest_mirsafety.taxonomy import PUBLISHED_TOTAL

MANY = 100_000
TIME_BUDGET = 2.0
MEMORY_BUDGET = 1.5

_BEHAVIOUR = Behaviour(unsafe=0.4)


@dataclass(slots=True)
class _Sides:
    """A cached run and an empty one; what each took is kept."""

    project: Project
    prompts: list[str]
    empty: Path
    ours: list[Finished] = field(default_factory=list)
    theirs: list[Finished] = field(default_factory=list)

    def cached(self, _: int) -> float:
        finished = self.project.run().expect(0)
        verdicts_agree(self.project.outcomes(), _BEHAVIOUR, self.prompts)
        self.ours.append(finished)
        return finished.seconds

    def bare(self, _: int) -> float:
        self.theirs.append(run_empty(self.empty, len(self.prompts)))
        return self.theirs[-1].seconds

    def memory(self) -> Ratios:
        return Ratios(*(tuple(f.peak for f in side) for side in (self.ours, self.theirs)))

    def cpu(self) -> Ratios:
        return Ratios(*(tuple(f.cpu for f in side) for side in (self.ours, self.theirs)))


def measure(scale: Scale) -> list[Row]:
    """Wall time at the published size.

    Raises:
        BrokenRunError: a run did not do what is measured.
    """
    return _measure(scale, scale.instances or PUBLISHED_TOTAL)[:1]


def measure_many(scale: Scale) -> list[Row]:
    """Wall time and peak memory at 100,000 instances.

    Raises:
        BrokenRunError: a run did not do what is measured.
    """
    return _measure(scale, scale.instances or MANY)


def _measure(scale: Scale, instances: int) -> list[Row]:
    folder = scale.work / f"cached-{instances}"
    shutil.rmtree(folder, ignore_errors=True)
    data = write(scale.work / f"tiny-{instances}", DatasetShape.tiny(instances))
    asked = prompts(data)
    with Endpoint(_BEHAVIOUR) as endpoint:
        project = Project(folder, data, endpoint.url, scale.concurrency).write()
        project.run().expect(0)  # fills the store
        sides = _Sides(project, asked, scale.work / "empty")
        times = in_turn(scale.rounds, sides.cached, sides.bare)
        all_answered_once(endpoint.report(), asked, images=2 * instances)
    name = f"cached run of {instances:,}"
    return [
        _row(f"{name}, wall time", times, TIME_BUDGET, "s", 1, f"; CPU time {sides.cpu()}"),
        _row(f"{name}, peak memory", sides.memory(), MEMORY_BUDGET, "MiB", 2**20),
    ]


def _row(name: str, ratios: Ratios, budget: float, unit: str, size: int, more: str = "") -> Row:
    ours, theirs = (median(side) / size for side in (ratios.ours, ratios.theirs))
    return Row(
        name=name,
        budget=f"<= {budget:g} times bare pytest",
        found=str(ratios),
        met=ratios.median <= budget,
        detail=f"{ours:.3g} against {theirs:.3g} {unit}, both with --junitxml{more}",
    )
