"""Questions that the invariants ask of the record."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.domain.counters import is_grant
from proxy.ledger.engine import reading
from proxy.ledger.tables import customers, grants, plan_versions, set_aside, usage_events

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


async def highest_limits(engine: AsyncEngine) -> dict[tuple[str, str, str], int | None]:
    """(budget id, meter, window) -> the most that any version of any plan let it come to: its limit, overage and
    what may be carried over. None: as much as one likes, of soft budgets and of plans in shadow mode."""
    highest: dict[tuple[str, str, str], int | None] = {}
    async with reading(engine) as connection:
        for document in (await connection.execute(select(plan_versions.c.document))).scalars():
            for budget in document["budgets"]:
                key = (budget["id"], budget["meter"], budget["window"])
                before = highest.get(key, 0)
                if before is None or document.get("mode") == "shadow" or not budget.get("hard", True):
                    highest[key] = None
                else:
                    more = budget.get("overage_limit", 0) + budget.get("rollover_max", 0)
                    highest[key] = max(before, budget["limit"] + more)
    return highest


async def overridden(engine: AsyncEngine) -> set[str]:
    """The customers whose plan is or was overridden: what their budgets were at any time is written nowhere."""
    async with reading(engine) as connection:
        return set((await connection.execute(select(customers.c.id).where(customers.c.overridden))).scalars())


async def grant_amounts(engine: AsyncEngine, ids: Collection[str]) -> dict[str, int]:
    """What these grants are worth, by id; voided ones too."""
    wanted = select(grants.c.id, grants.c.amount).where(grants.c.id.in_(ids))
    async with reading(engine) as connection:
        return {id: int(amount) for id, amount in await connection.execute(wanted)}


async def events_set_aside(engine: AsyncEngine) -> int:
    """How many events the ledger has refused, so that what they were charged is missing in its sums."""
    async with reading(engine) as connection:
        return int(await connection.scalar(select(func.count()).select_from(set_aside)) or 0)


async def overrun(engine: AsyncEngine, shard: int, counter: str) -> int:
    """What a counter was charged that no hold had covered: beyond what was held of the budget, or after the hold
    had ended. The plan's own counter takes all of the former, grants take none."""
    columns = (usage_events.c.kind, usage_events.c.held, usage_events.c.charged)
    customer_id, *_, start = counter.split("/")
    wanted = select(*columns).where(usage_events.c.customer_id == customer_id, usage_events.c.shard == shard)
    if not is_grant(counter):
        # Admitted within the window, by Redis's clock; the day is for clocks that were put right since.
        wanted = wanted.where(usage_events.c.admitted_at >= int(start) - DAY_US)
    total = 0
    async with reading(engine) as connection:
        async for kind, held, charged in await connection.stream(wanted):
            total += _beyond(kind, held, charged, counter)
    return total


def _beyond(kind: str, held: list[dict[str, Any]], charged: list[dict[str, Any]], counter: str) -> int:
    own = next((charge for charge in charged if charge.get("counter") == counter), None)
    if own is None:
        return 0
    if kind != "terminal":
        return max(0, int(own["amount"]))
    if is_grant(counter):
        return 0
    of = (own["budget_id"], own["window_start"])
    return max(0, _sum_of(charged, of) - _sum_of(held, of))


def _sum_of(rows: list[dict[str, Any]], of: tuple[str, int]) -> int:
    return sum(row["amount"] for row in rows if (row["budget_id"], row["window_start"]) == of)
