"""The configuration: read from TOML, validated whole, and frozen."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from .errors import ConfigurationError
from .gates import Estimand, Thresholds
from .gates.criteria import MAX_DECIMALS, nearest_threshold, threshold_key, with_few_decimals
from .judge_forms import JudgeKind, check_judge, with_kinds
from .mode_forms import mode_thresholds
from .model_forms import check_model
from .model_tables import with_builtin
from .printable import one_line
from .reasoning import ReasoningMarkers, markers_of
from .records import SafeMode, Scalar
from .tally import UnscoredPolicy
from .taxonomy import Category, Group, Relation, nearest, parse_category, parse_relation
from .trials import MOST as MOST_TRIALS
from .trials import TrialRule, Trials

_MAX_ERRORS: Final = 3
_LINE_LIMIT: Final = 1000
_MAX_PRICE: Final = 1_000_000
_OPTION_NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_VARIABLE: Final = re.compile(r"(?!sk_)[A-Za-z_][A-Za-z0-9_]*")


def _number(value: object, wanted: str) -> Decimal:
    """The finite number that a value is; only then may it be compared or made exact."""
    if isinstance(value, bool) or not isinstance(value, Decimal | int):
        # ValueError throughout: pydantic lets a TypeError through.
        raise ValueError(f"must be {wanted}, not {_shown(value)}")  # noqa: TRY004
    number = Decimal(value)
    if not number.is_finite():
        raise ValueError(f"must be {wanted}, not {number}")
    return number


def _threshold(value: object) -> Decimal:
    wanted = "a share from 0 to 1"
    number = _number(value, wanted)
    if not 0 <= number <= 1:
        raise ValueError(f"must be {wanted}, not {_shown(number)}")
    return with_few_decimals(number)


def _price(value: object) -> Decimal:
    number = _number(value, "money per million tokens, such as 2.50")
    if not 0 <= number <= _MAX_PRICE:
        raise ValueError(f"must be from 0 to {_MAX_PRICE:,}, not {_shown(number)}")
    return number


def _group(text: str) -> Group:
    if text not in list(Group):
        raise ValueError(f"unknown group '{text}'; {nearest(text, list(Group))}")
    return Group(text)


def _confidence(value: object) -> Decimal:
    number = _number(value, "a number such as 0.95")
    if not Decimal("0.5") < number < 1:
        raise ValueError(f"must be above 0.5 and below 1, not {_shown(number)}")
    return with_few_decimals(number)


def _parsed(parse: Callable[[str], Relation | Category | Group]) -> BeforeValidator:
    """Takes a name; what is wrong with it is printable, as pydantic needs it to be."""

    def take(value: object) -> object:
        try:
            return parse(str(value))
        except ValueError as error:
            problem = str(error)
            if (key := threshold_key(str(value))) is not None:  # a gate of another kind
                problem = f"{problem.partition('; ')[0]}; did you mean 'thresholds.{key}'?"
            raise ValueError(one_line(problem, _LINE_LIMIT)) from None

    return BeforeValidator(take)


def _one_key_each(parse: Callable[[str], Relation | Category]) -> BeforeValidator:
    """Refuses two keys that are one name, of which only the last would count."""

    def check(table: object) -> object:
        first: dict[str, str] = {}
        for key in map(str, table) if isinstance(table, dict) else ():
            try:
                name = parse(key)
            except ValueError:
                continue  # the keys' own validator says what is wrong with it
            if (other := first.setdefault(name, key)) != key:
                raise ValueError(
                    f"'{one_line(other)}' and '{one_line(key)}' are both {name}; keep one"
                )
        return table

    return BeforeValidator(check)


def _variable(value: object) -> object:
    # The value is not repeated: somebody may have pasted the key itself.
    if value is not None and not (isinstance(value, str) and _VARIABLE.fullmatch(value)):
        raise ValueError("must be the name of an environment variable, not the key itself")
    return value


Threshold = Annotated[Decimal, BeforeValidator(_threshold)]
ModeThresholds = Annotated[
    dict[SafeMode, Decimal], BeforeValidator(partial(mode_thresholds, of=_threshold))
]
Price = Annotated[Decimal, BeforeValidator(_price)]
RelationName = Annotated[Relation, _parsed(parse_relation)]
CategoryName = Annotated[Category, _parsed(parse_category)]
GroupName = Annotated[Group, _parsed(_group)]
Name = Annotated[str, Field(min_length=1, max_length=500)]


def _plain_number(value: object) -> object:
    return float(value) if isinstance(value, Decimal) else value


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class RegressionSettings(_Section):
    """`[tool.mirsafety.regression]`: how much the attack success rate may be above the baseline's.

    `default` is for each relation that has no share of its own.
    """

    default: Threshold | None = None
    overall: Threshold | None = None
    relation: Annotated[dict[RelationName, Threshold], _one_key_each(parse_relation)] = {}
    group: dict[GroupName, Threshold] = {}
    category: Annotated[dict[CategoryName, Threshold], _one_key_each(parse_category)] = {}

    def to_thresholds(self) -> Thresholds:
        """The same as the gates take it."""
        return Thresholds(self.default, self.overall, self.relation, self.group, self.category)


class ThresholdSettings(RegressionSettings):
    """`[tool.mirsafety.thresholds]`: the largest attack success rate that may ship.

    Of the modes of safe answers it is the largest share of all instances, or the least.
    """

    modes: Annotated[
        dict[SafeMode, Decimal], BeforeValidator(partial(mode_thresholds, of=_threshold))
    ] = {}

    def to_thresholds(self) -> Thresholds:
        """The same as the gates take it."""
        return Thresholds(
            self.default, self.overall, self.relation, self.group, self.category, self.modes
        )


class ModelSettings(_Section):
    """`[tool.mirsafety.models.NAME]`: how a model is reached and asked.

    Prices are money per million tokens; `image_tokens` is what an image is taken to cost as long
    as the endpoint has told no usage. A model of `single_image` is shown all images in one;
    `context_length` is the model's own, in tokens. `reasoning_markers` are all that it has: None
    stands for the usual ones. A model that `needs_remote_code` loads only if that is trusted.
    `gpu_memory` is the share of each GPU's memory that a server of ours takes, and `server_args`
    are further arguments of it; timeouts are in seconds.
    """

    provider: Name
    model: Name
    revision: str | None = None
    base_url: str | None = None
    api_key_env: Annotated[str | None, BeforeValidator(_variable)] = None
    system: str | None = None
    decoding: dict[str, Annotated[Scalar, BeforeValidator(_plain_number)]] = {}
    image_transport: Literal["base64", "file"] = "base64"
    image_detail: Literal["auto", "low", "high"] | None = None
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 16
    timeout: Annotated[
        float, Field(gt=0, le=86400, strict=False), BeforeValidator(_plain_number)
    ] = 600.0
    max_retries: Annotated[int, Field(ge=0, le=20)] = 8
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    input_price: Price | None = None
    output_price: Price | None = None
    image_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    judge_cut_answers: bool = False
    allow_screening_judge: bool = False
    thresholds: ThresholdSettings | None = None
    about: str = ""
    single_image: bool = False
    max_images: Annotated[int, Field(ge=1)] | None = None
    context_length: Annotated[int, Field(ge=1)] | None = None
    reasoning_markers: Annotated[
        tuple[ReasoningMarkers, ...] | None, BeforeValidator(markers_of)
    ] = None
    needs_remote_code: bool = False
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    trust_remote_code: bool = False
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 8
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    max_model_len: Annotated[int, Field(ge=1)] | None = None
    tensor_parallel: Annotated[int, Field(ge=1, le=1024)] = 1
    data_parallel: Annotated[int, Field(ge=1, le=1024)] = 1
    gpu_memory: (
        Annotated[float, Field(gt=0, le=1, strict=False), BeforeValidator(_plain_number)] | None
    ) = None
    server_args: list[str] = []
    start_timeout: Annotated[
        float, Field(gt=0, le=86400, strict=False), BeforeValidator(_plain_number)
    ] = 1800.0

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        check_model(self)
        return self


class JudgeSettings(_Section):
    """`[tool.mirsafety.judges.NAME]`: what judges, and how the model behind it is reached.

    `provider` is where that model runs, or the judge itself: `rules`, or `module:attr`. A panel
    has `members` in place of a model.
    """

    kind: JudgeKind | None = None
    provider: Name | None = None
    model: Name | None = None
    revision: Name | None = None
    base_url: str | None = None
    api_key_env: Annotated[str | None, BeforeValidator(_variable)] = None
    template: Name | None = None
    template_digest: Annotated[str, Field(pattern=r"^(sha256:)?[0-9a-f]{64}$")] | None = None
    clip_tokens: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    images: bool = False
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 16
    timeout: Annotated[
        float, Field(gt=0, le=86400, strict=False), BeforeValidator(_plain_number)
    ] = 600.0
    max_retries: Annotated[int, Field(ge=0, le=20)] = 8
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    members: list[Name] = []
    rule: Literal["majority", "any-unsafe"] = "majority"
    quorum: Annotated[int, Field(ge=1)] | None = None
    canaries: Name | None = None
    canary_count: Annotated[int, Field(ge=3, le=1000)] = 20
    canary_misses: Annotated[int, Field(ge=0, le=999)] = 2
    max_model_len: Annotated[int, Field(ge=1)] | None = None
    tensor_parallel: Annotated[int, Field(ge=1, le=1024)] = 1
    gpu_memory: (
        Annotated[float, Field(gt=0, le=1, strict=False), BeforeValidator(_plain_number)] | None
    ) = None
    server_args: list[str] = []
    start_timeout: Annotated[
        float, Field(gt=0, le=86400, strict=False), BeforeValidator(_plain_number)
    ] = 1800.0

    @model_validator(mode="after")
    def _a_judge_that_misses_all(self) -> Self:
        if self.canary_misses * 2 >= self.canary_count:
            raise ValueError("canary_misses must be less than half of canary_count")
        return self

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        check_judge(self)
        return self


class UnscoredSettings(_Section):
    """`[tool.mirsafety.unscored]`: what a filtered or undetermined answer counts as."""

    filtered: Literal["unscored", "safe"] = "unscored"
    filter_ships: bool = False
    undetermined: Literal["unscored", "unsafe"] = "unscored"

    @model_validator(mode="after")
    def _a_filter_that_ships(self) -> Self:
        if self.filtered == "safe" and not self.filter_ships:
            raise ValueError(
                'filtered = "safe" needs filter_ships = true: the filter must ship with the model'
            )
        return self

    def to_policy(self) -> UnscoredPolicy:
        """The same as outcomes are made by."""
        return UnscoredPolicy(
            filtered_is_safe=self.filtered == "safe",
            undetermined_is_unsafe=self.undetermined == "unsafe",
        )


class TrialSettings(_Section):
    """`[tool.mirsafety.trials]`: how often each instance is asked, and what its answers are."""

    count: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = 1
    rule: Annotated[TrialRule, Field(strict=False)] = TrialRule.ANY

    def to_trials(self) -> Trials:
        """The same as the gates take it."""
        return Trials(self.count, self.rule)


class LimitSettings(_Section):
    """`[tool.mirsafety.limits]`: the largest image that is sent."""

    max_bytes: Annotated[int, Field(ge=1)] = 20 * 2**20
    max_pixels: Annotated[int, Field(ge=1)] = 50_000_000


class Settings(_Section):
    """`[tool.mirsafety]`, whole."""

    data: Name = "sample"
    data_digest: Annotated[str, Field(pattern=r"^(sha256:)?[0-9a-f]{64}$")] | None = None
    judge: Name = "rules"
    escalate: list[Name] = []
    require: Literal["all", "selected"] = "selected"
    confidence: Annotated[Decimal, BeforeValidator(_confidence)] = Decimal("0.95")
    estimand: Annotated[Estimand, Field(strict=False)] | None = None
    sample_seed: str | None = None
    allow_screening_judge: bool = False
    allow_same_model: bool = False
    redact: bool = False
    phases: Literal["auto", "together", "two"] = "auto"
    store: Name = ".mirsafety/answers.sqlite3"
    baseline: Name | None = None
    thresholds: ThresholdSettings = ThresholdSettings()
    regression: RegressionSettings = RegressionSettings()
    unscored: UnscoredSettings = UnscoredSettings()
    limits: LimitSettings = LimitSettings()
    trials: TrialSettings = TrialSettings()
    models: Annotated[dict[str, ModelSettings], BeforeValidator(with_builtin)] = {}
    judges: Annotated[dict[str, JudgeSettings], BeforeValidator(with_kinds)] = {}


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings, and the file they come from; relative paths are relative to `base`.

    `written` has the keys that the file gives for each model; what else a built-in one has comes
    with the package.
    """

    settings: Settings = field(default_factory=Settings)
    base: Path = Path()
    file: Path | None = None
    written: Mapping[str, frozenset[str]] = field(default_factory=dict)


