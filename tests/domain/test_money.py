"""Money is counted exactly: what a price says is what is charged, to the last digit."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain import money

PRICES = [
    # USD per million tokens   picodollars per token
    ("0.15", 150_000),
    ("0.075", 75_000),
    ("10", 10_000_000),
    ("0", 0),
    ("0.000001", 1),
]


@pytest.mark.parametrize(("text", "pico"), PRICES)
def test_a_price_per_million_tokens_is_picodollars_per_token(text: str, pico: int) -> None:
    assert money.pico_per_token(text) == pico


@pytest.mark.parametrize("text", ["", "a", "-1", "NaN", "Infinity", "0.0000001", "1e999999", "9" * 60])
def test_a_price_that_cannot_be_counted_exactly_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="USD"):
        money.pico_per_token(text)


def test_a_charge_is_rounded_up_so_that_a_budget_never_pays_less_than_the_cost() -> None:
    """feasibility.md: 17.25 microdollars are charged as 18."""
    assert money.microusd_charged(17_250_000) == 18
    assert money.microusd_charged(17_000_000) == 17
    assert money.microusd_charged(0) == 0


@given(st.integers(min_value=-(10**30), max_value=10**30))
def test_the_decimal_text_says_exactly_the_picodollars(pico: int) -> None:
    """The ledger's text and the counter's integer must never drift apart."""
    text = money.usd_text(pico)
    assert "e" not in text.lower()
    assert Decimal(text) == money.EXACT.scaleb(Decimal(pico), -12)
    assert money.pico_of(text) == pico
