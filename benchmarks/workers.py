"""Whether `-n 4` asks as fast as `-n 0`, and asks each instance once."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from behaviour import Behaviour
from checks import all_answered_once, verdicts_agree
from datasets import DatasetShape, prompts, write
from endpoint import Endpoint
from measuring import Row, Scale, in_turn
from processes import BrokenRunError, Project

INSTANCES = 1_000
LATENCY = 0.5
WORKERS = 4
BUDGET = 0.9

_NAME = f"`-n {WORKERS}` against `-n 0`, first ask to last answer"
_USAGE_ERROR = 4


class _RefusedError(BrokenRunError):
    """pytest does not run with workers."""


@dataclass(slots=True)
class _Asked:
    scale: Scale
    data: Path
    prompts: list[str]
    behaviour: Behaviour = field(default_factory=lambda: Behaviour(latency=LATENCY, unsafe=0.2))

    def with_workers(self, number: int) -> float:
        return self._measured(WORKERS, number)

    def alone(self, number: int) -> float:
        return self._measured(0, number)

    def _measured(self, workers: int, number: int) -> float:
        folder = self.scale.work / f"workers-{workers}-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        with Endpoint(self.behaviour) as endpoint:
            project = Project(folder, self.data, endpoint.url, self.scale.concurrency).write()
            finished = project.run(f"-n{workers}")
            if workers and finished.code == _USAGE_ERROR:
                raise _RefusedError(finished.output.strip()[-300:])
            finished.expect(0)
            report = endpoint.report()
        all_answered_once(report, self.prompts, images=2 * len(self.prompts))
        verdicts_agree(project.outcomes(), self.behaviour, self.prompts)
        return len(self.prompts) / report.seconds(self.prompts)


def measure(scale: Scale) -> list[Row]:
    """Throughput as the endpoint sees it; where workers are refused the row says so.

    Raises:
        BrokenRunError: a run did not do what is measured.
    """
    budget = f">= {BUDGET:g}, each instance asked once"
    instances = scale.instances or INSTANCES
    data = write(scale.work / f"tiny-{instances}", DatasetShape.tiny(instances))
    asked = _Asked(scale, data, prompts(data))
    try:
        ratios = in_turn(scale.rounds, asked.with_workers, asked.alone)
    except _RefusedError as error:
        return [Row(_NAME, budget, "refused, exit code 4", met=False, detail=f"{error}")]
    detail = (
        f"{instances:,} instances, {scale.concurrency} in flight, latency {LATENCY:g} s: "
        f"{median(ratios.ours):.0f} against {median(ratios.theirs):.0f} instances/s; "
        "the same verdicts"
    )
    return [Row(_NAME, budget, str(ratios), ratios.median >= BUDGET, detail)]
