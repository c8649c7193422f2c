"""What a run may spend on asking, in tokens or in money, and what it has spent."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple, Self

from ..errors import ConfigurationError
from ..printable import one_line

_SCALES: Final = {"": 1, "k": 1_000, "m": 1_000_000}
_FORM: Final = re.compile(
    r"(\$?) \s* (\d{1,15} | \d{1,3} (?:,\d{3}){1,4}) (\.\d{1,12})?"
    r"\s* ([km]?) \s* (tokens? | usd)?",
    re.ASCII | re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Prices:
    """Money per million tokens; None where it is not known.

    Raises:
        ValueError: a price below 0, or one that is not a number.
    """

    input: Decimal | None = None
    output: Decimal | None = None

    def __post_init__(self) -> None:
        for price in (self.input, self.output):
            if price is not None and not (price.is_finite() and price >= 0):
                raise ValueError("a price must be 0 or more")

    def of(self, input_tokens: int, output_tokens: int) -> Decimal | None:
        """What so many tokens cost; None without both prices."""
        if self.input is None or self.output is None:
            return None
        return (self.input * input_tokens + self.output * output_tokens).scaleb(-6)


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that may be spent: tokens, or money.

    Raises:
        ValueError: both or neither, or nothing to spend.
    """

    tokens: int | None
    money: Decimal | None

    def __post_init__(self) -> None:
        if (self.tokens is None) == (self.money is None):
            raise ValueError("a budget is of tokens or of money, one of the two")
        if not (self.amount.is_finite() and self.amount > 0):
            raise ValueError("a budget must be above 0")

    @property
    def amount(self) -> Decimal:
        """The number of it, without its unit."""
        return Decimal(self.tokens) if self.money is None else self.money  # type: ignore[arg-type]

    @classmethod
    def parse(cls, text: str) -> Self:
        """The budget in what a user typed, such as 200000, 200k, 1.5M, 20usd or $20.

        Raises:
            ValueError: it is none; the message is one line that shows the forms.
        """
        if (match := _FORM.fullmatch(text.strip().lower())) is not None:
            dollar, whole, fraction, scale, unit = match.groups()
            amount = Decimal(whole.replace(",", "") + (fraction or "")) * _SCALES[scale]
            in_money = bool(dollar) or unit == "usd"
            in_tokens = (unit or "").startswith("token")
            if in_money and not in_tokens and amount > 0:
                return cls(None, amount)
            if not in_money and amount > 0 and amount == amount.to_integral_value():
                return cls(int(amount), None)
        raise ValueError(
            f"'{one_line(text, 40)}' is no budget: write tokens (200000, 200k, 1.5M) or US dollars "
            "(20usd, 12.50usd)"
        )

    def __str__(self) -> str:
        """Such as '200,000 tokens' or '12.50 USD'."""
        return f"{self.tokens:,} tokens" if self.money is None else f"{self.money:f} USD"


class _Usage(NamedTuple):
    """Tokens of one request, or of many."""

    input: int = 0
    output: int = 0

    def at_least(self, other: _Usage) -> _Usage:
        return _Usage(max(self.input, other.input), max(self.output, other.output))

    def plus(self, other: _Usage, sign: int = 1) -> _Usage:
        return _Usage(self.input + sign * other.input, self.output + sign * other.output)


class Spending:
    """What was spent, and whether the budget has room for another request. Belongs to one thread.

    Raises:
        ConfigurationError: a budget of money without both prices.
    """

    def __init__(self, budget: Budget | None, prices: Prices) -> None:
        if budget is not None and budget.money is not None and prices.of(0, 0) is None:
            raise ConfigurationError(
                f"a budget of {budget} needs the model's prices: set input_price and output_price "
                "(money per million tokens)"
            )
        self._budget = budget
        self._prices = prices
        self._spent = _Usage()
        self._reserved = _Usage()
        self._largest = _Usage()
        self._open: defaultdict[_Usage, list[_Usage]] = defaultdict(list)
        self._refused = False

    @property
    def tokens(self) -> int:
        """Tokens of all settled requests."""
        return self._spent.input + self._spent.output

    @property
    def money(self) -> Decimal | None:
        """What they cost; None without prices."""
        return self._prices.of(self._spent.input, self._spent.output)

    @property
    def exhausted(self) -> bool:
        """The budget is spent, or what is left of it is too little for a request."""
        if self._budget is None:
            return False
        return self._refused or self._amount(self._spent) >= self._budget.amount

    def admit(self, input_tokens: int, output_tokens: int) -> bool:
        """Reserve this estimate, or the largest usage seen where that is more, if it fits.

        False means not now: a reservation that settles for less may make room. Once `exhausted`,
        it stays False.
        """
        if self.exhausted:
            return False
        estimate = _Usage(input_tokens, output_tokens)
        reservation = estimate.at_least(self._largest)
        needed = self._spent.plus(self._reserved).plus(reservation)
        if self._budget is not None and self._amount(needed) > self._budget.amount:
            self._refused = not self._open
            return False
        self._reserved = self._reserved.plus(reservation)
        self._open[estimate].append(reservation)
        return True

    def settle(
        self,
        input_tokens: int,
        output_tokens: int,
        used_input: int | None,
        used_output: int | None,
    ) -> None:
        """Replace the reservation of this estimate by what was used; None counts as estimated."""
        reservation = self._close(_Usage(input_tokens, output_tokens))
        used = _Usage(
            reservation.input if used_input is None else used_input,
            reservation.output if used_output is None else used_output,
        )
        self._spent = self._spent.plus(used)
        self._largest = used.at_least(self._largest)

    def release(self, input_tokens: int, output_tokens: int) -> None:
        """Give the reservation of this estimate back: nobody can have worked on it."""
        self._close(_Usage(input_tokens, output_tokens))

    def _close(self, estimate: _Usage) -> _Usage:
        if not (reservations := self._open.get(estimate)):
            raise ValueError("nothing is reserved for this estimate")
        reservation = reservations.pop()
        if not reservations:
            del self._open[estimate]
        self._reserved = self._reserved.plus(reservation, -1)
        return reservation

    def _amount(self, usage: _Usage) -> Decimal:
        """In the budget's unit."""
        if self._budget is not None and self._budget.money is not None:
            cost = self._prices.of(usage.input, usage.output)
            if cost is not None:
                return cost
        return Decimal(usage.input + usage.output)
