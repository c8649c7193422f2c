"""From a name to an adapter: models and judges, built-in, configured, or a user's own."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from pydantic import ValidationError

from . import judge_building, model_tables
from .backend_building import BUILDERS, BackendContext, NamedModel
from .config import JudgeSettings, ModelSettings, Settings, parse
from .errors import ConfigurationError, RunError
from .judge_building import JudgeContext
from .model_forms import loads_weights
from .printable import one_line
from .records import ModelIdentity
from .taxonomy import nearest, nearest_names

if TYPE_CHECKING:
    from .protocols import Backend, Defence, Judge
    from .records import Instance
    from .setting_sections import ArmSettings

_RUNS_HERE: Final = frozenset({"vllm", "transformers"})
_Made = TypeVar("_Made")
_Section = TypeVar("_Section", ModelSettings, JudgeSettings)

_LINE: Final = 400
_MOST_NAMES: Final = 4
_OWN: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@cache
def builtin_models() -> Mapping[str, ModelSettings]:
    """The models that come with the package, by name."""
    return parse({"models": model_tables.tables()}, "models.toml").models


def find_model(text: str, settings: Settings, place: str = "--mllm") -> NamedModel:
    """The model of this name: configured, built-in, an endpoint's URL, or `provider:model`.

    Raises:
        ConfigurationError: nothing has this name; the message has the nearest ones and the forms.
    """
    for models in (settings.models, builtin_models()):
        if text in models:
            return NamedModel(text, models[text])
    if text.startswith(("http://", "https://")):
        return NamedModel(*_at_endpoint(text, place))
    provider, colon, model = text.partition(":")
    if colon and model and provider in BUILDERS:
        return NamedModel(text, _valid(ModelSettings, place, **_short(provider, model)))
    if _OWN.fullmatch(text):
        return NamedModel(text, _valid(ModelSettings, place, provider=text, model=model))
    hint = nearest(provider, BUILDERS) if colon else _nearest_models(text, settings)
    raise ConfigurationError(
        one_line(
            f"{place}: no model '{one_line(text, 100)}'; {_ended(hint)} Or configure "
            "[models.NAME], or write openai:MODEL, vllm:MODEL, http://HOST:PORT/v1#MODEL, "
            "replay:FILE.jsonl, package.module:factory",
            _LINE,
        )
    )


def _nearest_models(text: str, settings: Settings) -> str:
    """The names that may be meant: spelt alike, or a model's identifier at its provider."""
    models = {**builtin_models(), **settings.models}
    spelt = {name: name for name in models} | {m.model: name for name, m in models.items()}
    names = dict.fromkeys(spelt[found] for found in nearest_names(text, spelt))
    if not names:
        return "'mirsafety models' lists the names"
    quoted = [f"'{name}'" for name in list(names)[:_MOST_NAMES]]
    return f"did you mean {' or '.join(filter(None, [', '.join(quoted[:-1]), quoted[-1]]))}?"


def declares_greedy(settings: ModelSettings) -> bool:
    """Whether these settings alone say that decoding is greedy, or that answers are recorded."""
    temperature = settings.decoding.get("temperature")
    zero = temperature == 0 and not isinstance(temperature, bool)
    # A model of this process is greedy as long as no temperature is set.
    unset = settings.provider == "transformers" and temperature is None
    return settings.provider == "replay" or zero or unset


def build_backend(model: NamedModel, context: BackendContext) -> Backend:
    """The backend that these settings describe.

    Raises:
        ConfigurationError: no such provider, its settings are wrong, or a user's own factory
            fails or makes no backend.
        DataError: recorded answers cannot be read.
    """
    provider = model.settings.provider
    if context.asks:
        _check_trust(model)
    if (build := BUILDERS.get(provider)) is not None:
        return build(model, context)
    factory: Callable[[ModelSettings], Backend] = _load_attribute(provider, "provider", BUILDERS)
    return _made(f"provider '{provider}'", partial(factory, model.settings), _BACKEND_MEMBERS)


