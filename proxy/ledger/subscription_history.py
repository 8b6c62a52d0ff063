"""A customer as the ledger keeps it, and the history of its subscription, one row for every change."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.domain.accounts import Customer, ScheduledChange
from proxy.ledger.tables import subscription_changes

NOTHING_SCHEDULED: Mapping[str, Any] = {"scheduled_plan": None, "scheduled_at": None, "scheduled_cancel": False}
SUBSCRIBED: Mapping[str, Any] = {"subscribed": True, **NOTHING_SCHEDULED}

_ASIDE = frozenset(("revision", "overridden", "scheduled_plan", "scheduled_at", "scheduled_cancel"))


def customer_of(row: RowMapping) -> Customer:
    kept = {name: value for name, value in row.items() if name not in _ASIDE}
    scheduled = None
    if row["scheduled_at"] is not None:
        scheduled = ScheduledChange(row["scheduled_plan"], row["scheduled_at"], row["scheduled_cancel"])
    return Customer(**kept, scheduled=scheduled)


def what_changed(before: Customer, after: Customer) -> str | None:
    """The word for what became of a subscription; None if nothing did."""
    if after.subscribed and not before.subscribed:
        return "started"
    if before.subscribed and not after.subscribed:
        return "canceled"
    if before.plan != after.plan:
        return "changed"
    if before.anchor != after.anchor:
        return "re-anchored"
    if before.scheduled != after.scheduled:
        return "unscheduled" if after.scheduled is None else "scheduled"
    return None


async def note(
    connection: AsyncConnection,
    what: str,
    before: Customer | None,
    after: Customer,
    now: datetime,
    effective_at: datetime | None = None,
) -> None:
    """Writes a change down, in the transaction that makes it."""
    plan, at = after.plan, effective_at or now
    if what == "scheduled" and after.scheduled is not None:
        plan, at = after.scheduled.plan, after.scheduled.at
    row = {
        "customer_id": after.id,
        "changed_at": now,
        "what": what,
        "from_plan": before.plan if before else None,
        "plan": plan,
        "anchor": after.anchor,
        "effective_at": at,
    }
    await connection.execute(insert(subscription_changes).values(**row))
