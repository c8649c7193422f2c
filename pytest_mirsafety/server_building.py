"""What the settings of a model and of a judge mean alike for the server behind either."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .checkpoints.identity import Checkpoint
    from .servers.arguments import VllmSettings
    from .setting_sections import ReachedSettings

ENDPOINT_KEY: Final = "MIRSAFETY_API_KEY"


def key_variable(own: ReachedSettings, *, hosted: bool) -> str:
    """The variable that holds the key; one meant for OpenAI goes to no other endpoint."""
    return own.api_key_env or ("OPENAI_API_KEY" if hosted else ENDPOINT_KEY)


def server_settings(own: ReachedSettings, checkpoint: Checkpoint, name: str) -> VllmSettings:
    """A server of ours that has this checkpoint and calls it so, for texts."""
    from .servers.arguments import VllmSettings

    return VllmSettings(
        source=checkpoint.source,
        name=name,
        revision=checkpoint.revision if checkpoint.folder is None else None,
        dtype=own.dtype,
        max_model_len=own.max_model_len,
        tensor_parallel=own.tensor_parallel,
        gpu_memory=own.gpu_memory,
        arguments=tuple(own.server_args),
        start_timeout=own.start_timeout,
    )


def concurrency(own: ReachedSettings) -> int:
    """Requests in flight at a server of ours: as many as it batches, where nothing was chosen."""
    from .servers.vllm import CONCURRENCY

    return own.concurrency if "concurrency" in own.model_fields_set else CONCURRENCY
