"""What options mean beside the configuration: each is read here, or refused in one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from . import sampling
from .arm_planning import ArmPlan, choose, own_arms, safety_prompt
from .arms import METAMORPHIC, SAFETY_PROMPT, ArmKind
from .backend_building import NamedModel
from .config import Configuration, ModelSettings, Settings, ThresholdSettings, with_threshold
from .engine.spending import Budget, Prices, Spending
from .errors import ConfigurationError, MissingExtraError
from .gates import Criterion, Rules, Thresholds
from .printable import one_line
from .records import Dataset
from .sharding import Shard
from .trials import Trials, has_seeds

if TYPE_CHECKING:
    from .attention.watching import Watch
    from .protocols import Backend
    from .run_plan import DataPlace, RunOptions


def arms_of(
    text: str | None,
    configuration: Configuration,
    model: NamedModel,
    thresholds: Thresholds,
    dataset: Dataset,
    place: DataPlace,
) -> ArmPlan:
    """The ways of asking, with the twins where some are planned.

    Raises:
        RunError: an arm is none, or the twins cannot be had.
    """
    from .registry import load_arm

    settings = configuration.settings
    system = model.settings.system
    own = {SAFETY_PROMPT: safety_prompt(system), **own_arms(settings.arms, load_arm, system)}
    plan = choose(text, settings, model.settings.arm, thresholds, own)
    if any(arm.kind is ArmKind.SEARCH for arm in plan.planned):
        _check_searchable(plan, model)
        plan = _with_searches(plan, settings, dataset)
    if not any(arm.kind is ArmKind.TWIN for arm in plan.planned):
        return plan
    from .data import twins

    found = twins.load(settings.twins, base=configuration.base, cache=place.cache)
    twins.check_apart(found, dataset)
    return replace(plan, twins=found)


def _check_searchable(plan: ArmPlan, model: NamedModel) -> None:
    """Do nothing if the searches that are asked for can be made.

    Raises:
        ConfigurationError: the answers are recorded ones, or images are sent as files.
        MissingExtraError: hypothesis, which draws the edits, is not installed.
    """
    from importlib.util import find_spec

    if METAMORPHIC not in plan.asked:
        return
    if model.settings.provider == "replay":
        raise ConfigurationError(
            "the arm metamorphic asks a model what nobody has asked before: recorded answers "
            "cannot tell; name a model, or leave the arm out of --mir-arm"
        )
    if model.settings.image_transport == "file":
        raise ConfigurationError(
            f"the arm metamorphic edits images, and edited ones are no files: set image_transport "
            f'= "base64" for {one_line(model.name)}'
        )
    if find_spec("hypothesis") is None:
        raise MissingExtraError("the arm metamorphic", "metamorphic")


def _with_searches(plan: ArmPlan, settings: Settings, dataset: Dataset) -> ArmPlan:
    """The plan with the instances that are tried by edits."""
    from .metamorphic import subset

    search = settings.metamorphic
    found = subset(
        dataset.instances, search.per_relation, identity=dataset.identity, seed=search.seed
    )
    return replace(plan, searched=found, search=search)


def shard_of(text: str | None) -> Shard | None:
    """The part of the run that is asked.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        return None if text is None else Shard.parse(text)
    except ValueError as error:
        raise ConfigurationError(f"--mir-shard: {error}") from None


