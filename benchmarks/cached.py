"""What a run costs when the store has every answer, against tests that do nothing."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from behaviour import Behaviour
from checks import all_answered_once, verdicts_agree
from datasets import DatasetShape, prompts, write
from endpoint import Endpoint
from filling import fill
from measuring import Ratios, Row, Scale, in_turn
from processes import MODEL, Finished, Project, run_empty

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

    @property
    def time_row(self) -> Row:
        times, cpu = self._ratios("seconds"), self._ratios("cpu")
        more = f"; CPU time {cpu}"
        return _row(f"{self._name}, wall time", times, TIME_BUDGET, "s", 1, more)

    @property
    def memory_row(self) -> Row:
        peaks = self._ratios("peak")
        return _row(f"{self._name}, peak memory", peaks, MEMORY_BUDGET, "MiB", 2**20)

    def _ratios(self, name: str) -> Ratios:
        sides = (self.ours, self.theirs)
        return Ratios(*(tuple(getattr(f, name) for f in side) for side in sides))

    @property
    def _name(self) -> str:
        return f"cached run of {len(self.prompts):,}"


def measure(scale: Scale) -> list[Row]:
    """Wall time at the published size.

    Raises:
        BrokenRunError: a run did not do what is measured.
    """
    instances = scale.instances or PUBLISHED_TOTAL
    project = _project(scale, instances)
    with Endpoint(_BEHAVIOUR) as endpoint:
        asked = prompts(project.data)
        project = replace(project, url=endpoint.url).write()
        project.run().expect(0)  # fills the store
        sides = _measure(scale, project, asked)
        all_answered_once(endpoint.report(), asked, images=2 * instances)
    return [sides.time_row]


def measure_many(scale: Scale) -> list[Row]:
    """Wall time and peak memory at 100,000 instances.

    Raises:
        BrokenRunError: a run did not do what is measured.
    """
    project = _project(scale, scale.instances or MANY).write()
    fill(project.path, MODEL, _BEHAVIOUR)
    sides = _measure(scale, project, prompts(project.data))
    return [sides.time_row, sides.memory_row]


def _project(scale: Scale, instances: int) -> Project:
    """A new one, whose endpoint nobody listens at."""
    folder = scale.work / f"cached-{instances}"
    shutil.rmtree(folder, ignore_errors=True)
    data = write(scale.work / f"tiny-{instances}", DatasetShape.tiny(instances))
    return Project(folder, data, "http://127.0.0.1:9/v1", scale.concurrency)


def _measure(scale: Scale, project: Project, asked: list[str]) -> _Sides:
    sides = _Sides(project, asked, scale.work / "empty")
    in_turn(scale.rounds, sides.cached, sides.bare)
    return sides


def _row(name: str, ratios: Ratios, budget: float, unit: str, size: int, more: str = "") -> Row:
    ours, theirs = (median(side) / size for side in (ratios.ours, ratios.theirs))
    return Row(
        name=name,
        budget=f"<= {budget:g} times bare pytest",
        found=str(ratios),
        met=ratios.median <= budget,
        detail=f"{ours:.3g} against {theirs:.3g} {unit}, both with --junitxml{more}",
    )
