"""How near a run comes to the leanest client that asks the same of the same endpoint."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from behaviour import Behaviour
from checks import all_answered_once, verdicts_agree
from datasets import DatasetShape, prompts, records, write
from endpoint import Endpoint
from measuring import Ratios, Row, Scale, in_turn
from processes import MODEL, Finished, Project, run

INSTANCES = 400
BUDGET = 0.9

_LEAN = str(Path(__file__).with_name("lean_client.py"))


@dataclass(frozen=True, slots=True)
class Asked:
    """A dataset that both sides ask for, and how; `cpu` is what their processes took (s)."""

    scale: Scale
    folder: Path
    prompts: tuple[str, ...]
    images: int
    transport: str = "base64"
    cpu: dict[str, list[float]] = field(default_factory=lambda: {"plugin": [], "lean": []})

    @classmethod
    def of(cls, scale: Scale) -> Asked:
        """The dataset of this scale, written if it is not there."""
        shape = DatasetShape(instances=scale.instances or INSTANCES, side=scale.side)
        folder = write(scale.work / f"photographs-{shape.instances}", shape)
        lines = list(records(shape))
        images = sum(len(line.images) for line in lines)
        return cls(scale, folder, tuple(prompts(folder)), images)

    @property
    def behaviour(self) -> Behaviour:
        """How the endpoint answers both sides."""
        return Behaviour(latency=self.scale.latency, unsafe=0.2)

    def by_plugin(self, number: int) -> float:
        """Instances per second of a run with a fresh store."""
        folder = self.scale.work / f"throughput-{self.transport}-{number}"
        shutil.rmtree(folder, ignore_errors=True)

        def ask(url: str) -> Finished:
            concurrency = self.scale.concurrency
            project = Project(folder, self.folder, url, concurrency, self.transport).write()
            finished = project.run().expect(0)
            verdicts_agree(project.outcomes(), self.behaviour, self.prompts)
            return finished

        return self._measured("plugin", ask)

    def by_lean_client(self, _: int) -> float:
        """Instances per second of the yardstick."""

        def ask(url: str) -> Finished:
            options = (
                f"--transport={self.transport}",
                f"--concurrency={self.scale.concurrency}",
            )
            command = [sys.executable, _LEAN, f"{url}#{MODEL}", str(self.folder), *options]
            return run(command, self.scale.work).expect(0)

        return self._measured("lean", ask)

    def _measured(self, side: str, ask: Callable[[str], Finished]) -> float:
        with Endpoint(self.behaviour) as endpoint:
            self.cpu[side].append(ask(endpoint.url).cpu)
            report = endpoint.report()
        all_answered_once(report, self.prompts, images=self.images)
        return len(self.prompts) / report.seconds(self.prompts)


def measure(scale: Scale) -> list[Row]:
    """Throughput with base64, and with file:// URLs.

    Raises:
        BrokenRunError: a run did not do what is measured.
    """
    asked = Asked.of(scale)
    files = Asked(scale, asked.folder, asked.prompts, asked.images, "file")
    ratios = in_turn(scale.rounds, asked.by_plugin, asked.by_lean_client)
    with_files = in_turn(scale.rounds, files.by_plugin, files.by_lean_client)
    return [
        _row("API throughput, base64", asked, ratios, BUDGET),
        _row('API throughput, `image_transport = "file"`', files, with_files, None),
    ]


def _row(name: str, asked: Asked, ratios: Ratios, budget: float | None) -> Row:
    ours, theirs = (
        1000 * median(asked.cpu[side]) / len(asked.prompts) for side in ("plugin", "lean")
    )
    size = sum(path.stat().st_size for path in (asked.folder / "images").iterdir())
    return Row(
        name=name,
        budget="-" if budget is None else f">= {budget:g} of the lean client",
        found=str(ratios),
        met=None if budget is None else ratios.median >= budget,
        detail=f"{len(asked.prompts)} instances, {asked.images} images of "
        f"{size / asked.images / 1e6:.2g} MB, {asked.scale.concurrency} in flight, latency "
        f"{asked.scale.latency:g} s: {median(ratios.ours):.1f} against "
        f"{median(ratios.theirs):.1f} instances/s; CPU, start included, {ours:.0f} against "
        f"{theirs:.0f} ms an instance",
    )
