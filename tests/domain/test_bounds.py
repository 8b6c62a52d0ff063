"""What an attempt may use at most, and what a remainder admits: two sides of one calculation."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.bounds import Bounds, affordable_output, amount, first_exceeded
from proxy.domain.policy import ATTEMPT_METERS, Budget
from proxy.domain.pricing import Price, bound_pico, cost_pico
from proxy.domain.usage import Usage

PRICE = Price(input=150_000, output=600_000, cache_write=187_500, request=5_000_000)

AMOUNTS = [
    # meter            amount of 100 in, 3 choices of 50 out
    ("tokens", 250),
    ("input_tokens", 100),
    ("output_tokens", 150),
    ("requests", 1),
    ("cost_usd", 18 + 90 + 5 + 1),  # the dearest input, 18.75, and all of it rounded up once: 113.75
]


@pytest.mark.parametrize(("meter", "expected"), AMOUNTS)
def test_each_meter_takes_its_own_amount(meter: str, expected: int) -> None:
    assert amount(meter, Bounds(100, 50, 3, 1, PRICE)) == expected


def test_a_cost_without_a_price_is_an_error_and_never_zero() -> None:
    with pytest.raises(ValueError, match="price"):
        amount("cost_usd", Bounds(1, 1, 1, 1, None))


prices = st.builds(
    Price,
    input=st.integers(0, 10**8),
    output=st.integers(0, 10**8),
    cache_write=st.none() | st.integers(0, 10**8),
    cache_write_1h=st.none() | st.integers(0, 10**8),
    request=st.integers(0, 10**9),
)


@given(
    input_tokens=st.integers(0, 10**6),
    choices=st.integers(1, 16),
    price=prices,
    remaining=st.lists(st.tuples(st.sampled_from(ATTEMPT_METERS), st.integers(0, 10**7)), min_size=1, max_size=5),
)
def test_what_is_affordable_fits_every_budget_and_one_token_more_does_not(
    input_tokens: int, choices: int, price: Price, remaining: list[tuple[str, int]]
) -> None:
    """`can_afford` is told to clients, who ask for exactly that next."""
    pairs = [(Budget(meter, meter, limit=0), left) for meter, left in remaining]
    most = affordable_output(Bounds(input_tokens, 0, choices, 1, price), pairs)

    def fits(limit: int) -> bool:
        bounds = Bounds(input_tokens, limit, choices, 1, price)
        return all(amount(budget.meter, bounds) <= left for budget, left in pairs)

    if most > 0:
        assert fits(most)
    if most < 1 << 53:
        assert not fits(most + 1)


def test_what_is_written_to_the_cache_for_an_hour_has_its_own_price_and_is_the_dearest_input() -> None:
    """Anthropic takes twice the plain price for it, and a bound must hold whatever the input turns out to be."""
    price = Price(input=100, output=0, cached_input=10, cache_write=125, cache_write_1h=200)
    usage = Usage(100, cache_read_tokens=20, cache_write_tokens=50, cache_write_1h_tokens=30)
    assert cost_pico(usage, price) == 30 * 100 + 20 * 10 + 20 * 125 + 30 * 200
    assert cost_pico(usage, replace(price, cache_write_1h=None)) == 30 * 100 + 20 * 10 + 50 * 125
    assert (price.dearest_input(), replace(price, cache_write_1h=None).dearest_input()) == (200, 125)


@given(price=prices, parts=st.tuples(*[st.integers(0, 10**6)] * 5), made=st.integers(0, 10**6))
def test_no_usage_within_its_bounds_costs_more_than_the_bound(
    price: Price, parts: tuple[int, ...], made: int
) -> None:
    """Zero overshoot in money rests on it."""
    _, read, heard, minutes, hour = parts
    usage = Usage(sum(parts), made, read, minutes + hour, heard, cache_write_1h_tokens=hour)
    assert cost_pico(usage, price) <= bound_pico(sum(parts), made, price)


def test_the_first_budget_exceeded_is_the_one_named_and_equality_is_allowed() -> None:
    assert first_exceeded([10, 10], [10, 9]) == 1
