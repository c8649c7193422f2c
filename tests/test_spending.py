from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_mirsafety.engine.spending import Budget, Prices, Spending
from pytest_mirsafety.errors import ConfigurationError

PRICES = Prices(Decimal("2.50"), Decimal("10.00"))

counts = st.integers(0, 5_000)
money = st.decimals(0, 100, places=3, allow_nan=False)
prices = st.builds(Prices, money, money)
budgets = st.one_of(
    st.builds(Budget, st.integers(1, 60_000), st.none()),
    st.builds(Budget, st.none(), st.decimals("0.001", 2, places=3)),
)
requests = st.lists(
    st.tuples(counts, counts, st.floats(0, 1), st.floats(0, 1), st.booleans()), max_size=30
)


def within(budget: Budget, spending: Spending) -> bool:
    spent = spending.tokens if budget.money is None else spending.money
    return spent is not None and spent <= budget.amount


@given(budget=budgets, prices=prices, asked=requests, order=st.randoms(use_true_random=False))
def test_what_is_settled_never_exceeds_the_budget(
    budget: Budget,
    prices: Prices,
    asked: Sequence[tuple[int, int, float, float, bool]],
    order: Random,
) -> None:
    spending = Spending(budget, prices)
    open_requests: list[tuple[int, int, int, int]] = []
    refused = False
    for most_in, most_out, share_in, share_out, replied in asked:
        if spending.admit(most_in, most_out):
            assert not refused, "admitted after it was exhausted"
            used = int(most_in * share_in), int(most_out * share_out)
            open_requests.append((most_in, most_out, *used))
        refused = refused or spending.exhausted
        if open_requests and order.random() < 0.5:
            one = open_requests.pop(order.randrange(len(open_requests)))
            if replied:
                spending.settle(*one)
            else:
                spending.release(*one[:2])
        assert within(budget, spending)
    for one in open_requests:
        spending.settle(*one)
    assert within(budget, spending)


@given(
    prices=prices,
    used=st.lists(st.tuples(counts, counts), max_size=12),
    data=st.data(),
)
def test_order_and_interleaving_do_not_matter(
    prices: Prices, used: list[tuple[int, int]], data: st.DataObject
) -> None:
    totals = []
    for settled in (used, data.draw(st.permutations(used))):
        spending = Spending(None, prices)
        for _ in settled:
            assert spending.admit(5_000, 5_000)
        for one in settled:
            spending.settle(5_000, 5_000, *one)
        totals.append((spending.tokens, spending.money))
    assert totals[0] == totals[1]
    assert totals[0][0] == sum(i + o for i, o in used)


@given(st.lists(st.tuples(counts, counts), max_size=9))
def test_what_is_given_back_leaves_no_trace(estimates: list[tuple[int, int]]) -> None:
    spending = Spending(Budget(100_000, None), PRICES)
    for one in estimates:
        assert spending.admit(*one)
    for one in reversed(estimates):
        spending.release(*one)
    assert spending.tokens == 0
    assert spending.admit(100_000, 0)


def test_an_estimate_is_at_least_the_largest_usage_seen() -> None:
    spending = Spending(Budget(1_000, None), Prices())
    assert spending.admit(10, 10)
    spending.settle(10, 10, 300, 100)
    assert spending.admit(10, 10)  # takes 400
    assert not spending.admit(10, 10)
    assert not spending.exhausted  # what is open may cost less
    spending.settle(10, 10, 100, 100)
    assert spending.admit(10, 10)
    spending.settle(10, 10, 1, 1)
    assert spending.tokens == 602
    assert not spending.admit(10, 10)
    assert spending.exhausted  # nothing is open, and 398 are left
    assert not spending.admit(0, 0)


def test_an_unknown_usage_counts_as_estimated() -> None:
    spending = Spending(None, PRICES)
    for used in ((None, None), (30, None), (None, 5)):
        spending.admit(100, 20)
        spending.settle(100, 20, *used)
    assert spending.tokens == 120 + 50 + 105


def test_a_usage_above_the_estimate_is_spent_as_it_is() -> None:
    spending = Spending(Budget(100, None), Prices())
    assert spending.admit(10, 10)
    assert spending.admit(10, 10)
    spending.settle(10, 10, 500, 0)
    assert spending.tokens == 500
    assert spending.exhausted
    spending.settle(10, 10, 10, 10)
    assert not spending.admit(0, 0)


