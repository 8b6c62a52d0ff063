"""What a settlement says of the sources of its budgets."""

from __future__ import annotations

import pytest

from proxy.domain.policy import Budget, RateLimits
from proxy.domain.reservations import Counter, Settlement, Source, by_counter, shares, sources_of

PLAIN = Counter("plain", Budget("p", "requests", 5), 0, None)
FILLED = Counter(
    "plan",
    Budget("b", "tokens", 100),
    0,
    None,
    (Source("first", 30, 0, None, "g1"), Source("plan", 100, 0, None, None), Source("last", 9, 0, None, "g2")),
)


def settlement(amount: int, parts: tuple[tuple[int, ...], ...]) -> Settlement:
    return Settlement("r:1", "acme", 3, (PLAIN, FILLED), (1, amount), 0, RateLimits(), (0, 0, 0), b"{}", parts)


@pytest.mark.parametrize(
    ("amount", "parts", "paid"),
    [
        (25, ((), (30, 40, 0)), [1, 25, 0, 0]),
        (60, ((), (30, 40, 0)), [1, 30, 30, 0]),
        (90, ((), (30, 40, 9)), [1, 30, 51, 9]),
        (60, (), [1, 0, 60, 0]),
    ],
)
def test_where_nobody_knows_what_is_left_sources_pay_what_they_held(
    amount: int, parts: tuple[tuple[int, ...], ...], paid: list[int]
) -> None:
    """A grant that promised nothing to this call must not be overdrawn by it."""
    assert shares(settlement(amount, parts)) == paid
    names = [source.name for _, source in sources_of(settlement(amount, parts))]
    assert names == ["plain", "first", "plan", "last"]


def test_amounts_of_sources_are_found_by_counter() -> None:
    assert by_counter((PLAIN, FILLED), (1, 2, 3, 4)) == ((1,), (2, 3, 4))
