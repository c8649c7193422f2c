"""From a name to an adapter: models and judges, built-in, configured, or a user's own."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from .config import JudgeSettings, ModelSettings, Settings, parse
from .errors import ConfigurationError
from .printable import one_line
from .taxonomy import nearest

if TYPE_CHECKING:
    from .protocols import Backend, Judge
    from .records import Instance

LATER_PROVIDERS: Final = ("vllm", "transformers")
_OWN: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model as `--mllm` named it, with its settings."""

    name: str
    settings: ModelSettings


@dataclass(frozen=True, slots=True)
class BackendContext:
    """What a backend may need beside its settings.

    `instances` are the dataset's, in its order; relative paths are relative to `base`.
    """

    instances: Sequence[Instance]
    base: Path
    environ: Mapping[str, str]


@cache
def builtin_models() -> Mapping[str, ModelSettings]:
    """The models that come with the package, by name."""
    text = resources.files(__package__).joinpath("models.toml").read_text(encoding="utf-8")
    return parse({"models": tomllib.loads(text, parse_float=Decimal)}, "models.toml").models


def find_model(text: str, settings: Settings) -> NamedModel:
    """The model of this name: configured, built-in, an endpoint's URL, or `provider:model`.

    Raises:
        ConfigurationError: nothing has this name; the message has the nearest one and the forms.
    """
    for models in (settings.models, builtin_models()):
        if text in models:
            return NamedModel(text, models[text])
    if text.startswith(("http://", "https://")):
        return NamedModel(*_at_endpoint(text))
    provider, colon, model = text.partition(":")
    if colon and model and (provider in _BACKENDS or provider in LATER_PROVIDERS):
        return NamedModel(text, ModelSettings(provider=provider, model=model))
    if _OWN.fullmatch(text):
        return NamedModel(text, ModelSettings(provider=text, model=model))
    names = _BACKENDS if colon else [*settings.models, *builtin_models()]
    hint = nearest(provider if colon else text, names)
    raise ConfigurationError(
        one_line(
            f"--mllm: no model '{text}'; {_ended(hint)} Or configure [models.NAME], or write "
            "openai:MODEL, http://HOST:PORT/v1#MODEL, replay:FILE.jsonl, package.module:factory",
            400,
        )
    )


def declares_greedy(settings: ModelSettings) -> bool:
    """Whether these settings alone say that decoding is greedy, or that answers are recorded."""
    return settings.provider == "replay" or settings.decoding.get("temperature") == 0


def build_backend(model: NamedModel, context: BackendContext) -> Backend:
    """The backend that these settings describe.

    Raises:
        ConfigurationError: no such provider, or its settings are wrong.
        DataError: recorded answers cannot be read.
    """
    provider = model.settings.provider
    if provider in LATER_PROVIDERS:
        raise ConfigurationError(
            f"provider '{provider}' is not in this version: serve the model "
            f"(vllm serve {model.settings.model}) and use --mllm=http://127.0.0.1:8000/v1#"
            f"{model.settings.model}"
        )
    if (build := _BACKENDS.get(provider)) is not None:
        return build(model, context)
    factory: Callable[[ModelSettings], Backend] = _load_attribute(provider, "provider", _BACKENDS)
    return factory(model.settings)


def build_judge(name: str, settings: Settings) -> Judge:
    """The judge of this name: configured, built-in, or `module:attr`.

    Raises:
        ConfigurationError: nothing has this name.
    """
    judge = settings.judges.get(name, JudgeSettings(provider=name))
    if (build := _JUDGES.get(judge.provider)) is not None:
        return build(judge)
    names = [*settings.judges, *_JUDGES]
    factory: Callable[[JudgeSettings], Judge] = _load_attribute(judge.provider, "judge", names)
    return factory(judge)


def _ended(hint: str) -> str:
    return hint if hint.endswith("?") else f"{hint}."


def _at_endpoint(url: str) -> tuple[str, ModelSettings]:
    base_url, _, model = url.partition("#")
    if not model:
        raise ConfigurationError(f"--mllm: name the model behind a '#': {url}#MODEL")
    settings = ModelSettings(
        provider="http", model=model, base_url=base_url, decoding={"temperature": 0}
    )
    return url, settings


def _load_attribute(path: str, what: str, valid: Iterable[str]) -> Callable[[Any], Any]:
    """A user's own factory, named `package.module:attribute`."""
    module_name, _, attribute = path.partition(":")
    hint = f"{_ended(nearest(module_name, valid))} Your own: package.module:factory"
    if not _OWN.fullmatch(path):
        raise ConfigurationError(one_line(f"unknown {what} '{path}'; {hint}", 400))
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            one_line(f"{what} '{path}' cannot be loaded: {error}; {hint}", 400)
        ) from error
    if not callable(factory):
        raise ConfigurationError(f"{what} '{path}' is not callable")
    return cast("Callable[[Any], Any]", factory)


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
            # A key meant for one provider is never sent to another one's endpoint.
            api_key_env=settings.api_key_env or ("OPENAI_API_KEY" if hosted else ENDPOINT_KEY),
            key_required=hosted or settings.api_key_env is not None,
            system=settings.system,
            decoding=settings.decoding,
            image_transport=settings.image_transport,
            image_detail=settings.image_detail,
            concurrency=settings.concurrency,
            timeout=settings.timeout,
            max_retries=settings.max_retries,
        ),
        environ=context.environ,
    )


def _build_replay(model: NamedModel, context: BackendContext) -> Backend:
    from .backends.replay import ReplayBackend

    source = model.settings.model
    if source == "sample":
        from .data import sample

        return ReplayBackend.from_bytes(
            sample.read_member("answers.jsonl"), "sample", context.instances
        )
    return ReplayBackend.from_path(context.base / source, context.instances)


def _build_rules(_: JudgeSettings) -> Judge:
    from .judges.rules import RulesJudge

    return RulesJudge()


ENDPOINT_KEY: Final = "MIRSAFETY_API_KEY"

_BACKENDS: Final[Mapping[str, Callable[[NamedModel, BackendContext], Backend]]] = {
    "openai": _build_openai,
    "http": _build_openai,
    "replay": _build_replay,
}

_JUDGES: Final[Mapping[str, Callable[[JudgeSettings], Judge]]] = {"rules": _build_rules}
