"""From settings to a judge with a model behind it: the only place that knows their classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .errors import ConfigurationError
from .printable import one_line
from .server_building import concurrency, key_variable, server_settings

if TYPE_CHECKING:
    from .config import JudgeSettings
    from .protocols import Judge, TextModel
    from .reasoning import ReasoningMarkers
    from .records import Instance

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_REPOSITORY: Final = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class JudgeContext:
    """What a judge may need beside its settings.

    Relative paths are relative to `base`. The variables in `environ` hold keys, so they are never
    shown. Where nothing `asks`, as in a dry run, no key is needed. Recorded labels are held
    against the dataset's `instances`, the model's `markers` of reasoning taken off.
    """

    base: Path = Path()
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    asks: bool = True
    instances: Sequence[Instance] = field(default=(), repr=False)
    markers: Sequence[ReasoningMarkers] | None = None


RECORDED: Final = "upstream:"
"""What the name of a judge begins with that is a folder of upstream's labels."""


def located(name: str, folder: Path) -> str:
    """A judge's name as it was typed in this folder: that of recorded labels with their path."""
    if not name.startswith(RECORDED):
        return name
    return f"{RECORDED}{folder / name.removeprefix(RECORDED)}"


def build_recorded(name: str, context: JudgeContext) -> Judge:
    """The labels that this name is the folder of.

    Raises:
        DataError: they are not there, or not as they should be.
    """
    from .judges.upstream import UpstreamJudge

    root = context.base / Path(name.removeprefix(RECORDED)).expanduser()
    return UpstreamJudge.from_path(root, context.instances, context.markers)


def build(judge: JudgeSettings, context: JudgeContext) -> Judge:
    """The judge of a kind with a model behind it.

    Raises:
        ConfigurationError: its model, template or key is not to be had.
    """
    return _JUDGES[judge.kind or ""](judge, context)


def _build_harmbench(judge: JudgeSettings, context: JudgeContext) -> Judge:
    from .judges import templates
    from .judges.harmbench import CLIP, HarmbenchJudge

    source = judge.template or _card(judge)
    digest = judge.template_digest or templates.OFFICIAL
    template = templates.find(source, context.base, digest)
    clip = CLIP if judge.clip_tokens is None else judge.clip_tokens
    return HarmbenchJudge(text_model(judge, context), template, clip)


def _build_llamaguard(judge: JudgeSettings, context: JudgeContext) -> Judge:
    from .judges.llamaguard import LlamaGuardJudge

    return LlamaGuardJudge(text_model(judge, context), judge.clip_tokens or 0)


def _build_rubric(judge: JudgeSettings, context: JudgeContext) -> Judge:
    from .judges.rubric import RubricJudge

    return RubricJudge(text_model(judge, context), judge.clip_tokens or 0, images=judge.images)


def _build_answered(judge: JudgeSettings, context: JudgeContext) -> Judge:
    from .judges.answered_rubric import AnsweredRubricJudge

    return AnsweredRubricJudge(text_model(judge, context), judge.clip_tokens or 0)


def _card(judge: JudgeSettings) -> str:
    """The card of the judge's own model, where the settings name it and its commit."""
    model, revision = judge.model or "", judge.revision or ""
    if _REPOSITORY.fullmatch(model) and _COMMIT.fullmatch(revision):
        return f"hub:{model}@{revision}"
    raise ConfigurationError(
        f"judge 'harmbench' ({one_line(model, 80)}) needs its template: set revision to the commit "
        'of the model on the hub, or template = "hub:cais/HarmBench-Llama-2-13b-cls@COMMIT", or '
        "the path of a file that holds it"
    )


def text_model(judge: JudgeSettings, context: JudgeContext) -> TextModel:
    """The model behind a judge, or a guard.

    Raises:
        ConfigurationError: it is not to be had.
    """
    if judge.provider == "transformers":
        return _local(judge, context)
    if judge.provider == "vllm" and judge.base_url is None:
        return _served_here(judge, context)
    from .text_models.endpoint import EndpointModel, EndpointModelSettings

    hosted = judge.provider == "openai"
    return EndpointModel(
        EndpointModelSettings(
            model=judge.model or "",
            provider=judge.provider or "http",
            base_url=judge.base_url,
            revision=judge.revision,
            api_key_env=key_variable(judge, hosted=hosted),
            key_required=context.asks and (hosted or judge.api_key_env is not None),
            concurrency=judge.concurrency,
            timeout=judge.timeout,
            token_limit="max_completion_tokens" if hosted else "max_tokens",
        ),
        context.environ,
    )


def _served_here(judge: JudgeSettings, context: JudgeContext) -> TextModel:
    from .checkpoints.identity import identify, locate
    from .servers.arguments import numerics
    from .servers.vllm import VllmServer, check_installed
    from .text_models.endpoint import EndpointModelSettings
    from .text_models.vllm import VllmModel

    whose = "the judge's model"
    checkpoint = locate(judge.model or "", context.base, judge.revision, whose)
    identity = identify(checkpoint, "vllm", whose)
    if context.asks:
        check_installed()
    server = VllmServer(server_settings(judge, checkpoint, identity.model), context.environ)
    settings = EndpointModelSettings(
        model=identity.model,
        provider="vllm",
        concurrency=concurrency(judge),
        timeout=judge.timeout,
    )
    return VllmModel(settings, identity, server, numerics(judge.dtype, tuple(judge.server_args)))


def _local(judge: JudgeSettings, context: JudgeContext) -> TextModel:
    from .text_models.local import LocalModel, LocalModelSettings

    model = judge.model or ""
    folder = context.base / model
    return LocalModel(
        LocalModelSettings(
            model=model,
            folder=folder if folder.is_dir() else None,
            revision=judge.revision,
            device=judge.device,
            dtype=judge.dtype,
        )
    )


_JUDGES: Final[Mapping[str, Callable[[JudgeSettings, JudgeContext], Judge]]] = {
    "harmbench": _build_harmbench,
    "llamaguard": _build_llamaguard,
    "rubric": _build_rubric,
    "answered": _build_answered,
}

KINDS: Final = frozenset(_JUDGES)
"""Kinds of judges with a model behind them."""
