"""What a gate counts, in words: unsafe answers, or answers that are safe in one way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from ..arms import ArmKind
from ..records import SafeMode
from .criteria import Criterion
from .decisions import Case, Estimand

RATES: Final[Mapping[Estimand, str]] = {
    Estimand.ANSWERS: "the rate of all these answers",
    Estimand.MODEL: "the model's rate on these items",
    Estimand.ITEMS: "the rate on new items like these",
}
"""What the rate is of, by estimand."""

_SHARES: Final[Mapping[Estimand, str]] = {
    Estimand.ANSWERS: "the share of {} in all these answers",
    Estimand.MODEL: "the model's share of {} on these items",
    Estimand.ITEMS: "the share of {} on new items like these",
}
AGAINST: Final[Mapping[ArmKind, str]] = {
    ArmKind.SAFETY: "unsafe",
    ArmKind.TWIN: "not answered",
    ArmKind.SEARCH: "flipped",
}
"""What an instance is that counts against the model, by what its arm asks for."""

FOR: Final[Mapping[ArmKind, str]] = {
    ArmKind.SAFETY: "safe",
    ArmKind.TWIN: "answered",
    ArmKind.SEARCH: "held",
}
"""What one is that counts for it."""

_MODES: Final[Mapping[SafeMode, str]] = {mode: mode.replace("-", " ") for mode in SafeMode}


def percent(value: Decimal) -> str:
    """A share as written: 0.10 is `10%`, 0.025 is `2.5%`."""
    return f"{(100 * value).normalize():f}%"


def limit(criterion: Criterion) -> str:
    """The threshold for a table: `10%`, and of a mode `>=10%` or `<=30%`."""
    return f"{sign(criterion)}{percent(criterion.threshold)}"


def sign(criterion: Criterion) -> str:
    """What the threshold of a mode bounds; nothing where the attack success rate is gated."""
    if criterion.mode is None:
        return ""
    return ">=" if criterion.minimum else "<="


@dataclass(frozen=True, slots=True)
class Wording:
    """The words for one gate's numbers, which a case counts by what is against the model.

    `shown` makes of such a number the one that a person looks for: of a minimum, the rest of it.
    """

    case: Case

    @property
    def mode(self) -> SafeMode | None:
        """The mode that is gated, if one is."""
        return self.case.evidence.criterion.mode

    @property
    def minimum(self) -> bool:
        """More is better."""
        return self.case.evidence.criterion.minimum

    @property
    def threshold(self) -> str:
        """As written."""
        return percent(self.case.evidence.criterion.threshold)

    @property
    def kind(self) -> str:
        """`unsafe`, `not answered`, or `correct refusals`."""
        return self.against if self.mode is None else f"{_MODES[self.mode]}s"

    @property
    def against(self) -> str:
        """What an instance is that counts against the model, where no mode is gated."""
        return AGAINST[self.case.evidence.criterion.kind]

    @property
    def good(self) -> str:
        """What one is that counts for it."""
        return FOR[self.case.evidence.criterion.kind]

    @property
    def unknown(self) -> str:
        """What an instance is that might count against the model."""
        return "unscored" if self.mode is None else "unknown"

    @property
    def rate(self) -> str:
        """The rate that the gate is about."""
        estimand = self.case.rules.estimand
        return RATES[estimand] if self.mode is None else _SHARES[estimand].format(self.kind)

    def shown(self, against: int) -> int:
        """The number that stands for so many against the model."""
        return self.case.evidence.planned - against if self.minimum else against

    def are(self, against: int) -> str:
        """Such as `12 of 318 are unsafe`, `41 of 318 (12.9%) are correct refusals`."""
        number, planned = self.shown(against), self.case.evidence.planned
        verb = "is" if number == 1 else "are"
        if self.mode is None:
            return f"{number} of {planned} {verb} {self.against}"
        one = number == 1
        kind = f"a{'n' * self.kind.startswith('i')} {_MODES[self.mode]}" if one else self.kind
        return f"{number} of {planned} ({100 * number / planned:.1f}%) {verb} {kind}"

    @property
    def most(self) -> str:
        """Up to which number the gate passes, or from which one on."""
        number = self.shown(self.case.limits.most)
        if self.mode is None:
            return f"{number} allowed"
        return f"{number} {'needed' if self.minimum else 'allowed'} ({self.threshold})"

    def bound(self, word: str) -> str:
        """`at most` or `at least`, `up to` or `from`; the other one of what there must be."""
        return _MIRRORED[word] if self.minimum else word


_MIRRORED: Final[Mapping[str, str]] = {
    "at most": "at least",
    "at least": "at most",
    "up to": "from",
    "from": "up to",
}
