"""Which way the modes of safe answers are bounded, and what a wrong bound is told."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from .gates.criteria import WANTED, threshold_key
from .printable import one_line
from .records import SafeMode
from .taxonomy import nearest


def mode_thresholds(value: object, of: Callable[[object], Decimal]) -> dict[SafeMode, Decimal]:
    """The threshold of each mode, from `{ min = 0.10 }` or `{ max = 0.30 }` by what it bounds.

    `of` makes a share of a value.

    Raises:
        ValueError: another form, an unknown mode, or the bound that asks for what is bad.
    """
    if not isinstance(value, dict):
        # ValueError throughout: pydantic lets a TypeError through.
        raise ValueError(f"takes a threshold for each mode, such as {_form('NAME')}")  # noqa: TRY004
    return {_mode(str(name)): _threshold(str(name), given, of) for name, given in value.items()}


def _mode(name: str) -> SafeMode:
    if name in list(SafeMode):
        return SafeMode(name)
    key = threshold_key(name)
    hint = nearest(name, list(SafeMode)) if key is None else f"did you mean 'thresholds.{key}'?"
    raise ValueError(one_line(f"unknown mode '{name}'; {hint}", 400))


def _threshold(name: str, given: object, of: Callable[[object], Decimal]) -> Decimal:
    bound, other = ("min", "max") if _mode(name) in WANTED else ("max", "min")
    form = f"write {_form(name)}"
    if not isinstance(given, dict):
        shown = one_line(str(given) if isinstance(given, Decimal) else repr(given), 60)
        raise ValueError(f"{name} takes a table with {bound}, not {shown}; {form}")  # noqa: TRY004
    if other in given:
        better = "more" if bound == "min" else "fewer"
        raise ValueError(f"{name} takes {bound}, not {other}: {better} of them is better; {form}")
    if set(given) != {bound}:
        keys = one_line(", ".join(map(str, given)), 60) or "nothing"
        raise ValueError(f"{name} takes {bound} and nothing else, not {keys}; {form}")
    try:
        return of(given[bound])
    except ValueError as error:
        raise ValueError(f"{name}.{bound}: {error}") from None


def _form(name: str) -> str:
    known = name if name in list(SafeMode) else SafeMode.CORRECT_REFUSAL.value
    bound = "min = 0.10" if known in WANTED else "max = 0.30"
    return f"{known} = {{ {bound} }}"
