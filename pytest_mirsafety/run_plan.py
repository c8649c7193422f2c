"""What a run is going to do: everything that is fixed before the first ask."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from . import gates, sampling
from .arm_planning import ArmPlan
from .arms import METAMORPHIC
from .backend_building import NamedModel
from .config import Configuration, JudgeSettings, Settings
from .digests import digest
from .engine.spending import Budget
from .metamorphic.subset import SearchDesign
from .phases import Phases
from .printable import one_line
from .records import Dataset, Instance
from .results import RunDesign

if TYPE_CHECKING:
    from .attention.watching import Watch
    from .comparison.sides import Side
    from .judges.canaries import CanarySet
    from .protocols import Backend, Judge


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line said; None leaves a matter to the configuration."""

    model: str
    data: str | None = None
    judge: str | None = None
    config: Path | None = None
    sample: str | None = None
    thresholds: tuple[str, ...] = ()
    store: Path | None = None
    report_only: bool = False
    allow_data_mismatch: bool = False
    dry_run: bool = False
    shard: str | None = None
    budget: str | None = None
    stop: str | None = None
    trials: str | None = None
    attention: bool = False
    kept: bool = False
    baseline: Path | None = None
    arm: str | None = None


@dataclass(frozen=True, slots=True)
class DataPlace:
    """Where the data was found: what `data.load` takes to find the same again."""

    source: str
    base: Path
    cache: Path


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Everything fixed before the first ask.

    `instances` are those to be asked, in the dataset's order: all, or the sample, or the shard, and
    after them the same in each other arm. `arms` tells which of these are asked.
    """

    configuration: Configuration
    model: NamedModel
    place: DataPlace
    dataset: Dataset
    instances: tuple[Instance, ...]
    backend: Backend
    judge: Judge
    judged_by: JudgeSettings
    design: RunDesign
    thresholds_from: str
    sample: sampling.SamplePlan | None
    budget: Budget | None
    store: Path
    notes: tuple[str, ...]
    canaries: CanarySet | None = None
    phases: Phases = field(default_factory=Phases)
    watch: Watch | None = None
    baseline: Side | None = None
    arms: ArmPlan = field(default_factory=ArmPlan)

    @property
    def settings(self) -> Settings:
        """The configuration's settings."""
        return self.configuration.settings

    @property
    def layout(self) -> str:
        """How the images of an instance are put together into one; empty where they are not.

        Nothing is sent for recorded answers.
        """
        from .images import LAYOUT

        recorded = self.backend.identity.provider == "replay"
        return LAYOUT if self.model.settings.single_image and not recorded else ""

    @property
    def sends_files(self) -> bool:
        """Images are sent by their path, to a server here: the backend may ask for it."""
        by_path = self.model.settings.image_transport == "file"
        return by_path or bool(getattr(self.backend, "needs_paths", False))

    @property
    def attempted(self) -> str:
        """The digest of data, model and judge: attempts on the same are counted together.

        Not of the endpoint: the same model at another spelling of its address is no new chance.
        """
        model = self.backend.identity
        asked_of = [model.provider, model.model, model.revision]
        return digest([self.dataset.identity, asked_of, self.judge.identity])

    def design_of(self, whole: str) -> str:
        """What an attempt asks of data, model and judge: `whole`, a sample of it, or more often."""
        asked = whole if self.sample is None else self.sample.design
        trials = self.design.trials
        return digest([asked, str(trials)]) if trials.several else asked

    @property
    def searched(self) -> tuple[str, SearchDesign] | None:
        """The identity by which searches of the same are counted together, and their design.

        None where nothing is searched.
        """
        if METAMORPHIC not in self.arms.asked:
            return None
        search = self.arms.search
        design = SearchDesign.of(search.per_relation, search.budget, search.seed)
        return digest([METAMORPHIC, self.attempted]), design

    @property
    def in_words(self) -> dict[str, str]:
        """What the digests that an attempt is known by stand for, for people."""
        model, data = self.backend.identity, self.dataset
        size = f"{len(data.instances):,} instances"
        about = (
            f"{replace(model, endpoint=None)} on {one_line(data.source, 100)} ({size}), "
            f"judge {one_line(self.judge.identity, 100)}"
        )
        words = {self.attempted: about}
        if (sample := self.sample) is not None:
            seed = self.settings.sample_seed
            named = "" if seed is None else f", seed {one_line(seed, 40)}"
            words[sample.design] = f"a sample of {len(sample.asked):,} instances{named}"
        if (trials := self.design.trials).several:
            of = "all instances" if sample is None else words[sample.design]
            words[self.design_of("all")] = f"{of}, {trials}"
        if (searched := self.searched) is not None:
            identity, design = searched
            words[identity] = f"searches for flips: {about}"
            words[str(design)] = (
                f"{design.per_relation} of each relation, {design.budget} requests each, "
                f"seed '{one_line(self.arms.search.seed, 40)}'"
            )
        return words

    @property
    def zones(self) -> dict[str, tuple[Fraction, Fraction]]:
        """For each gate over its whole population, the observed rates that would decide nothing."""
        design, found = self.design, {}
        for gate in () if design.sampled or design.shard else design.counted_gates:
            if gate.population:
                one = gate.criterion
                rules = design.rules.about(one)
                zone = gates.undecidable_zone(gate.population, one.tolerance, rules)
                if zone is not None:
                    low, high = zone
                    found[one.label] = (1 - high, 1 - low) if one.minimum else zone
        return found
