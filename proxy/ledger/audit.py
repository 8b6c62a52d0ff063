"""Questions that the invariants ask of the record."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.ledger.engine import reading
from proxy.ledger.tables import plan_versions, set_aside, usage_events

DAY_US = 86_400_000_000
SHOWN_MAX = 20
# Written out, not bound: else SQLite does not see that the index of corrections has all that is asked for.
TERMINAL: ColumnElement[str] = literal_column("'terminal'")


async def unmatched_rows(engine: AsyncEngine, now_us: int) -> list[str]:
    """I6: corrections of the last day whose attempt has no terminal row. (Two terminal rows the key forbids.)"""
    earlier = usage_events.alias()
    terminal = exists().where(
        and_(
            earlier.c.request_id == usage_events.c.request_id,
            earlier.c.attempt == usage_events.c.attempt,
            earlier.c.kind == "terminal",
        )
    )
    wanted = (
        select(usage_events.c.id)
        .where(usage_events.c.admitted_at >= now_us - DAY_US, usage_events.c.kind != TERMINAL, ~terminal)
        .limit(SHOWN_MAX)
    )
    async with reading(engine) as connection:
        return list((await connection.execute(wanted)).scalars())


async def highest_limits(engine: AsyncEngine) -> dict[tuple[str, str, str], int]:
    """(budget id, meter, window) -> the highest limit that any version of any plan gave it."""
    highest: dict[tuple[str, str, str], int] = {}
    async with reading(engine) as connection:
        for document in (await connection.execute(select(plan_versions.c.document))).scalars():
            for budget in document["budgets"]:
                key = (budget["id"], budget["meter"], budget["window"])
                highest[key] = max(highest.get(key, 0), budget["limit"])
    return highest


async def events_set_aside(engine: AsyncEngine) -> int:
    """How many events the ledger has refused, so that what they were charged is missing in its sums."""
    async with reading(engine) as connection:
        return int(await connection.scalar(select(func.count()).select_from(set_aside)) or 0)


async def overrun(engine: AsyncEngine, shard: int, counter: str) -> int:
    """What the attempts of a counter were charged beyond what was held for them."""
    columns = (usage_events.c.held, usage_events.c.charged)
    customer_id, *_, starts_us = counter.split("/")
    wanted = select(*columns).where(
        usage_events.c.customer_id == customer_id,
        usage_events.c.shard == shard,
        # Admitted within the window, by Redis's clock; the day is for clocks that were put right since.
        usage_events.c.admitted_at >= int(starts_us) - DAY_US,
    )
    total = 0
    async with reading(engine) as connection:
        async for held, charged in await connection.stream(wanted):
            total += _beyond(held, charged, counter)
    return total


def _beyond(held: list[dict[str, Any]], charged: list[dict[str, Any]], counter: str) -> int:
    held_by_budget = {(hold["budget_id"], hold["window_start"]): hold["amount"] for hold in held}
    return sum(
        max(0, charge["amount"] - held_by_budget.get((charge["budget_id"], charge["window_start"]), 0))
        for charge in charged
        if charge.get("counter") == counter
    )
