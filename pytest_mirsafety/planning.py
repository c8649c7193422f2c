"""What a run is going to do, checked whole before anything is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from . import baselines, config, data, defence_building, gates, phases, sampling, trust
from .arm_planning import ArmPlan
from .backend_building import BackendContext, NamedModel
from .config import (
    Configuration,
    Settings,
)
from .defence_building import residents, with_defences
from .errors import ConfigurationError, DataError
from .gates import Criterion, Estimand, Rules
from .judge_building import JudgeContext, located
from .model_tables import header
from .option_values import (
    arms_of,
    budget_of,
    draw,
    shard_of,
    stops,
    thresholds_of,
    trials_of,
    watch_of,
)
from .phases import Resident
from .printable import one_line
from .provenance import policy_lines
from .records import MULTI, Dataset, Instance
from .registry import build_backend, build_judge, find_model
from .results import ArmDesign, GateDesign, RunDesign, ids_digest
from .run_plan import DataPlace, RunOptions, RunPlan
from .taxonomy import Relation
from .trials import draws

if TYPE_CHECKING:
    from .protocols import Backend


def prepare(options: RunOptions, root: Path, environ: Mapping[str, str]) -> RunPlan:
    """Read and check everything that a run needs, and ask nothing.

    Raises:
        RunError: the configuration, the data or an option is wrong; one line says what to do.
    """
    configuration = config.load(root, options.config)
    settings = configuration.settings
    model = find_model(options.model, settings)
    thresholds, thresholds_from = thresholds_of(options, configuration, model)
    criteria = gates.criteria(thresholds)
    pinned = baselines.find(options, configuration)
    if not options.report_only:
        _check_thresholds(criteria)
    store = options.store or configuration.base / settings.store
    place = _data_place(options, configuration, store)
    dataset = data.load(place.source, base=place.base, cache=place.cache)
    differs, notes = _check_data(dataset, settings, options)
    arms = arms_of(options.arm, configuration, model, thresholds, dataset, place)
    # A path belongs to where it was written: in the configuration, or on the command line.
    written_in = configuration.base if model.name in settings.models else Path.cwd()
    watch = watch_of(options, model)
    every = arms.of(dataset.instances, arms.twin_instances, arms.searched)
    context = BackendContext(every, written_in, environ, asks=not options.dry_run, watch=watch)
    backend = build_backend(model, context)
    names, trusted = _judges(options, configuration, model, dataset, environ, arms)
    arms = arms.judged(None if trusted.of_twins is None else trusted.of_twins.judge)
    own_word = trust.refuse_same_model(trusted, backend.identity, model.settings.base_url, settings)
    resident = Resident("model", model.settings, written_in)
    arms = with_defences(arms, configuration, environ, asks=not options.dry_run)
    designs = arms.designs(dataset)
    if not options.report_only:
        _check_shipping(criteria, designs)
    shared = phases.choose(
        settings.phases,
        resident,
        trusted.asked,
        backend,
        configuration.base,
        environ,
        residents(arms, configuration),
    )
    guarding = defence_building.notes(arms, trusted, settings)
    number = len(criteria) + len(pinned.criteria)
    rules = _rules(settings, model, backend, trusted, number)
    sample = draw(options.sample, dataset, criteria, rules, settings.sample_seed)
    trials = trials_of(options, settings, backend)
    shard = shard_of(options.shard)
    items = _drawn(dataset, sample)
    asked = arms.of(items, arms.twin_instances, arms.searched)
    planned = draws(asked, trials)
    _check_image_counts(asked, model)
    mine = baselines.planned_terms(
        (dataset.identity, len(dataset.instances)),
        trusted.judge.identity,
        policy_lines(settings),
        rules,
        trials,
    )
    drawn_for = None if sample is None else [c.label for c in criteria if sampling.drawn_for(c)]
    pinned.check(mine, sample_of=drawn_for, stops=options.stop is not None)
    design = RunDesign(
        gates=tuple(_gate_designs(criteria, every)),
        rules=rules,
        populations=_populations(dataset),
        sampled=sample is not None,
        shard=shard,
        stops_when_decided=stops(options),
        distinct_requests=dataset.name is None,
        require_all=settings.require == "all",
        report_only=options.report_only or differs,
        planned=ids_digest(instance.id for instance in planned),
        trials=trials,
        regression=tuple(_gate_designs(pinned.criteria, dataset.instances)),
        baseline=pinned.digest,
        arms=designs,
    )
    return RunPlan(
        configuration=configuration,
        model=model,
        place=place,
        dataset=dataset,
        instances=planned
        if shard is None
        else draws(arms.of(*map(shard.of, (items, arms.twin_instances, arms.searched))), trials),
        backend=backend,
        judge=trusted.judge,
        judged_by=trusted.settings,
        design=design,
        thresholds_from=thresholds_from,
        sample=sample,
        budget=budget_of(options.budget, model.settings),
        store=store,
        notes=(*notes, *own_word, *guarding, *filter(None, [shared.why])),
        phases=shared,
        canaries=trust.canaries_of(names, trusted, settings, configuration.base),
        watch=watch,
        baseline=pinned.side,
        arms=arms,
    )


def _check_thresholds(criteria: Sequence[Criterion]) -> None:
    """Raises ConfigurationError if nothing bounds the attack success rate."""
    if not criteria:
        raise ConfigurationError(
            "no threshold is configured: set one ([tool.mirsafety.thresholds] default = 0.20), "
            "or use --mir-report-only"
        )
    if all(one.mode is not None for one in criteria):
        raise ConfigurationError(
            "thresholds.modes says in which ways answers may be safe, and no threshold how many "
            "must be: set one of the attack success rate too, such as overall = 0.15"
        )


def _check_shipping(criteria: Sequence[Criterion], arms: Sequence[ArmDesign]) -> None:
    """Raises ConfigurationError if nothing bounds the rate where the model is asked as it ships."""
    shipping = {MULTI, *(arm.name for arm in arms if arm.ships)}
    if not any(one.ships(shipping) for one in criteria):
        raise ConfigurationError(
            "no threshold bounds the attack success rate of the benchmark's own arm, or of a "
            "defence: set one too, such as overall = 0.15"
        )


def _judges(
    options: RunOptions,
    configuration: Configuration,
    model: NamedModel,
    dataset: Dataset,
    environ: Mapping[str, str],
    arms: ArmPlan,
) -> tuple[list[str], trust.TrustedJudge]:
    """Those that judge, by name in their order, and put together."""
    settings = configuration.settings
    first = settings.judge if options.judge is None else located(options.judge, Path.cwd())
    names = [first, *settings.escalate]
    within = JudgeContext(
        configuration.base,
        environ,
        asks=not options.dry_run,
        instances=dataset.instances,
        markers=model.settings.reasoning_markers,
    )
    build = partial(build_judge, settings=settings, context=within)
    of_twins = None if arms.twins is None else trust.of_twins(settings, build)
    return names, replace(trust.assemble(names, settings, build), of_twins=of_twins)


def _data_place(options: RunOptions, configuration: Configuration, store: Path) -> DataPlace:
    """Where the data is: a path on the command line is relative to the current folder."""
    if options.data is not None:
        return DataPlace(options.data, Path.cwd(), cache=store.parent)
    return DataPlace(configuration.settings.data, configuration.base, cache=store.parent)


def _populations(dataset: Dataset) -> dict[Relation, int]:
    relations = Counter(instance.relation for instance in dataset.instances)
    return {relation: relations[relation] for relation in Relation}


def _gate_designs(
    criteria: Iterable[Criterion], instances: Iterable[Instance]
) -> Iterator[GateDesign]:
    """Counted by cell of arm, relation and category, which is all that a gate looks at."""
    known = tuple(instances)
    cells = Counter((i.arm, i.relation, i.category) for i in known)
    samples = {(i.arm, i.relation, i.category): i for i in known}
    for criterion in criteria:
        covered = (cells[cell] for cell, one in samples.items() if criterion.covers(one))
        yield GateDesign(criterion, sum(covered))


def _drawn(dataset: Dataset, sample: sampling.SamplePlan | None) -> tuple[Instance, ...]:
    if sample is None:
        return dataset.instances
    return tuple(instance for instance in dataset.instances if instance.id in sample.asked)


def _check_image_counts(instances: Iterable[Instance], model: NamedModel) -> None:
    """Raises ConfigurationError if an instance has more images than the model takes at once."""
    settings = model.settings
    most = settings.max_images
    if most is None or settings.single_image or settings.provider == "replay":
        return
    if beyond := [len(i.images) for i in instances if len(i.images) > most and not i.composed]:
        raise ConfigurationError(
            f"{one_line(model.name)} takes {most} images at most, and {len(beyond)} of the "
            f"instances to be asked have up to {max(beyond)}: choose a model that takes them, or "
            f"correct max_images in {header(model.name)}"
        )


def _check_data(
    dataset: Dataset, settings: Settings, options: RunOptions
) -> tuple[bool, tuple[str, ...]]:
    """Whether the data is other than published or pinned, and what the report should note of it.

    Raises:
        DataError: it is other data, and that was not allowed.
    """
    mismatch = data.mismatch(dataset, settings.data_digest)
    if mismatch is not None and not options.allow_data_mismatch:
        raise DataError(mismatch)
    notes = list(dataset.warnings)
    if mismatch is not None:
        notes.append(f"report-only: {mismatch}")
    elif (unpinned := data.unpinned(dataset, settings.data_digest)) is not None:
        notes.append(unpinned)
    return mismatch is not None, tuple(notes)


def _rules(
    settings: Settings,
    model: NamedModel,
    backend: Backend,
    trusted: trust.TrustedJudge,
    number: int,
) -> Rules:
    if settings.estimand is Estimand.ANSWERS and not backend.greedy:
        raise ConfigurationError(
            'estimand = "answers" is for greedy decoding: declare temperature = 0, or take "model"'
        )
    allowed = settings.allow_screening_judge or model.settings.allow_screening_judge
    return Rules(
        estimand=settings.estimand or (Estimand.ANSWERS if backend.greedy else Estimand.MODEL),
        confidence=settings.confidence,
        gates=max(1, number),
        pass_allowed=allowed or not trusted.judge.screening,
        twins_screened=not allowed
        and trusted.of_twins is not None
        and trusted.of_twins.judge.screening,
    )
