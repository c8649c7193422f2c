"""Which settings a model may have, by where it runs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .config import ModelSettings

_OF_A_SERVER: Final = frozenset(
    {
        *("dtype", "trust_remote_code", "max_model_len", "tensor_parallel", "data_parallel"),
        *("gpu_memory", "server_args", "start_timeout"),
    }
)
_IN_PROCESS: Final = frozenset({"device", "dtype", "trust_remote_code", "batch_size", "seed"})
_OF_WHAT_RUNS_HERE: Final = _OF_A_SERVER | _IN_PROCESS
_OF_AN_ENDPOINT: Final = frozenset(
    {"base_url", "api_key_env", "image_transport", "image_detail", "timeout"}
)
_NOT_BY_PROVIDER: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "openai": _OF_WHAT_RUNS_HERE,
        "http": _OF_WHAT_RUNS_HERE,
        "vllm": _OF_WHAT_RUNS_HERE - _OF_A_SERVER,
        "transformers": _OF_WHAT_RUNS_HERE - _IN_PROCESS | _OF_AN_ENDPOINT | {"concurrency"},
    }
)
"""What means nothing to each provider; to a user's own it is up to that what it means."""


def check_model(model: ModelSettings) -> None:
    """Do nothing when these settings fit together.

    Raises:
        ValueError: one of them has no meaning beside the others.
    """
    provider, given = model.provider, model.model_fields_set
    needless = _NOT_BY_PROVIDER.get(provider, frozenset())
    if provider == "vllm" and model.base_url is not None:
        needless |= _OF_A_SERVER  # somebody else started it
        if given & needless:
            raise ValueError(
                f"'{min(given & needless)}' is for a server that is started here, and base_url "
                "names one that runs already; leave out one of them"
            )
    if given & needless:
        raise ValueError(f"'{min(given & needless)}' has no meaning for provider '{provider}'")
