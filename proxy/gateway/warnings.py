"""The header `faregate-budget-warning`: which of the caller's budgets are past their first alert threshold.

    faregate-budget-warning: monthly-tokens; used=0.83; resets=2026-12-01T00:00:00Z, weekly-cost; used=0.97; …

So an agent can tell its user before a request is refused. What is only held is not counted, as in the alerts.
"""

from __future__ import annotations

from collections.abc import Iterable

from proxy.domain.alerts import instant, threshold_amount
from proxy.domain.reservations import Balance, Counter


def budget_warning(budgets: Iterable[tuple[Counter, Balance]]) -> str | None:
    """The header's value for the budgets of an admission as they stood after it; None: nothing to warn of."""
    return ", ".join(told for told in (_told(counter, balance) for counter, balance in budgets) if told) or None


def _told(counter: Counter, balance: Balance) -> str | None:
    budget = counter.budget
    allowed = budget.limit + balance.granted
    reached = [threshold_amount(threshold, allowed) for threshold in budget.alert_at]
    if not any(amount is not None and balance.used >= amount for amount in reached):
        return None
    # Never more than there is: 0.999 is not yet all of it.
    hundredths = balance.used * 100 // allowed if allowed > 0 else 100
    resets = "" if counter.ends_us is None else f"; resets={instant(counter.ends_us)}"
    return f"{budget.id}; used={hundredths // 100}.{hundredths % 100:02d}{resets}"