def _check_trust(model: NamedModel) -> None:
    """Raises ConfigurationError if the model would need code that nobody has trusted."""
    settings = model.settings
    here = loads_weights(settings.provider, served=settings.base_url is not None)
    if here and settings.needs_remote_code and not settings.trust_remote_code:
        raise ConfigurationError(
            one_line(
                f"{model.name} runs code from its repository, {settings.model}: read that, then "
                f"set trust_remote_code = true in {model_tables.header(model.name)}",
                _LINE,
            )
        )


def find_judge(name: str, settings: Settings) -> JudgeSettings:
    """The settings of the judge of this name, which need not be configured.

    Raises:
        ConfigurationError: it is no name.
    """
    if (judge := settings.judges.get(name)) is not None:
        return judge
    if name in judge_building.KINDS:
        raise ConfigurationError(
            f"judge '{name}' asks a model: describe it in [judges.{name}] (provider, model, "
            "base_url)"
        )
    if name == "panel":
        raise ConfigurationError("judge 'panel': describe it in [judges.panel] (members)")
    return _valid(JudgeSettings, "judge", provider=name)


def build_judge(
    judge: JudgeSettings, settings: Settings, context: JudgeContext | None = None
) -> Judge:
    """The judge that these settings describe: built-in, or `module:attr`.

    Raises:
        ConfigurationError: no such provider, or a user's own factory fails or makes no judge.
    """
    if judge.kind in judge_building.KINDS:
        return judge_building.build(judge, context or JudgeContext())
    name = judge.provider or judge.kind or ""
    if (build := _JUDGES.get(name)) is not None:
        return build(judge)
    if name.startswith(judge_building.RECORDED):
        return judge_building.build_recorded(name, context or JudgeContext())
    names = [*settings.judges, *_JUDGES, *judge_building.KINDS]
    factory: Callable[[JudgeSettings], Judge] = _load_attribute(name, "judge", names)
    return _made(f"judge '{name}'", partial(factory, judge), _JUDGE_MEMBERS)


def load_arm(path: str) -> Callable[[Instance], Instance]:
    """A user's own function from an instance to the one that is asked: `module:attr`.

    Raises:
        ConfigurationError: it cannot be loaded, or is none.
    """
    return _load_attribute(path, "arm", [])


def load_guard(path: str, names: Iterable[str]) -> Callable[..., Any]:
    """A user's own function as a guard, `module:attr`; `names` are those of other guards.

    Raises:
        ConfigurationError: it cannot be loaded, or is none.
    """
    return _load_attribute(path, "guard", names)


def build_defence(path: str, settings: ArmSettings) -> Defence:
    """A user's own defence, `module:attr`, made of the settings of its arm.

    Raises:
        ConfigurationError: its factory cannot be loaded, fails, or makes no defence.
    """
    factory: Callable[[ArmSettings], Defence] = _load_attribute(path, "defence", [])
    return _made(f"defence '{path}'", partial(factory, settings), _DEFENCE_MEMBERS)


def _ended(hint: str) -> str:
    return hint if hint.endswith("?") else f"{hint}."


def _short(provider: str, model: str) -> dict[str, object]:
    """What `provider:model` stands for: what runs here decodes greedily unless it is configured."""
    greedy = {"decoding": {"temperature": 0}} if provider in _RUNS_HERE else {}
    return {"provider": provider, "model": model, **greedy}


def _at_endpoint(url: str, place: str) -> tuple[str, ModelSettings]:
    base_url, _, model = url.partition("#")
    if not model:
        raise ConfigurationError(one_line(f"{place}: name the model behind a '#': {url}#MODEL"))
    fields = {"model": model, "base_url": base_url, "decoding": {"temperature": 0}}
    return url, _valid(ModelSettings, place, provider="http", **fields)


def _valid(section: type[_Section], place: str, **fields: object) -> _Section:
    """The settings of a name that was typed."""
    try:
        return section.model_validate(fields)
    except ValidationError as error:
        problem = error.errors(include_input=False)[0]
        text = fields[str(problem["loc"][0])] if problem["loc"] else fields["provider"]
        raise ConfigurationError(one_line(f"{place}: {problem['msg']}: '{text}'")) from None


