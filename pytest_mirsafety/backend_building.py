"""From settings to a backend of our own: the only place that knows their classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .arms import is_searched
from .config import ModelSettings
from .server_building import concurrency, key_variable, server_settings

if TYPE_CHECKING:
    from .attention.watching import Watch
    from .protocols import Backend
    from .records import Instance


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model as `--mllm` named it, with its settings."""

    name: str
    settings: ModelSettings


@dataclass(frozen=True, slots=True)
class BackendContext:
    """What a backend may need beside its settings.

    `instances` are the dataset's, in its order; relative paths are relative to `base`. The
    variables in `environ` hold keys, so they are never shown. Where nothing `asks`, as in a dry
    run, no key is needed. `watch` is what measures attention, if anything does.
    """

    instances: Sequence[Instance]
    base: Path
    environ: Mapping[str, str] = field(repr=False)
    asks: bool = True
    watch: Watch | None = None


def _build_openai(model: NamedModel, context: BackendContext) -> Backend:
    from .backends.openai import OpenAIBackend, OpenAISettings

    settings = model.settings
    hosted = settings.provider == "openai"
    return OpenAIBackend(
        OpenAISettings(
            provider=settings.provider,
            model=settings.model,
            revision=settings.revision,
            base_url=settings.base_url,
            api_key_env=key_variable(settings, hosted=hosted),
            key_required=context.asks and (hosted or settings.api_key_env is not None),
            system=settings.system,
            decoding=settings.decoding,
            image_transport=settings.image_transport,
            image_detail=settings.image_detail,
            concurrency=settings.concurrency,
            timeout=settings.timeout,
        ),
        environ=context.environ,
    )


def _build_transformers(model: NamedModel, context: BackendContext) -> Backend:
    from .backends.transformers import TransformersBackend, TransformersSettings
    from .checkpoints.devices import check_installed
    from .checkpoints.identity import locate

    settings, watch = model.settings, context.watch
    backend = TransformersBackend(
        TransformersSettings(
            checkpoint=locate(settings.model, context.base, settings.revision, "the model"),
            system=settings.system,
            decoding=settings.decoding,
            seed=settings.seed,
            device=settings.device,
            dtype=settings.dtype,
            trust_remote_code=settings.trust_remote_code,
            batch_size=settings.batch_size,
        ),
        observer=watch,
    )
    if context.asks:
        check_installed("running a model here")
    if watch is None:
        return backend
    from .attention.watching import WatchedBackend

    return WatchedBackend(backend, watch)


def _build_replay(model: NamedModel, context: BackendContext) -> Backend:
    from .backends.replay import ReplayBackend

    source = model.settings.model
    if source == "sample":
        from .data import sample

        return ReplayBackend.from_bytes(
            sample.read_member("answers.jsonl"), "sample", context.instances
        )
    return ReplayBackend.from_path(context.base / source, context.instances)


def _build_vllm(model: NamedModel, context: BackendContext) -> Backend:
    """A server of ours, or the endpoint that `base_url` names."""
    if model.settings.base_url is not None:
        return _build_openai(model, context)
    from .backends.media import folder_of_images
    from .backends.openai import OpenAISettings
    from .backends.vllm import VllmBackend
    from .checkpoints.identity import identify, locate, with_numerics
    from .servers.arguments import numerics
    from .servers.vllm import VllmServer, check_installed

    settings = model.settings
    checkpoint = locate(settings.model, context.base, settings.revision, "the model")
    identity = with_numerics(
        identify(checkpoint, "vllm", "the model", pinned=False),
        numerics(settings.dtype, tuple(settings.server_args)),
    )
    if context.asks:
        check_installed()
    # What is composed or edited here is no file that a server could open.
    made_here = settings.single_image or any(
        one.composed or is_searched(one.arm) for one in context.instances
    )
    by_file = not made_here and "image_transport" not in settings.model_fields_set
    transport = "file" if by_file else settings.image_transport
    server = VllmServer(
        replace(
            server_settings(settings, checkpoint, identity.model),
            trust_remote_code=settings.trust_remote_code,
            data_parallel=settings.data_parallel,
            images=1
            if settings.single_image
            else max((len(instance.images) for instance in context.instances), default=1),
        ),
        context.environ,
        partial(folder_of_images, context.instances) if transport == "file" else None,
    )
    return VllmBackend(
        OpenAISettings(
            provider="vllm",
            model=identity.model,
            system=settings.system,
            decoding=settings.decoding,
            image_transport=transport,
            image_detail=settings.image_detail,
            concurrency=concurrency(settings),
            timeout=settings.timeout,
        ),
        identity,
        server,
    )


BUILDERS: Final[Mapping[str, Callable[[NamedModel, BackendContext], Backend]]] = {
    "openai": _build_openai,
    "http": _build_openai,
    "replay": _build_replay,
    "transformers": _build_transformers,
    "vllm": _build_vllm,
}
"""What makes the backend of each provider."""
