"""Which settings a model may have, by where it runs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .config import ModelSettings

_OF_A_SERVER: Final = frozenset(
    {
        *("dtype", "trust_remote_code", "needs_remote_code", "max_model_len", "tensor_parallel"),
        *("data_parallel", "gpu_memory", "server_args", "start_timeout"),
    }
)
_IN_PROCESS: Final = frozenset(
    {"device", "dtype", "trust_remote_code", "needs_remote_code", "batch_size", "seed"}
)
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

_LENGTHS_OF_ANSWERS: Final = ("max_tokens", "max_completion_tokens")


def needless_keys(provider: str, *, served: bool) -> frozenset[str]:
    """The settings that mean nothing to this provider; `served`: a `base_url` names its server."""
    needless = _NOT_BY_PROVIDER.get(provider, frozenset())
    if provider == "vllm":
        # Either somebody else started it, or a server of ours is asked with a key of ours.
        needless |= _OF_A_SERVER if served else {"api_key_env"}
    return needless


def loads_weights(provider: str, *, served: bool) -> bool:
    """Whether this run loads the model itself, rather than asking somebody's endpoint."""
    return provider == "transformers" or (provider == "vllm" and not served)


def check_model(model: ModelSettings) -> None:
    """Do nothing when these settings fit together.

    Raises:
        ValueError: one of them has no meaning beside the others, or exceeds what the model holds.
    """
    provider, given = model.provider, model.model_fields_set
    served = model.base_url is not None
    if needless := given & needless_keys(provider, served=served):
        name = min(needless)
        if provider == "vllm" and served and name in _OF_A_SERVER:
            raise ValueError(
                f"'{name}' is for a server that is started here, and base_url names one that runs "
                "already; leave out one of them"
            )
        raise ValueError(f"'{name}' has no meaning for provider '{provider}'")
    _check_lengths(model)


def _check_lengths(model: ModelSettings) -> None:
    limits = {"context_length": model.context_length, "max_model_len": model.max_model_len}
    known = {name: limit for name, limit in limits.items() if limit is not None}
    if len(known) == len(limits) and known["max_model_len"] > known["context_length"]:
        raise ValueError(
            f"max_model_len = {known['max_model_len']} is more than context_length = "
            f"{known['context_length']}"
        )
    for setting in _LENGTHS_OF_ANSWERS:
        length = model.decoding.get(setting)
        for name, limit in known.items():
            if isinstance(length, int | float) and length >= limit:
                raise ValueError(
                    f"decoding.{setting} = {length} leaves no room for a question in {name} = "
                    f"{limit}"
                )
