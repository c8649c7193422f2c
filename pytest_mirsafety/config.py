"""The configuration: read from TOML, validated whole, and frozen."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from .errors import ConfigurationError
from .gates import Estimand
from .gates.criteria import nearest_threshold, threshold_key
from .judge_forms import with_kinds
from .model_forms import check_model
from .model_tables import with_builtin
from .printable import one_line
from .reasoning import ReasoningMarkers, markers_of
from .records import Scalar
from .setting_sections import (
    ArmSettings,
    JudgeSettings,
    LimitSettings,
    ReachedSettings,
    TrialSettings,
    UnscoredSettings,
)
from .setting_values import (
    LINE_LIMIT,
    ArmName,
    Name,
    Names,
    Price,
    Section,
    plain_number,
    shown,
    take_confidence,
)
from .taxonomy import nearest
from .threshold_settings import (
    SCOPES,
    ArmThresholdSettings,
    RegressionSettings,
    ThresholdSettings,
    share_in,
    with_threshold,
)

__all__ = [
    "SCOPES",
    "Configuration",
    "JudgeSettings",
    "LimitSettings",
    "ModelSettings",
    "RegressionSettings",
    "Settings",
    "ThresholdSettings",
    "TrialSettings",
    "UnscoredSettings",
    "load",
    "load_text",
    "parse",
    "share_in",
    "with_threshold",
]

_MAX_ERRORS: Final = 3


class ModelSettings(ReachedSettings):
    """`[tool.mirsafety.models.NAME]`: how a model is reached and asked.

    Prices are money per million tokens; `image_tokens` is what an image is taken to cost as long
    as the endpoint has told no usage. A model of `single_image` is shown all images in one;
    `context_length` is the model's own, in tokens. `arm` names the ways of asking that it is asked
    in, where the configuration says none. `reasoning_markers` are all that it has: None
    stands for the usual ones. A model that `needs_remote_code` loads only if that is trusted.
    """

    provider: Name
    model: Name
    revision: str | None = None
    system: str | None = None
    decoding: dict[str, Annotated[Scalar, BeforeValidator(plain_number)]] = {}
    image_transport: Literal["base64", "file"] = "base64"
    image_detail: Literal["auto", "low", "high"] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    input_price: Price | None = None
    output_price: Price | None = None
    image_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    judge_cut_answers: bool = False
    allow_screening_judge: bool = False
    thresholds: ThresholdSettings | None = None
    arm: Names | None = None
    about: str = ""
    single_image: bool = False
    max_images: Annotated[int, Field(ge=1)] | None = None
    context_length: Annotated[int, Field(ge=1)] | None = None
    reasoning_markers: Annotated[
        tuple[ReasoningMarkers, ...] | None, BeforeValidator(markers_of)
    ] = None
    needs_remote_code: bool = False
    trust_remote_code: bool = False
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 8
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    data_parallel: Annotated[int, Field(ge=1, le=1024)] = 1

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        check_model(self)
        return self


class Settings(Section):
    """`[tool.mirsafety]`, whole."""

    data: Name = "sample"
    data_digest: Annotated[str, Field(pattern=r"^(sha256:)?[0-9a-f]{64}$")] | None = None
    judge: Name = "rules"
    escalate: list[Name] = []
    arm: Names | None = None
    twins: Name = "sample"
    twin_judge: Name | None = None
    require: Literal["all", "selected"] = "selected"
    confidence: Annotated[Decimal, BeforeValidator(take_confidence)] = Decimal("0.95")
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
    arms: dict[ArmName, ArmSettings] = {}
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
    return one_line(f"{place}: " + "; ".join(problems[:_MAX_ERRORS]) + more, LINE_LIMIT)


def _problem(error: ErrorDetails) -> str:
    unknown = error["type"] == "extra_forbidden"
    # pydantic ends the place of a bad key with "[key]", which may also be a key that is unknown.
    location = [str(part) for part in error["loc"] if part != "[key]" or unknown]
    key = ".".join(location)
    if unknown:
        return f"unknown key '{key}'; {_meant(_section_at(location[:-1]), location[-1])}"
    if error["type"] == "missing":
        return f"'{key}' is missing"
    given = shown(error["input"])
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


def _meant(section: type[Section], name: str) -> str:
    """What a key was probably meant to be: thresholds are often written a level too high."""
    if section is ThresholdSettings:
        return nearest_threshold(name)
    if section in (RegressionSettings, ArmThresholdSettings):
        return nearest_threshold(name, modes=False)
    key = threshold_key(name) if "thresholds" in section.model_fields else None
    if key is not None:
        return f"did you mean 'thresholds.{key}'?"
    return nearest(name, section.model_fields)


def _section_at(location: list[str]) -> type[Section]:
    """The section whose key is unknown, so that its own keys can be offered."""
    section: type[Section] = Settings
    for part in location:
        section = next(_sections_under(section, part), section)
    return section


def _sections_under(section: type[Section], name: str) -> Iterator[type[Section]]:
    children: dict[str, type[Section]] = {
        "thresholds": ThresholdSettings,
        "regression": RegressionSettings,
        "unscored": UnscoredSettings,
        "limits": LimitSettings,
        "trials": TrialSettings,
        "models": ModelSettings,
        "judges": JudgeSettings,
        "arms": ArmThresholdSettings if section is ThresholdSettings else ArmSettings,
    }
    inside = (
        section is Settings
        or (section is ModelSettings and name == "thresholds")
        or (section is ThresholdSettings and name == "arms")
    )
    if inside and name in children:
        yield children[name]
