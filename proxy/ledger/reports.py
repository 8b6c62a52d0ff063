"""Questions asked of the record, one method each. Every sum is exact, on both databases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Table, distinct, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.billing.ports import Page
from proxy.domain.money import usd_text
from proxy.domain.usage_events import FIELDS, TIMES, TOKENS
from proxy.ledger.engine import reading
from proxy.ledger.paging import after, page_of
from proxy.ledger.tables import denials, micros, usage_events, utc_text

E = usage_events.c
DAY_US = 86_400_000_000
MINUTE_US = 60_000_000
# More groups than this are no report; a narrower question is wanted.
GROUPS_MOST = 10_000

EVENT_FILTERS = ("customer_id", "agent_id", "request_id", "user_id", "run_id", "step", "model", "status")
DENIAL_FILTERS = ("customer_id", "agent_id", "model", "reason", "shadow")
GROUPS: dict[str, ColumnElement[Any]] = {
    "customer": E.customer_id,
    "agent": E.agent_id,
    # Money goes where the call went: after a fallback that is not the model that was asked for.
    "model": func.coalesce(E.model_served, E.model),
    "step": E.step,
    "user": E.user_id,
    "day": E.admitted_at // DAY_US,
}
# SQLite fails when a sum leaves 64 bits, which picodollars do at nine million dollars: sum them in two parts.
HALF = 1_000_000
SUMS = (
    func.count(distinct(E.request_id)).label("requests"),
    func.count().filter(E.kind == "terminal").label("attempts"),
    *(func.coalesce(func.sum(E[name]), 0).label(name) for name in TOKENS),
    func.coalesce(func.sum(E.cost_pico // HALF), 0).label("cost_high"),
    func.coalesce(func.sum(E.cost_pico % HALF), 0).label("cost_low"),
)
DENIAL_KEY = ("minute", "customer_id", "agent_id", "model", "reason", "shadow")


class SqlReports:
    """Implements `Reports`. `from` (inclusive) and `to` (exclusive) are aware datetimes, of the admission."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def usage_events(
        self, filters: Mapping[str, Any], limit: int, cursor: str | None
    ) -> Page[Mapping[str, Any]]:
        wanted = select(usage_events).where(*_where(usage_events, EVENT_FILTERS, filters, E.admitted_at, 1))
        if cursor is not None:
            wanted = wanted.where(after((E.admitted_at, E.id), cursor, newest_first=True))
        wanted = wanted.order_by(E.admitted_at.desc(), E.id.desc()).limit(limit + 1)
        async with reading(self._engine) as connection:
            rows = (await connection.execute(wanted)).mappings().all()
        page = page_of(rows, limit, lambda row: (row["admitted_at"], row["id"]))
        return Page([_event(row) for row in page.data], page.next_cursor)

    async def usage(self, group_by: Sequence[str], filters: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """Ordered by the groups' keys, which are named as in `group_by`; `day` is a UTC date. ValueError for an
        unknown group, or for more groups than `GROUPS_MOST`."""
        if unknown := [name for name in group_by if name not in GROUPS]:
            raise ValueError(f"group_by: {unknown[0]!r} is no group; known are {', '.join(GROUPS)}")
        keys = [GROUPS[name].label(f"group_{name}") for name in dict.fromkeys(group_by)]
        wanted = select(*keys, *SUMS).where(*_where(usage_events, EVENT_FILTERS, filters, E.admitted_at, 1))
        wanted = wanted.group_by(*keys).order_by(*keys).limit(GROUPS_MOST + 1)
        async with reading(self._engine) as connection:
            rows = (await connection.execute(wanted)).mappings().all()
        if len(rows) > GROUPS_MOST:
            raise ValueError(f"More than {GROUPS_MOST:,} groups; ask for less with from and to, or fewer groups.")
        return [_sums(row, group_by) for row in rows]

    async def denials(self, filters: Mapping[str, Any], limit: int, cursor: str | None) -> Page[Mapping[str, Any]]:
        key = tuple(denials.c[name] for name in DENIAL_KEY)
        wanted = select(denials).where(*_where(denials, DENIAL_FILTERS, filters, denials.c.minute, MINUTE_US))
        if cursor is not None:
            wanted = wanted.where(after(key, cursor, newest_first=True))
        wanted = wanted.order_by(*(column.desc() for column in key)).limit(limit + 1)
        async with reading(self._engine) as connection:
            found = (await connection.execute(wanted)).mappings().all()
        page = page_of(found, limit, lambda row: [row[name] for name in DENIAL_KEY])
        # A row's own keys are SQLAlchemy's kind of text, which orjson does not take for text.
        rows = [{str(name): value for name, value in row.items()} for row in page.data]
        data = [row | {"minute": utc_text(row["minute"] * MINUTE_US)} for row in rows]
        return Page(data, page.next_cursor)


def _where(
    table: Table, known: Sequence[str], filters: Mapping[str, Any], time: ColumnElement[int], unit_us: int
) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    for name, value in filters.items():
        if value is None:
            continue
        if name == "from":
            conditions.append(time >= -(-_moment_us(name, value) // unit_us))
        elif name == "to":
            conditions.append(time < -(-_moment_us(name, value) // unit_us))
        elif name in known:
            conditions.append(table.c[name] == value)
        else:
            raise ValueError(f"{name!r} is no filter here; known are {', '.join(known)}, from, to")
    return conditions


def _moment_us(name: str, value: Any) -> int:
    if not isinstance(value, datetime):
        raise ValueError(f"{name} must be a moment, not {type(value).__name__}")
    return micros(value)


def _event(row: RowMapping) -> dict[str, Any]:
    event = {name: row[name] for name in FIELDS}
    event["cost_usd"] = None if row["cost_pico"] is None else usd_text(row["cost_pico"])
    return event | {name: None if row[name] is None else utc_text(row[name]) for name in TIMES}


def _sums(row: RowMapping, group_by: Sequence[str]) -> dict[str, Any]:
    group = {name: row[f"group_{name}"] for name in group_by}
    if "day" in group:
        group["day"] = utc_text(group["day"] * DAY_US)[:10]
    sums = {name: int(row[name]) for name in ("requests", "attempts", *TOKENS)}
    cost = int(row["cost_high"]) * HALF + int(row["cost_low"])
    return group | sums | {"cost_usd": usd_text(cost)}
