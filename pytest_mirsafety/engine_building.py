"""A plan's engine: model, judge, images and stores put together."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from . import reasoning
from .option_values import prices_of

if TYPE_CHECKING:
    from .data.scratch import Scratch
    from .engine.asks import EngineSettings
    from .engine.engine import Engine
    from .engine.keeping import Keeper
    from .judged import JudgedPair
    from .records import Verdict
    from .run_plan import RunPlan
    from .store import SQLiteStore
    from .store.verdicts import Verdicts


def build_engine(
    plan: RunPlan,
    store: SQLiteStore,
    verdicts: Verdicts,
    keeper: Keeper[JudgedPair, Verdict],
    scratch: Scratch,
) -> Engine:
    """The engine of this plan, over an open store; it has been told of no instance yet.

    `verdicts` are those kept, and `keeper` keeps more; `scratch` is for images that are composed.
    """
    from .engine.asks import ArmJudge, Trial
    from .engine.calling import wants_images
    from .engine.engine import Engine
    from .images import ImageLimits, ImageReader, SideBySide, neutral_image
    from .judges.kept import keeping, recalled
    from .store.attention import Attention

    separate = reasoning.separating(plan.model.settings.reasoning_markers)
    limits = ImageLimits(plan.settings.limits.max_bytes, plan.settings.limits.max_pixels)
    images = ImageReader(limits, store, paths=plan.sends_files)
    files = (lambda: scratch.folder) if plan.sends_files else None
    composer = SideBySide(limits, files, keep_content=plan.backend.needs_bytes)
    if plan.watch is not None:
        plan.watch.store = Attention(store)
    judge = keeping(plan.judge, verdicts, keeper)
    trial = None
    if plan.canaries is not None:
        shown = (neutral_image(),) if wants_images(plan.judge) else ()
        trial = Trial(plan.judge, plan.canaries.canaries, shown)
    settings = replace(
        engine_settings(plan),
        recall=partial(recalled, judge),
        trial=trial,
        composer=composer,
        compose_all=bool(plan.layout),
        defences=plan.arms.defences,
        undefended=plan.arms.undefended(plan.dataset),
        judges={
            arm: ArmJudge(kept, partial(recalled, kept))
            for arm, kept in (
                (arm, keeping(one, verdicts, keeper)) for arm, one in plan.arms.judges.items()
            )
        },
    )
    return Engine(plan.backend, judge, images, store, separate, settings)


def engine_settings(plan: RunPlan) -> EngineSettings:
    """How the engine is to go about this plan."""
    from .engine.asks import EngineSettings
    from .engine.pacing import PaceSettings

    model, judge = plan.model.settings, plan.judged_by
    return EngineSettings(
        judge_cut_answers=model.judge_cut_answers,
        target=PaceSettings(
            plan.backend.concurrency,
            retries=model.max_retries,
            requests_per_minute=model.requests_per_minute,
            tokens_per_minute=model.tokens_per_minute,
        ),
        judge=PaceSettings(
            plan.judge.concurrency,
            retries=judge.max_retries,
            requests_per_minute=judge.requests_per_minute,
            tokens_per_minute=judge.tokens_per_minute,
        ),
        budget=plan.budget,
        two_phases=plan.phases.two,
        prices=prices_of(model),
        image_tokens=model.image_tokens,
    )