def load(root: Path, explicit: Path | None = None) -> Configuration:
    """The configuration of a project: `explicit`, or the one found in `root`.

    In `root`, `[tool.mirsafety]` of pyproject.toml or else mirsafety.toml is read, the latter with
    its keys under that table or at the top; both files is an error, neither gives the defaults.

    Raises:
        ConfigurationError: a file cannot be read, or anything in it is unknown or out of range.
    """
    if explicit is not None:
        return _load_file(explicit if explicit.is_absolute() else root / explicit)
    found = [
        (path, table)
        for path in (root / "pyproject.toml", root / "mirsafety.toml")
        if path.is_file() and (table := _table(path)) is not None
    ]
    if len(found) > 1:
        raise ConfigurationError(
            "pyproject.toml has [tool.mirsafety] and mirsafety.toml is there too; keep one of them"
        )
    if not found:
        return Configuration(base=root)
    path, table = found[0]
    return _configuration(table, path)


def load_text(text: str, place: str) -> Settings:
    """Settings from TOML text, as a file other than pyproject.toml would hold it.

    Raises:
        ConfigurationError: it is not TOML, or anything in it is unknown or out of range.
    """
    return parse(_document(text, place), place)


def parse(table: Mapping[str, Any], place: str) -> Settings:
    """Settings from a TOML table whose floats are Decimals.

    Raises:
        ConfigurationError: one line that names each wrong key, up to three.
    """
    try:
        return Settings.model_validate(table)
    except ValidationError as error:
        raise ConfigurationError(_describe(error, place)) from None


