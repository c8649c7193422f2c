"""How far a run is: what the progress line and the budget look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from ..gates.decisions import Asked
from .asks import TokenCount
from .pacing import Slowdown


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. Every planned instance ends as `judged` or as `unscored`.

    `answered` are the planned instances whose answer is there, `from_store` those of them that the
    store had. `asked` counts the requests sent, beyond the plan too; `in_flight` those under way,
    `limit` how many may be. `elapsed` is in seconds since the first planned ask, or since model and
    judge were seen to be able to answer; 0 before it. `tokens` and `money` are what the model's
    answers cost; `money` is None without prices. `silent` is who stopped answering, so that the
    rest is not asked, and `slowdown` what holds the model's answers up. `doing` is what model or
    judge does while it cannot answer yet, such as loading its weights. `asked_tokens` and
    `stored_tokens` are what answers said they took, and `cost` the price of those asked.
    """

    planned: int
    answered: int
    from_store: int
    judged: int
    unscored: int
    asked: int
    in_flight: int
    elapsed: float
    limit: int = 1
    tokens: int = 0
    money: Decimal | None = None
    budget_spent: bool = False
    silent: Asked | None = None
    slowdown: Slowdown = field(default_factory=Slowdown)
    asked_tokens: TokenCount = field(default_factory=TokenCount)
    stored_tokens: TokenCount = field(default_factory=TokenCount)
    verdicts_from_store: int = 0
    cost: Decimal | None = None
    doing: str = ""

    @property
    def rate(self) -> float | None:
        """Answers of the model per second, those of the store left out; None before the first."""
        fresh = self.answered - self.from_store
        return fresh / self.elapsed if fresh and self.elapsed else None

    @property
    def remaining(self) -> float | None:
        """Seconds until the last planned instance is done, at this rate; None without a rate."""
        rate = self.rate
        return None if rate is None else (self.planned - self.judged - self.unscored) / rate