def _load_attribute(path: str, what: str, valid: Iterable[str]) -> Callable[[Any], Any]:
    """A user's own factory, named `package.module:attribute`."""
    module_name, _, attribute = path.partition(":")
    hint = f"{_ended(nearest(module_name, valid))} Your own: package.module:factory"
    if not _OWN.fullmatch(path):
        raise ConfigurationError(one_line(f"unknown {what} '{path}'; {hint}", _LINE))
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            one_line(f"{what} '{path}' cannot be loaded: {error}; {hint}", _LINE)
        ) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a user's module: it may exit, or skip a test
        raise _broken(f"{what} '{path}' cannot be loaded", error) from error
    if not callable(factory):
        raise ConfigurationError(f"{what} '{path}' is not callable")
    return cast("Callable[[Any], Any]", factory)


def _made(name: str, make: Callable[[], _Made], members: _Members) -> _Made:
    """What a user's own factory makes, with every member that is asked for later."""
    try:
        made = make()
        values = {member: getattr(made, member, _MISSING) for member in members}
    except (RunError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a user's factory: it may exit, or skip a test
        raise _broken(f"{name} failed", error) from error
    for member, (wanted, is_valid) in members.items():
        if values[member] is _MISSING:
            problem = f"it made {type(made).__name__}, which has no {member}"
        elif not is_valid(values[member]):
            problem = f"{member} must be {wanted}, not {type(values[member]).__name__}"
        else:
            continue
        raise ConfigurationError(one_line(f"{name}: {problem}", _LINE))
    return made


def _broken(problem: str, error: BaseException) -> ConfigurationError:
    line = one_line(f"{problem}: {type(error).__name__}: {error}", _LINE)
    return ConfigurationError(line.rstrip(": "))


def _is_text(value: object) -> bool:
    """Text that a file can hold: without half a surrogate pair."""
    return isinstance(value, str) and value == value.encode(errors="ignore").decode()


def _is_optional_text(value: object) -> bool:
    return value is None or _is_text(value)


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_named(value: object) -> bool:
    return isinstance(value, str) and _is_text(value) and bool(value.strip())


def _is_identity(value: object) -> bool:
    if not isinstance(value, ModelIdentity):
        return False
    optional = _is_optional_text(value.endpoint) and _is_optional_text(value.revision)
    return optional and _is_named(value.provider) and _is_named(value.model)


def _is_decoding(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        _is_text(name) and _is_scalar(setting) for name, setting in value.items()
    )


def _is_scalar(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return _is_optional_text(value) or (isinstance(value, int) and abs(value) < _LARGEST)


def _build_rules(_: JudgeSettings) -> Judge:
    from .judges.rules import RulesJudge

    return RulesJudge()


_JUDGES: Final[Mapping[str, Callable[[JudgeSettings], Judge]]] = {"rules": _build_rules}

_MISSING: Final = object()

_LARGEST: Final = 2**63
"""Whole numbers below it are read alike by every JSON reader that a server may use."""

_Members = Mapping[str, tuple[str, Callable[[object], bool]]]
"""By member: what it must be, in words and as a check."""

_BACKEND_MEMBERS: Final[_Members] = {
    "identity": ("a ModelIdentity of texts", _is_identity),
    "system": ("text or None", _is_optional_text),
    "decoding": ("a mapping of names to texts, finite numbers, bools or None", _is_decoding),
    "greedy": ("True or False", _is_bool),
    "cacheable": ("True or False", _is_bool),
    "needs_bytes": ("True or False", _is_bool),
    "concurrency": ("a whole number from 1", _is_count),
    "complete": ("a method", callable),
    "aclose": ("a method", callable),
}

_DEFENCE_MEMBERS: Final[_Members] = {
    "identity": ("text that is not blank", _is_named),
    "concurrency": ("a whole number from 1", _is_count),
    "before": ("a method", callable),
    "after": ("a method", callable),
    "aclose": ("a method", callable),
}

_JUDGE_MEMBERS: Final[_Members] = {
    "identity": ("text that is not blank", _is_named),
    "screening": ("True or False", _is_bool),
    "concurrency": ("a whole number from 1", _is_count),
    "judge": ("a method", callable),
    "aclose": ("a method", callable),
}