def with_threshold(settings: ThresholdSettings, text: str) -> ThresholdSettings:
    """The same thresholds with one `NAME=VALUE` from the command line put in.

    NAME is default, overall, a relation, group or category, or a mode, whose threshold is the
    least or the largest share as in the configuration.

    Raises:
        ConfigurationError: an unknown name, or a value outside [0, 1] or of too many decimals.
    """
    name, _, value = (part.strip() for part in text.partition("="))
    try:
        number = _threshold(Decimal(value)) if _OPTION_NUMBER.fullmatch(value) else None
    except ValueError:
        number = None
    if number is None:
        raise ConfigurationError(
            "--mir-threshold takes NAME=VALUE with a value from 0 to 1 and at most "
            f"{MAX_DECIMALS} decimals, not '{one_line(text)}'"
        )
    for scope, names in _SCOPES.items():
        if name in names:
            table = {**getattr(settings, scope), names[name]: number}
            return settings.model_copy(update={scope: table})
    if name not in ("default", "overall"):
        valid = ["default", "overall", *(n for names in _SCOPES.values() for n in names)]
        raise ConfigurationError(
            f"--mir-threshold: unknown gate '{one_line(name)}'; {nearest(name, valid)}"
        )
    return settings.model_copy(update={name: number})


_SCOPES: Final[Mapping[str, Mapping[str, Relation | Group | Category | SafeMode]]] = {
    "relation": {r.value: r for r in Relation},
    "group": {g.value: g for g in Group},
    "category": {c.value: c for c in Category},
    "modes": {m.value: m for m in SafeMode},
}


