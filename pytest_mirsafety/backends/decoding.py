"""How a model of this process decodes: the settings that it has, and no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ..errors import ConfigurationError
from ..printable import one_line
from ..records import Scalar
from ..taxonomy import nearest

MAX_TOKENS: Final = 1024
"""Tokens of an answer where nothing else is set; a longer one is cut, and unscored."""

_OF_SAMPLING: Final = ("top_p", "top_k", "min_p")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """Numbers by their names at an endpoint; None is the checkpoint's own.

    Temperature 0 is greedy; above it `seed` decides what is drawn. `max_tokens` bounds an answer.
    """

    temperature: float = 0
    max_tokens: int = MAX_TOKENS
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None

    @property
    def greedy(self) -> bool:
        """Nothing is drawn."""
        return self.temperature == 0

    def named(self, dtype: str) -> Mapping[str, Scalar]:
        """All that decides what is answered, as far as it is set; part of each request's key."""
        found: dict[str, Scalar] = {
            name: value
            for name in _CHECKS
            if (value := getattr(self, name)) is not None and not (name == "seed" and self.greedy)
        }
        if self.greedy:
            found["temperature"] = 0  # however it is written
        # As saved is what the checkpoint is: only another number format is a choice.
        return MappingProxyType(found if dtype == "auto" else {**found, "dtype": dtype})


def read_decoding(given: Mapping[str, Scalar], seed: int | None) -> Decoding:
    """The decoding that these settings describe, greedy if no temperature is among them.

    Raises:
        ConfigurationError: one that this engine does not have, or one out of range.
    """
    for name, value in given.items():
        if name not in _CHECKS:
            hint = nearest(name, _CHECKS)
            raise ConfigurationError(
                one_line(f"decoding.{name} is not of provider 'transformers'; {hint}", 300)
            )
        wanted, is_valid = _CHECKS[name]
        number = None if isinstance(value, bool | str) else value
        if number is None or not is_valid(number):
            shown = one_line(str(value), 40)
            raise ConfigurationError(f"decoding.{name} must be {wanted}, not {shown}")
    idle = [name for name in _OF_SAMPLING if name in given]
    if idle and "temperature" not in given:
        raise ConfigurationError(
            f"decoding.{idle[0]} needs a temperature above 0: without one decoding is greedy"
        )
    if seed is not None and given.get("seed", seed) != seed:
        raise ConfigurationError("seed and decoding.seed differ; keep one of them")
    numbers = {name: value for name, value in given.items() if name != "seed"}
    return Decoding(**numbers, seed=given.get("seed", seed or 0))  # type: ignore[arg-type]


def _whole(value: object) -> bool:
    return isinstance(value, int)


_CHECKS: Final[Mapping[str, tuple[str, Callable[[float], bool]]]] = {
    "temperature": ("a number from 0 to 100", lambda value: 0 <= value <= 100),  # noqa: PLR2004
    "max_tokens": ("a whole number from 1", lambda value: _whole(value) and value >= 1),
    "top_p": ("above 0 and at most 1", lambda value: 0 < value <= 1),
    "top_k": ("a whole number from 1, or 0 or -1 for all", lambda v: _whole(v) and v >= -1),
    "min_p": ("from 0 to 1", lambda value: 0 <= value <= 1),
    "repetition_penalty": ("above 0 and at most 10", lambda value: 0 < value <= 10),  # noqa: PLR2004
    "seed": ("a whole number from 0 below 2^63", lambda v: _whole(v) and 0 <= v < 2**63),
}
"""By name: what it must be, in words and as a check."""