def trials_of(options: RunOptions, settings: Settings, backend: Backend) -> Trials:
    """How often each instance is asked.

    Raises:
        ConfigurationError: no number of trials, one that the thresholds are not for, or several
            of a model that says the same each time.
    """
    configured = settings.trials.to_trials()
    trials = configured
    if options.trials is not None:
        try:
            trials = Trials.parse(options.trials, configured.rule)
        except ValueError as error:
            raise ConfigurationError(f"--mir-trials: {error}") from None
    if trials.looser_than(configured) and not options.report_only:
        raise ConfigurationError(
            f"--mir-trials={options.trials}: the thresholds are for {configured}, and more passes "
            f"by {trials}; leave it out, or use --mir-report-only"
        )
    if trials.several and backend.greedy:
        raise ConfigurationError(
            f"{trials}: this model's answer is the same each time; ask once, or set a "
            "temperature above 0"
        )
    if trials.several and not has_seeds(backend.decoding):
        raise ConfigurationError(
            f"{trials}: the seed in decoding is no whole number, so that each trial would be asked "
            "with the same one; write such as seed = 1, or leave it out"
        )
    return trials


def stops(options: RunOptions) -> bool:
    """Whether the run stops at what is decided.

    Raises:
        ConfigurationError: it stops at something else, or decides nothing.
    """
    if options.stop is None:
        return False
    if options.stop != "decided":
        raise ConfigurationError(f"--mir-stop takes 'decided', not '{one_line(options.stop)}'")
    if options.shard is not None:
        raise ConfigurationError(
            "--mir-stop=decided: a shard decides nothing, so it cannot stop; leave out one of them"
        )
    return True


def budget_of(text: str | None, model: ModelSettings) -> Budget | None:
    """What may be spent.

    Raises:
        ConfigurationError: it is no amount, or prices are missing.
    """
    if text is None:
        return None
    try:
        budget = Budget.parse(text)
    except ValueError as error:
        raise ConfigurationError(f"--mir-budget: {error}") from None
    Spending(budget, prices_of(model))  # it says whether prices are missing
    return budget


def watch_of(options: RunOptions, model: NamedModel) -> Watch | None:
    """What measures attention, if that was asked for."""
    if not options.attention:
        return None
    if (provider := model.settings.provider) != "transformers":
        raise ConfigurationError(
            "--mir-attention needs a model that runs in this process (provider 'transformers'): "
            f"{one_line(model.name, 100)} is of provider '{one_line(provider, 60)}'"
        )
    if not options.kept and not options.dry_run:
        raise ConfigurationError(
            "--mir-attention needs --mir-run=FOLDER, where its numbers and its picture go"
        )
    from .attention.picture import check_installed
    from .attention.watching import Watch

    check_installed()
    return Watch()


def prices_of(model: ModelSettings) -> Prices:
    """What the model's tokens cost."""
    return Prices(model.input_price, model.output_price)


def thresholds_of(
    options: RunOptions, configuration: Configuration, model: NamedModel
) -> tuple[Thresholds, str]:
    """The thresholds, and where they come from in words."""
    settings = configuration.settings.thresholds
    origin = str(configuration.file.name) if configuration.file is not None else "the defaults"
    own = model.settings.thresholds
    if own is not None and settings == ThresholdSettings():
        settings, origin = own, f"the model {model.name}"
    elif "thresholds" in configuration.written.get(model.name, ()):
        raise ConfigurationError(
            f"thresholds stand in the configuration and in models.{model.name}; keep one of them"
        )
    for text in options.thresholds:
        settings = with_threshold(settings, text)
    if options.thresholds:
        origin += f", then --mir-threshold={' '.join(options.thresholds)}"
    return settings.to_thresholds(), origin


def draw(
    text: str | None,
    dataset: Dataset,
    criteria: Sequence[Criterion],
    rules: Rules,
    seed: str | None,
) -> sampling.SamplePlan | None:
    """The sample that was asked for.

    Raises:
        ConfigurationError: not a sample size, or a sample by which some gate cannot pass.
    """
    if text is None:
        return None
    try:
        size = sampling.parse_sample_size(text)
    except ValueError as error:
        raise ConfigurationError(f"--mir-sample: {error}") from None
    plan = sampling.draw_sample(size, dataset, criteria, rules, seed)
    if (refusal := sampling.refusal(plan.gates)) is not None:
        raise ConfigurationError(f"--mir-sample={text}: {refusal}")
    return plan