def _load_file(path: Path) -> Configuration:
    if not path.is_file():
        raise ConfigurationError(f"configuration file not found: {path}")
    table = _table(path)
    if table is None:
        raise ConfigurationError(f"{path}: there is no [tool.mirsafety] table")
    return _configuration(table, path)


def _configuration(table: Mapping[str, Any], path: Path) -> Configuration:
    settings = parse(table, _place(path))
    written = {name: frozenset(own) for name, own in table.get("models", {}).items()}
    return Configuration(settings, path.parent, path, written)


def _document(text: str, place: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text, parse_float=Decimal)
    except (ValueError, InvalidOperation, RecursionError) as error:
        # A number may be too long for an int, or have too large an exponent for a Decimal.
        problem = str(error) if isinstance(error, ValueError) else "a value is out of range"
        raise ConfigurationError(f"{place}: not valid TOML: {one_line(problem)}") from None


def _table(path: Path) -> Mapping[str, Any] | None:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}") from None
    document = _document(text, str(path))
    if path.name != "pyproject.toml" and "tool" not in document:
        return document
    tools = document.get("tool")
    table = tools.get("mirsafety") if isinstance(tools, dict) else None
    if table is not None and not isinstance(table, dict):
        raise ConfigurationError(f"{path}: [tool.mirsafety] must be a table")
    if path.name != "pyproject.toml" and (table is None or len(document) > 1):
        raise ConfigurationError(f"{path}: either all keys are under [tool.mirsafety] or none is")
    return table


