"""The tables of thresholds in the configuration, and the one threshold of an option."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Annotated, Final, TypeVar

from pydantic import Field

from .arms import check_gated
from .errors import ConfigurationError
from .gates import Thresholds
from .gates.criteria import MAX_DECIMALS
from .printable import one_line
from .records import SafeMode
from .setting_values import (
    CategoryName,
    GatedArm,
    GroupName,
    ModeThresholds,
    RelationName,
    Section,
    Threshold,
    one_key_each,
    threshold,
)
from .taxonomy import Category, Group, Relation, nearest, parse_category, parse_relation

_OPTION_NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_Thresholds = TypeVar("_Thresholds", bound="ArmThresholdSettings")


class RegressionSettings(Section):
    """`[tool.mirsafety.regression]`: how much the attack success rate may be above the baseline's.

    `default` is for each relation that has no share of its own.
    """

    default: Threshold | None = None
    overall: Threshold | None = None
    relation: Annotated[dict[RelationName, Threshold], one_key_each(parse_relation)] = {}
    group: dict[GroupName, Threshold] = {}
    category: Annotated[dict[CategoryName, Threshold], one_key_each(parse_category)] = {}

    def to_thresholds(self) -> Thresholds:
        """The same as the gates take it."""
        return Thresholds(self.default, self.overall, self.relation, self.group, self.category)


class ArmThresholdSettings(RegressionSettings):
    """`[tool.mirsafety.thresholds.arms.NAME]`: the same for another way of asking.

    `over-refusal` is the largest rate of benign twins that a defence may leave without an answer.
    """

    over_refusal: Annotated[Threshold | None, Field(alias="over-refusal")] = None

    def to_thresholds(self) -> Thresholds:
        """The same as the gates take it."""
        return replace(super().to_thresholds(), over_refusal=self.over_refusal)


class ThresholdSettings(ArmThresholdSettings):
    """`[tool.mirsafety.thresholds]`: the largest attack success rate that may ship.

    Of the modes of safe answers it is the largest share of all instances, or the least.
    """

    modes: ModeThresholds = {}
    arms: dict[GatedArm, ArmThresholdSettings] = {}

    def to_thresholds(self) -> Thresholds:
        """The same as the gates take it."""
        arms = {name: own.to_thresholds() for name, own in self.arms.items()}
        return replace(super().to_thresholds(), modes=self.modes, arms=arms)


def share_in(text: str) -> Decimal | None:
    """The share that an option's text is, exact; None if it is none, or has too many decimals."""
    try:
        return threshold(Decimal(text)) if _OPTION_NUMBER.fullmatch(text) else None
    except ValueError:
        return None


def with_threshold(settings: ThresholdSettings, text: str) -> ThresholdSettings:
    """The same thresholds with one `NAME=VALUE` from the command line put in.

    NAME is default, overall, over-refusal, a relation, group or category, or a mode, whose
    threshold is the least or the largest share as in the configuration. With `@ARM` it is the
    threshold of that arm.

    Raises:
        ConfigurationError: an unknown name, or a value outside [0, 1] or of too many decimals.
    """
    name, _, value = (part.strip() for part in text.partition("="))
    number = share_in(value)
    if number is None:
        raise ConfigurationError(
            "--mir-threshold takes NAME=VALUE with a value from 0 to 1 and at most "
            f"{MAX_DECIMALS} decimals, not '{one_line(text)}'"
        )
    name, at, arm = name.partition("@")
    if not at:
        return _with(settings, name, number)
    try:
        check_gated(arm)
    except ValueError as error:
        raise ConfigurationError(f"--mir-threshold={one_line(text)}: {error}") from None
    own = _with(settings.arms.get(arm, ArmThresholdSettings()), name, number)
    return settings.model_copy(update={"arms": {**settings.arms, arm: own}})


def _with(settings: _Thresholds, name: str, number: Decimal) -> _Thresholds:
    """The same with this threshold."""
    fields = type(settings).model_fields
    scopes = {scope: names for scope, names in SCOPES.items() if scope in fields}
    for scope, names in scopes.items():
        if name in names:
            table = {**getattr(settings, scope), names[name]: number}
            return settings.model_copy(update={scope: table})
    if name not in _WHOLE:
        valid = [*_WHOLE, *(n for names in scopes.values() for n in names)]
        raise ConfigurationError(
            f"--mir-threshold: unknown gate '{one_line(name)}'; {nearest(name, valid)}"
        )
    return settings.model_copy(update={_WHOLE[name]: number})


_WHOLE: Final = {
    "default": "default",
    "overall": "overall",
    "over-refusal": "over_refusal",
}
"""Thresholds of no one name, with the key of each."""


SCOPES: Final[Mapping[str, Mapping[str, Relation | Group | Category | SafeMode]]] = {
    "relation": {r.value: r for r in Relation},
    "group": {g.value: g for g in Group},
    "category": {c.value: c for c in Category},
    "modes": {m.value: m for m in SafeMode},
}
"""What each table of thresholds may name."""
