"""Which settings a judge may have, by its kind and by where the model behind it runs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, get_args

if TYPE_CHECKING:
    from .config import JudgeSettings

JudgeKind = Literal["rules", "harmbench", "llamaguard", "rubric", "answered", "panel"]

KINDS: Final[tuple[str, ...]] = get_args(JudgeKind)

_PROVIDERS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "harmbench": ("http", "vllm", "transformers"),
        "llamaguard": ("http", "vllm", "transformers"),
        "rubric": ("http", "openai", "vllm"),
        "answered": ("http", "openai", "vllm"),
    }
)
"""Where the model behind each kind can run: the others have none."""

OF_TWINS: Final = "answered"
"""The kind that says whether a benign twin was answered, and nothing of what is safe."""

_OF_ANY: Final = frozenset(
    {
        *("kind", "provider", "max_retries", "requests_per_minute", "tokens_per_minute"),
        *("canaries", "canary_count", "canary_misses"),
    }
)
_OF_A_PANEL: Final = _OF_ANY - {"provider"} | {"members", "rule", "quorum"}
_OF_A_MODEL: Final = _OF_ANY | {"model", "revision", "clip_tokens"}
_OF_AN_ENDPOINT: Final = frozenset({"base_url", "api_key_env", "concurrency", "timeout"})
_OF_A_SERVER: Final = frozenset(
    {"dtype", "max_model_len", "tensor_parallel", "gpu_memory", "server_args", "start_timeout"}
)
_BY_PROVIDER: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        **dict.fromkeys(("http", "openai"), _OF_AN_ENDPOINT),
        "vllm": _OF_AN_ENDPOINT | _OF_A_SERVER,
        "transformers": frozenset({"device", "dtype"}),
    }
)
_BY_KIND: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "harmbench": frozenset({"template", "template_digest"}),
        "rubric": frozenset({"images"}),
    }
)


def with_kinds(judges: object) -> object:
    """Gives each judge whose table is named after a kind that kind, where it has none."""
    if not isinstance(judges, dict):
        return judges
    return {
        name: {**table, "kind": name}
        if isinstance(table, dict) and name in KINDS and _has_no_kind(table)
        else table
        for name, table in judges.items()
    }


def check_judge(judge: JudgeSettings) -> None:
    """Do nothing when these settings fit together.

    Raises:
        ValueError: one of them is missing, or has no meaning beside the others.
    """
    kind, provider = judge.kind, judge.provider
    given = judge.model_fields_set
    if kind is None and (provider is None or provider in _BY_PROVIDER):
        names = ", ".join(f'"{name}"' for name in KINDS)
        raise ValueError(f"needs kind, which is one of {names}")
    if kind == "panel":
        _check_panel(judge)
        return
    if kind is None and provider != "rules":
        _refuse(given & (_OF_A_PANEL - _OF_ANY), "a judge that is no panel")
        _refuse(given & {"images"}, "a judge of your own: one that looks at images says so itself")
        return  # a user's own: what its other settings mean is up to it
    if kind in (None, "rules"):
        if provider not in (None, "rules"):
            raise ValueError('kind "rules" asks no model, so it has no provider')
        _refuse(given - _OF_ANY, 'kind "rules"')
        return
    places = _PROVIDERS.get(kind or "", ())
    if provider not in places:
        raise ValueError(f'kind "{kind}" needs provider, which is one of {", ".join(places)}')
    if judge.model is None:
        raise ValueError(f'kind "{kind}" needs model')
    if provider == "http" and judge.base_url is None:
        raise ValueError(
            'provider "http" needs base_url: serve the model and name its address, such as '
            'http://127.0.0.1:8001/v1; or take provider = "vllm", which serves it'
        )
    if provider == "vllm":
        _check_server(judge)
    allowed = _OF_A_MODEL | _BY_PROVIDER[provider] | _BY_KIND.get(kind or "", frozenset())
    _refuse(given - allowed, f'kind "{kind}" with provider "{provider}"')


def _check_server(judge: JudgeSettings) -> None:
    given = judge.model_fields_set
    if judge.base_url is not None and (needless := given & _OF_A_SERVER):
        raise ValueError(
            f"'{min(needless)}' is for a server that is started here, and base_url names one that "
            "runs already; leave out one of them"
        )
    if judge.base_url is None and "api_key_env" in given:
        raise ValueError("'api_key_env' has no meaning for a server that is started here")


def _check_panel(judge: JudgeSettings) -> None:
    if not judge.members:
        raise ValueError('kind "panel" needs members = ["NAME", "NAME"]')
    _refuse(judge.model_fields_set - _OF_A_PANEL, 'kind "panel"')


def _has_no_kind(table: Mapping[str, object]) -> bool:
    provider = table.get("provider")
    own = isinstance(provider, str) and (":" in provider or provider == "rules")
    return "kind" not in table and not own


def _refuse(names: frozenset[str] | set[str], of_what: str) -> None:
    if names:
        raise ValueError(f"'{min(names)}' has no meaning for {of_what}")