def _place(path: Path) -> str:
    return f"{path.name} [tool.mirsafety]" if path.name == "pyproject.toml" else path.name


def _describe(error: ValidationError, place: str) -> str:
    # A misspelt key explains what is missing elsewhere, so it comes first.
    errors = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    problems = list(dict.fromkeys(map(_problem, errors)))
    more = f" (+{len(problems) - _MAX_ERRORS} more)" if len(problems) > _MAX_ERRORS else ""
    return one_line(f"{place}: " + "; ".join(problems[:_MAX_ERRORS]) + more, _LINE_LIMIT)


def _problem(error: ErrorDetails) -> str:
    unknown = error["type"] == "extra_forbidden"
    # pydantic ends the place of a bad key with "[key]", which may also be a key that is unknown.
    location = [str(part) for part in error["loc"] if part != "[key]" or unknown]
    key = ".".join(location)
    if unknown:
        return f"unknown key '{key}'; {_meant(_section_at(location[:-1]), location[-1])}"
    if error["type"] == "missing":
        return f"'{key}' is missing"
    given = _shown(error["input"])
    if error["type"] == "dict_type" and location[-2:-1] in (["thresholds"], ["regression"]):
        form = f"{location[-1]}.NAME = 0.10"
        return f"{key}: takes a threshold for each name, such as {form}, not {given}"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    message = message[:1].lower() + message[1:]
    if location[:1] == ["regression"]:  # the names are those of thresholds
        message = message.replace("'thresholds.", "'regression.")
    if error["type"] in ("value_error", "pydantic_custom_error"):
        return f"{key}: {message}" if key else message
    return f"{key}: {message}, not {given}"


def _meant(section: type[_Section], name: str) -> str:
    """What a key was probably meant to be: thresholds are often written a level too high."""
    if section is ThresholdSettings:
        return nearest_threshold(name)
    if section is RegressionSettings:
        return nearest_threshold(name, modes=False)
    threshold = threshold_key(name) if "thresholds" in section.model_fields else None
    if threshold is not None:
        return f"did you mean 'thresholds.{threshold}'?"
    return nearest(name, section.model_fields)


def _shown(value: object) -> str:
    # The text of a number with thousands of digits may be refused; that of a Decimal never is.
    value = Decimal(value) if type(value) is int else value
    return one_line(str(value) if isinstance(value, Decimal) else repr(value), 60)


def _section_at(location: list[str]) -> type[_Section]:
    """The section whose key is unknown, so that its own keys can be offered."""
    section: type[_Section] = Settings
    for part in location:
        section = next(_sections_under(section, part), section)
    return section


def _sections_under(section: type[_Section], name: str) -> Iterator[type[_Section]]:
    children: dict[str, type[_Section]] = {
        "thresholds": ThresholdSettings,
        "regression": RegressionSettings,
        "unscored": UnscoredSettings,
        "limits": LimitSettings,
        "trials": TrialSettings,
        "models": ModelSettings,
        "judges": JudgeSettings,
    }
    inside = section is Settings or (section is ModelSettings and name == "thresholds")
    if inside and name in children:
        yield children[name]
