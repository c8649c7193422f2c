"""What a value of the configuration may be: shares, prices, names; and what a section is."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from .arms import check_gated, check_name
from .gates.criteria import threshold_key, with_few_decimals
from .mode_forms import mode_thresholds
from .printable import one_line
from .records import SafeMode
from .taxonomy import Category, Group, Relation, nearest, parse_category, parse_relation

LINE_LIMIT: Final = 1000
_MAX_PRICE: Final = 1_000_000
_VARIABLE: Final = re.compile(r"(?!sk_)[A-Za-z_][A-Za-z0-9_]*")


def _number(value: object, wanted: str) -> Decimal:
    """The finite number that a value is; only then may it be compared or made exact."""
    if isinstance(value, bool) or not isinstance(value, Decimal | int):
        # ValueError throughout: pydantic lets a TypeError through.
        raise ValueError(f"must be {wanted}, not {shown(value)}")  # noqa: TRY004
    number = Decimal(value)
    if not number.is_finite():
        raise ValueError(f"must be {wanted}, not {number}")
    return number


def threshold(value: object) -> Decimal:
    """A share, exact.

    Raises:
        ValueError: it is none, or has too many decimals.
    """
    wanted = "a share from 0 to 1"
    number = _number(value, wanted)
    if not 0 <= number <= 1:
        raise ValueError(f"must be {wanted}, not {shown(number)}")
    return with_few_decimals(number)


def _price(value: object) -> Decimal:
    number = _number(value, "money per million tokens, such as 2.50")
    if not 0 <= number <= _MAX_PRICE:
        raise ValueError(f"must be from 0 to {_MAX_PRICE:,}, not {shown(number)}")
    return number


def _group(text: str) -> Group:
    if text not in list(Group):
        raise ValueError(f"unknown group '{text}'; {nearest(text, list(Group))}")
    return Group(text)


def take_confidence(value: object) -> Decimal:
    """A confidence, exact.

    Raises:
        ValueError: it is none.
    """
    number = _number(value, "a number such as 0.95")
    if not Decimal("0.5") < number < 1:
        raise ValueError(f"must be above 0.5 and below 1, not {shown(number)}")
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
            raise ValueError(one_line(problem, LINE_LIMIT)) from None

    return BeforeValidator(take)


def one_key_each(parse: Callable[[str], Relation | Category]) -> BeforeValidator:
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


def variable(value: object) -> object:
    """The name of an environment variable, or None.

    Raises:
        ValueError: it is another text, which may be a key.
    """
    # The value is not repeated: somebody may have pasted the key itself.
    if value is not None and not (isinstance(value, str) and _VARIABLE.fullmatch(value)):
        raise ValueError("must be the name of an environment variable, not the key itself")
    return value


Threshold = Annotated[Decimal, BeforeValidator(threshold)]
ModeThresholds = Annotated[
    dict[SafeMode, Decimal], BeforeValidator(partial(mode_thresholds, of=threshold))
]
Price = Annotated[Decimal, BeforeValidator(_price)]
RelationName = Annotated[Relation, _parsed(parse_relation)]
CategoryName = Annotated[Category, _parsed(parse_category)]
GroupName = Annotated[Group, _parsed(_group)]
Name = Annotated[str, Field(min_length=1, max_length=500)]


ArmName = Annotated[str, AfterValidator(check_name)]
"""The name of an arm of the user's own."""


GatedArm = Annotated[str, AfterValidator(check_gated)]
"""The name of an arm with thresholds of its own."""


def names_of(value: object) -> object:
    """A list of names, which may be written as one name."""
    return [value] if isinstance(value, str) else value


Names = Annotated[list[Name], BeforeValidator(names_of)]


def plain_number(value: object) -> object:
    """A float for a Decimal: what is no share is computed with."""
    return float(value) if isinstance(value, Decimal) else value


class Section(BaseModel):
    """A table of the configuration: frozen, without keys that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def shown(value: object) -> str:
    """A value in a message: printable, and not long."""
    # The text of a number with thousands of digits may be refused; that of a Decimal never is.
    value = Decimal(value) if type(value) is int else value
    return one_line(str(value) if isinstance(value, Decimal) else repr(value), 60)