def test_a_budget_can_be_spent_to_the_last_token() -> None:
    spending = Spending(Budget(100, None), Prices())
    assert spending.admit(60, 40)
    assert not spending.exhausted
    spending.settle(60, 40, 60, 40)
    assert spending.exhausted


def test_money_is_counted_exactly() -> None:
    spending = Spending(Budget.parse("$0.30"), Prices(Decimal("0.1"), Decimal("0.2")))
    for _ in range(3):
        assert spending.admit(1_000_000, 0)
        spending.settle(1_000_000, 0, 1_000_000, 0)
    assert spending.money == Decimal("0.3")
    assert spending.exhausted


def test_without_a_budget_everything_is_admitted_and_counted() -> None:
    spending = Spending(None, PRICES)
    for _ in range(50):
        assert spending.admit(10**9, 10**9)
    spending.settle(10**9, 10**9, 400_000, 100_000)
    assert not spending.exhausted
    assert spending.tokens == 500_000
    assert spending.money == Decimal("2.00")


@pytest.mark.parametrize("partly", [Prices(), Prices(Decimal(1)), Prices(None, Decimal(1))])
def test_money_needs_both_prices(partly: Prices) -> None:
    assert Spending(Budget(5, None), partly).money is None
    with pytest.raises(ConfigurationError, match=r"input_price and output_price") as caught:
        Spending(Budget.parse("20usd"), partly)
    assert "\n" not in str(caught.value)


def test_nothing_is_settled_that_was_not_admitted() -> None:
    spending = Spending(None, PRICES)
    spending.admit(1, 2)
    spending.release(1, 2)
    with pytest.raises(ValueError, match="nothing is reserved"):
        spending.settle(1, 2, 1, 2)


# What a user types


@pytest.mark.parametrize(
    ("text", "tokens", "dollars"),
    [
        ("200000", 200_000, None),
        ("200,000", 200_000, None),
        ("200k", 200_000, None),
        (" 2M ", 2_000_000, None),
        ("1.5m tokens", 1_500_000, None),
        ("1 token", 1, None),
        ("0.5k", 500, None),
        ("12.50usd", None, "12.50"),
        ("20 USD", None, "20"),
        ("$20", None, "20"),
        ("$ 0.01", None, "0.01"),
        ("$2k", None, "2000"),
    ],
)
def test_forms_of_a_budget(text: str, tokens: int | None, dollars: str | None) -> None:
    budget = Budget.parse(text)
    assert budget == Budget(tokens, None if dollars is None else Decimal(dollars))


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "k", "$", "0", "$0", "0.0usd", "-5", "1e6", "nan", "inf", "٣", "1,00"),
        *("1.0001k", "20 EUR", "$5 tokens", "9" * 5_000, "20\nusd\x1b[31m" + "x" * 900),
    ],
)
def test_anything_else_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match="write tokens") as caught:
        Budget.parse(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@given(budgets)
@example(Budget(1, None))
@example(Budget(None, Decimal("1E+2")))
@example(Budget(None, Decimal("1E-7")))
def test_a_budget_reads_back_as_it_is_shown(budget: Budget) -> None:
    assert Budget.parse(str(budget)) == budget


@given(st.text(max_size=20))
def test_no_text_is_a_surprise(text: str) -> None:
    try:
        budget = Budget.parse(text)
    except ValueError:
        return
    assert budget.amount > 0


@pytest.mark.parametrize(
    ("tokens", "dollars"), [(None, None), (1, Decimal(1)), (0, None), (None, Decimal("NaN"))]
)
def test_a_budget_is_one_of_the_two_and_above_zero(
    tokens: int | None, dollars: Decimal | None
) -> None:
    with pytest.raises(ValueError, match="budget"):
        Budget(tokens, dollars)


def test_prices_are_a_million_tokens_each() -> None:
    assert PRICES.of(1_000_000, 0) == Decimal("2.50")
    assert PRICES.of(1_234, 567) == Decimal("0.008755")
    assert Prices().of(1, 1) is None


@pytest.mark.parametrize("price", ["-0.01", "NaN", "Infinity"])
def test_a_price_is_a_number_from_zero(price: str) -> None:
    with pytest.raises(ValueError, match="price"):
        Prices(Decimal(price))
