from __future__ import annotations

from typing import Any

import pytest

from proxy.domain.policy import Budget
from proxy.domain.reservations import Balance, Counter
from proxy.gateway.warnings import budget_warning

ENDS_US = 1_796_083_200_000_000


def at(used: int, granted: int = 0, ends_us: int | None = ENDS_US, **terms: Any) -> tuple[Counter, Balance]:
    budget = Budget("monthly-tokens", "tokens", **{"limit": 1000, **terms})
    return Counter("name", budget, 0, ends_us), Balance(used, 500, granted, 0)


@pytest.mark.parametrize(
    ("state", "value"),
    [
        (at(799), None),
        (at(800), "monthly-tokens; used=0.80; resets=2026-12-01T00:00:00Z"),
        (at(999), "monthly-tokens; used=0.99; resets=2026-12-01T00:00:00Z"),
        (at(1234, hard=False), "monthly-tokens; used=1.23; resets=2026-12-01T00:00:00Z"),
        (at(900, ends_us=None), "monthly-tokens; used=0.90"),
        (at(1000, granted=1000), None),
        (at(1600, granted=1000), "monthly-tokens; used=0.80; resets=2026-12-01T00:00:00Z"),
        (at(500, alert_at=("400",)), "monthly-tokens; used=0.50; resets=2026-12-01T00:00:00Z"),
        (at(1000, alert_at=()), None),
        (at(0, limit=0), None),
    ],
)
def test_a_budget_is_warned_of_from_its_first_threshold_on(state: Any, value: str | None) -> None:
    """An agent that reads it shows its user what the admin sees."""
    assert budget_warning([state]) == value


def test_several_budgets_stand_in_one_header() -> None:
    told = budget_warning([at(900, ends_us=None), at(5), at(950, ends_us=None)])
    assert told == "monthly-tokens; used=0.90, monthly-tokens; used=0.95"
