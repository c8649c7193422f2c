"""`mirsafety models`: the models that --mllm knows by name, and what is known of one of them."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..printable import one_line

if TYPE_CHECKING:
    from ..backend_building import NamedModel
    from ..config import Configuration, ModelSettings
    from . import Commands

_OWN, _OVERRIDDEN, _BUILT_IN, _TYPED = "configured", "overridden", "built-in", "--mllm"
_MARKS: Final[Mapping[str, str]] = {_OWN: "+", _OVERRIDDEN: "*", _BUILT_IN: " "}
_DEFAULT: Final = "default"
_VALUE: Final = 2000
_INDENT: Final = 14
_LEFT_TO_A_SERVER: Final = ("image_transport", "concurrency")
"""What suits a model that is loaded here is found out where it is loaded, unless it is set."""
_WIDTH: Final = 79
_KEPT: Final = "\N{NO-BREAK SPACE}"
_LEGEND: Final = (
    "*: your configuration overrides it. +: your own.",
    "img.: the most images in one request; many where no limit is known; one where",
    "those of an instance are put side by side.",
    'decoding: greedy and recorded have the default estimand "answers"; sampled and',
    'own (the provider\'s, for nothing is sent) "model".',
    "`mirsafety models NAME` explains a model.",
)


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("models", help="list the models known by name, or explain one")
    parser.add_argument("name", nargs="?", metavar="NAME", help="any form that --mllm takes")
    parser.add_argument("--config", type=Path, metavar="FILE", help="instead of the one found here")
    parser.add_argument("--json", action="store_true", help="print JSON, for tools")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """List all models, or explain the one that is named.

    Raises:
        ConfigurationError: the configuration is wrong, or no model has this name.
    """
    from .. import config
    from ..backend_building import NamedModel
    from ..registry import builtin_models, find_model

    configuration = config.load(Path.cwd(), options.config)
    if options.name is not None:
        model = find_model(options.name, configuration.settings, "models")
        if options.json:
            print(json.dumps(_explained(model, configuration), indent=2))
        else:
            print("\n".join(_explanation(model, configuration)))
        return
    models = {**builtin_models(), **configuration.settings.models}
    named = [NamedModel(name, settings) for name, settings in models.items()]
    if options.json:
        print(json.dumps([_summary(model, configuration) for model in named], indent=2))
    else:
        print("\n".join(_listing(named, configuration, shutil.get_terminal_size().columns)))


def _origin(model: NamedModel, configuration: Configuration) -> str:
    from ..model_tables import tables

    built_in, own = model.name in tables(), model.name in configuration.written
    if own:
        return _OVERRIDDEN if built_in else _OWN
    return _BUILT_IN if built_in else _TYPED


def _decoding(settings: ModelSettings) -> str:
    from ..registry import declares_greedy

    if settings.provider == "replay":
        return "recorded"
    if declares_greedy(settings):
        return "greedy"
    return "own" if settings.decoding.get("temperature") is None else "sampled"


def _estimand(settings: ModelSettings) -> str:
    from ..registry import declares_greedy

    return "answers" if declares_greedy(settings) else "model"


def _images(settings: ModelSettings) -> str:
    if settings.single_image:
        return "one"
    return "many" if settings.max_images is None else str(settings.max_images)


def _listing(
    models: Iterable[NamedModel], configuration: Configuration, width: int
) -> Iterator[str]:
    """A table for each provider, no line of it longer than `width`."""
    by_provider: dict[str, list[NamedModel]] = {}
    for model in models:
        by_provider.setdefault(model.settings.provider, []).append(model)
    wide = max(len(one_line(name, 40)) for name in map(_name_of, chain(*by_provider.values())))
    for provider, group in by_provider.items():
        yield f"provider {one_line(provider, 60)}"
        yield f" {'name':{wide}} img. decoding model"
        for model in group:
            settings = model.settings
            start = (
                f"{_MARKS[_origin(model, configuration)]}{one_line(model.name, 40):{wide}} "
                f"{_images(settings):4} {_decoding(settings):8} "
            )
            identifier = one_line(settings.model, 200)
            if len(start) + len(identifier) <= width:
                yield start + identifier
            else:
                yield start.rstrip()
                yield identifier.rjust(width)
        yield ""
    yield from _LEGEND


def _name_of(model: NamedModel) -> str:
    return model.name


def _explanation(model: NamedModel, configuration: Configuration) -> Iterator[str]:
    settings = model.settings
    title = f"{model.name}: {settings.about}" if settings.about else model.name
    yield from _wrapped(one_line(title, 1000), 2)
    facts = {
        "run it": f"pytest --mllm={shlex.quote(model.name)}",
        "needs": _needs(model),
        "images": _images_in_words(settings),
        "decoding": _decoding_in_words(settings),
        "estimand": _estimand_in_words(configuration, settings),
        "reasoning": _reasoning_in_words(settings),
    }
    for name, fact in facts.items():
        yield from _wrapped(f"  {name + ':':{_INDENT - 2}}{one_line(fact, 1000)}", _INDENT)
    yield ""
    fields = _fields(model, configuration)
    stated = [(key, value, origin) for key, value, origin in fields if origin != _DEFAULT]
    wide = max(len(origin) for _, _, origin in stated)
    for key, value, origin in stated:
        if key != "about":
            line = f"  {origin:{wide}}  {key} = {_toml(value, space=_KEPT)}"
            yield from _freed(_wrapped(line, wide + 6))
    defaults = [
        f"{key} = {_toml(value)}".replace(" ", _KEPT)
        for key, value, origin in fields
        if origin == _DEFAULT
    ]
    yield from _freed(_wrapped(f"  defaults: {', '.join(defaults)}", 4))


def _wrapped(line: str, indent: int) -> Sequence[str]:
    return textwrap.wrap(
        line,
        _WIDTH,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _freed(lines: Iterable[str]) -> Iterator[str]:
    return (line.replace(_KEPT, " ") for line in lines)


def _needs(model: NamedModel) -> str:
    settings = model.settings
    needs = _provider_needs(settings)
    if settings.needs_remote_code and not settings.trust_remote_code:
        needs += (
            "; trust_remote_code = true in your configuration, since it runs code from its "
            "repository"
        )
    return needs


def _provider_needs(settings: ModelSettings) -> str:
    provider, key = settings.provider, settings.api_key_env
    if provider == "openai":
        return f"an API key in {key or 'OPENAI_API_KEY'}"
    if provider == "http" or (provider == "vllm" and settings.base_url is not None):
        return (
            f"{settings.base_url or 'a base_url'}, with an API key in {key}"
            if key
            else (f"a server at {settings.base_url or 'a base_url'}")
        )
    return {
        "vllm": "the package vllm in this environment, and memory for the weights",
        "transformers": "the extra `transformers` of pytest-mirsafety, and memory for the weights",
        "replay": "nothing more: nothing is asked",
    }.get(provider, f"your module {provider.partition(':')[0]}")


def _images_in_words(settings: ModelSettings) -> str:
    if settings.single_image:
        return "one in a request: those of an instance are put side by side"
    most = settings.max_images
    return "several in a request" + ("" if most is None else f", {most} at most")


def _decoding_in_words(settings: ModelSettings) -> str:
    told = settings.decoding.get("temperature") is not None
    words = {
        "recorded": "nothing is sent: the answers are recorded",
        "greedy": "greedy, " + ("since temperature is 0" if told else "as no temperature is set"),
        "sampled": f"sampled, at temperature {settings.decoding.get('temperature')}",
        "own": "the provider's own: no temperature is sent",
    }
    return words[_decoding(settings)]


def _estimand_in_words(configuration: Configuration, settings: ModelSettings) -> str:
    default = _estimand(settings)
    why = {
        "answers": "the rate is of these answers to these items",
        "model": "the rate is of what the model would answer in the long run",
    }
    words = f'"{default}" by default: {why[default]}'
    chosen = configuration.settings.estimand
    return words if chosen is None else f'"{chosen}", as your configuration says; {words}'


def _reasoning_in_words(settings: ModelSettings) -> str:
    from ..reasoning import DEFAULT

    own = settings.reasoning_markers
    if own is not None and not own:
        return "nothing is taken off the front of an answer"
    pairs = " or ".join(f"{pair.open}...{pair.close}" for pair in (DEFAULT if own is None else own))
    return f"what stands in {pairs} is taken off the front of an answer"


def _fields(model: NamedModel, configuration: Configuration) -> list[tuple[str, object, str]]:
    """Each field that has a meaning for the provider: its key, its value, where that is from."""
    from ..model_forms import loads_weights, needless_keys
    from ..setting_sections import ReachedSettings

    settings = model.settings
    file = "" if configuration.file is None else configuration.file.name
    written = configuration.written.get(model.name, frozenset())
    values = settings.model_dump()
    served = settings.base_url is not None
    needless = needless_keys(settings.provider, served=served)
    left = _LEFT_TO_A_SERVER if loads_weights(settings.provider, served=served) else ()
    fields = []
    # What the model is, then how it is reached.
    for key in sorted(type(settings).model_fields, key=ReachedSettings.model_fields.__contains__):
        if key not in settings.model_fields_set:
            origin = _DEFAULT
        elif key in written:
            origin = one_line(file)
        else:
            origin = _TYPED if _origin(model, configuration) == _TYPED else _BUILT_IN
        unset = key in needless or key in left or values[key] in (None, "", {}, [])
        if origin != _DEFAULT or not unset:
            fields.append((key, _plain(values[key]), origin))
    return fields


def _plain(value: object) -> object:
    """The same as TOML and JSON can say it: markers are pairs, and thresholds only those set."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, Mapping):
        if value.keys() == {"open", "close"}:
            return [value["open"], value["close"]]
        return {str(k): _plain(v) for k, v in value.items() if v is not None and v != {}}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _toml(value: object, space: str = " ") -> str:
    """A value as a configuration would have it; `space` is what stands within a text."""
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key} = {_toml(item, space)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list):
        return f"[{', '.join(_toml(item, space) for item in value)}]"
    if not isinstance(value, str):
        return json.dumps(value)
    text = one_line(value, _VALUE)
    literal = '"' in text and "'" not in text
    return (f"'{text}'" if literal else json.dumps(text, ensure_ascii=False)).replace(" ", space)


def _summary(model: NamedModel, configuration: Configuration) -> dict[str, Any]:
    settings = model.settings
    return {
        "name": model.name,
        "origin": _origin(model, configuration),
        "provider": settings.provider,
        "model": settings.model,
        "revision": settings.revision,
        "single_image": settings.single_image,
        "max_images": settings.max_images,
        "context_length": settings.context_length,
        "decoding": _plain(settings.decoding),
        "greedy": _estimand(settings) == "answers",
        "default_estimand": _estimand(settings),
        "about": settings.about,
    }


def _explained(model: NamedModel, configuration: Configuration) -> dict[str, Any]:
    fields = {
        key: {"value": value, "from": origin}
        for key, value, origin in _fields(model, configuration)
    }
    more = {"command": f"pytest --mllm={shlex.quote(model.name)}", "needs": _needs(model)}
    return {**_summary(model, configuration), **more, "fields": fields}
