"""What asking is going to take: requests, bytes, tokens and money, estimated beforehand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Final

from ..records import Completion, Scalar
from .endpoint import Estimate
from .spending import Budget

OUTPUT_TOKENS: Final = 1000
"""What an answer is taken to have where no decoding parameter bounds it."""


@dataclass(frozen=True, slots=True)
class Shipment:
    """What one request sends: characters of text, and images by their size in bytes."""

    characters: int
    images: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class GateAhead:
    """A gate that would be decided: of `planned` instances `selected` would run.

    `sign` tells what a threshold that is not of unsafe answers bounds, such as `>=`.
    """

    label: str
    threshold: Decimal
    population: int
    planned: int
    selected: int
    sign: str = ""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which instances would run: selected = held + to_ask + unreadable.

    `planned` are all, the sample or the shard of the data's `population`. The store has the
    answers of `held`; images of those `unreadable` cannot be read, so they are not asked. `arms`
    has how many of the selected are of each other arm than the benchmark's own.
    """

    population: int
    planned: int
    selected: int
    held: int
    to_ask: int
    unreadable: int
    arms: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asking:
    """What would be sent: one request for all instances that ask the same.

    `base64_bytes` is 0 where the images' bytes are not sent.
    """

    requests: int = 0
    images: int = 0
    image_bytes: int = 0
    base64_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens that the requests are taken to use, and by what rates.

    `learned_from` is the number of answers in the store that the rates were taken from; with
    none they are guesses. `cost` is None without prices.
    """

    tokens: Estimate
    image_tokens: int
    output_tokens: int
    learned_from: int
    cost: Decimal | None


@dataclass(frozen=True, slots=True)
class Judging:
    """Whose verdicts there would be, and at most how many; a local judge asks no model.

    `images` is how many of them it would look at, at most.
    """

    judge: str
    calls: int
    local: bool
    images: int = 0


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would ask, counted and estimated; nothing was asked for it.

    `recorded` answers are asked of nobody. `decides` is False of a run that rules on nothing.
    """

    model: str
    data: str
    store: str
    chosen: Chosen
    asking: Asking
    usage: Usage
    judging: Judging
    gates: tuple[GateAhead, ...]
    budget: Budget | None
    recorded: bool
    decides: bool
    notes: tuple[str, ...] = ()

    @property
    def over_budget(self) -> bool:
        """The estimate is more than the budget; False without one."""
        if self.budget is None:
            return False
        if self.budget.money is None:
            return self.usage.tokens.total > self.budget.amount
        return self.usage.cost is not None and self.usage.cost > self.budget.amount


def most_output(decoding: Mapping[str, Scalar]) -> int:
    """The tokens of an answer that the decoding parameters allow, or a guess."""
    for name in ("max_completion_tokens", "max_tokens"):
        value = decoding.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return OUTPUT_TOKENS


def base64_size(size: int) -> int:
    """The characters of so many bytes in base64."""
    return -(-size // 3) * 4


class Estimator:
    """Estimates the tokens of requests, from their size and from what earlier ones took.

    Before an answer is known, text counts four characters a token, an image `image_tokens`, and
    an answer what the decoding parameters allow.
    """

    def __init__(self, image_tokens: int, decoding: Mapping[str, Scalar]) -> None:
        self._image_tokens = image_tokens
        self._allowed = most_output(decoding)
        self._guessed = self._used = 0
        self._outputs: list[int] = []
        self._answers = 0

    @property
    def answers(self) -> int:
        """How many answers with known usage were learned from."""
        return self._answers

    @property
    def output_tokens(self) -> int:
        """The tokens of an answer: the mean of those known, rounded up, or the most allowed."""
        return math.ceil(self._mean)

    def learn(self, shipment: Shipment, completion: Completion) -> None:
        """Take what this request used into account; usage that is unknown teaches nothing."""
        used, output = completion.input_tokens, completion.output_tokens
        if used:
            self._guessed += self._guess(shipment)
            self._used += used
        if output is not None:
            self._outputs.append(output)
        self._answers += bool(used) or output is not None

    def total(self, shipments: Iterable[Shipment]) -> Estimate:
        """The tokens of all these requests, each rounded up at the end."""
        guesses = [self._guess(shipment) for shipment in shipments]
        factor = Fraction(self._used, self._guessed) if self._guessed else Fraction(1)
        return Estimate(math.ceil(sum(guesses) * factor), math.ceil(len(guesses) * self._mean))

    @property
    def _mean(self) -> Fraction:
        if not self._outputs:
            return Fraction(self._allowed)
        return Fraction(sum(self._outputs), len(self._outputs))

    def _guess(self, shipment: Shipment) -> int:
        text = Estimate.of_text(shipment.characters, 0).input
        return text + self._image_tokens * len(shipment.images)
