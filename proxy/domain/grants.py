"""Amounts added to a customer's budgets: credit packs, top-ups, promotions; and the order of burning."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.domain.policy import Budget, Meter

PRIORITY_USUAL = 128
"""Of a grant without one, and of every plan's own allowance, which expires with its window."""


@dataclass(frozen=True, slots=True)
class Grant:
    """An immutable amount in the meter's unit (`cost_usd`: microdollars), usable in [effective, expires).

    It raises the budget `budget_id`, or every budget of its `meter` and `per` if that is None; each keeps its own
    count of it. Lower priorities burn first, then what expires first, then what was created first.
    """

    id: str
    meter: Meter
    amount: int
    per: str = "customer"
    budget_id: str | None = None
    priority: int = PRIORITY_USUAL
    effective_at_us: int = 0
    expires_at_us: int | None = None
    created_at_us: int = 0

    def raises(self, budget: Budget) -> bool:
        if self.budget_id is not None:
            return self.budget_id == budget.id and self.meter == budget.meter
        return (self.meter, self.per) == (budget.meter, budget.per)

    def burns_before(self) -> tuple[int, int, int, str]:
        """What grants are sorted by (metering.md 2.3): priority, expiry (none is last), creation, id."""
        expires = 1 << 62 if self.expires_at_us is None else self.expires_at_us
        return self.priority, expires, self.created_at_us, self.id
