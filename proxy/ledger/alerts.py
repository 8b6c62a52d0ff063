"""Alerts as they are raised: each once, whoever raises it and however often, and with it its deliveries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import ColumnElement, RowMapping, and_, func, insert, or_, select, text, type_coerce
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.types import BigInteger

from proxy.billing.ports import NotFound, Page
from proxy.domain.alerts import Alert
from proxy.domain.ids import new_id
from proxy.gateway.ports import Clock
from proxy.ledger.alert_tables import alerts, webhook_deliveries, webhook_endpoints
from proxy.ledger.engine import reading, writing
from proxy.ledger.paging import after, page_of
from proxy.ledger.tables import micros, moment, utc_text

# See ADVISORY_LOCK of migrate.py for what the number is.
TURN_LOCK = 32734287
ID_BYTES = 8


@dataclass(frozen=True, slots=True)
class SqlAlerts:
    """Implements `Alerts`, and raises them. `random_bytes` is a cryptographic source."""

    engine: AsyncEngine
    clock: Clock
    random_bytes: Callable[[int], bytes]

    async def raise_all(self, raised: Sequence[Alert]) -> list[str]:
        """The types of those that nobody had raised before."""
        async with writing(self.engine) as connection:
            return await self.raise_in(connection, raised)

    async def raise_turn(self, alert: Alert, opposite: str) -> bool:
        """Raises an alert that undoes, and is undone by, `opposite`: not twice in a row for one subject, and as
        the first only bad news. True if it was raised."""
        async with writing(self.engine) as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": TURN_LOCK})
            last = select(alerts.c.type).where(
                alerts.c.subject == alert.subject, alerts.c.type.in_([alert.type, opposite])
            )
            newest = await connection.scalar(last.order_by(alerts.c.raised_at.desc(), alerts.c.id.desc()).limit(1))
            if newest == alert.type or (newest is None and alert.type == "upstream.up"):
                return False
            return bool(await self.raise_in(connection, [alert]))

    async def down_upstreams(self) -> list[tuple[str, str]]:
        """(upstream, model) of those that the last alert says to be down."""
        of_upstreams = alerts.c.type.in_(["upstream.down", "upstream.up"])
        latest = select(alerts.c.subject, func.max(alerts.c.raised_at).label("at")).where(of_upstreams)
        newest = latest.group_by(alerts.c.subject).subquery()
        wanted = (
            select(alerts.c.data)
            .join(newest, and_(newest.c.subject == alerts.c.subject, newest.c.at == alerts.c.raised_at))
            .where(alerts.c.type == "upstream.down")
        )
        async with reading(self.engine) as connection:
            return [(data["upstream"], data["model"]) for data in (await connection.execute(wanted)).scalars()]

    async def raise_in(self, connection: AsyncConnection, raised: Sequence[Alert]) -> list[str]:
        """In a transaction of the caller's, which also notes how far it has looked."""
        new: list[str] = []
        now = moment(self.clock.now_us())
        conflict = postgres_insert if connection.dialect.name == "postgresql" else sqlite_insert
        # In one order everywhere: two keepers that raise the same must not wait for each other in a circle.
        for alert in sorted(raised, key=lambda alert: alert.key):
            row = self._row(alert, now)
            put = conflict(alerts).values(**row).on_conflict_do_nothing(index_elements=[alerts.c.key])
            if (await connection.execute(put.returning(alerts.c.id))).first() is not None:
                new.append(alert.type)
                await self._queue(connection, row, now)
        return new

    async def alerts(self, filters: Mapping[str, Any], limit: int, cursor: str | None) -> Page[Mapping[str, Any]]:
        key = (type_coerce(alerts.c.raised_at, BigInteger), alerts.c.id)
        wanted = select(alerts).order_by(*(column.desc() for column in key)).limit(limit + 1)
        for name, condition in _FILTERS.items():
            if name in filters:
                wanted = wanted.where(condition(filters[name]))
        if cursor is not None:
            wanted = wanted.where(after(key, cursor, newest_first=True))
        async with reading(self.engine) as connection:
            rows = (await connection.execute(wanted)).mappings().all()
        page = page_of(rows, limit, lambda row: (micros(row["raised_at"]), row["id"]))
        return Page([_shown(row) for row in page.data], page.next_cursor)

    async def alert(self, id: str) -> Mapping[str, Any]:
        async with reading(self.engine) as connection:
            row = (await connection.execute(select(alerts).where(alerts.c.id == id))).mappings().first()
        if row is None:
            raise NotFound("alert", id)
        return _shown(row)

    def _row(self, alert: Alert, now: datetime) -> dict[str, Any]:
        end = None if alert.window_end_us is None else moment(alert.window_end_us)
        return {
            "id": self.new_id("alr"),
            "key": alert.key,
            "type": alert.type,
            "raised_at": now,
            "customer_id": alert.customer_id,
            "subject": alert.subject,
            "budget_id": alert.budget_id,
            "threshold": alert.threshold,
            "window_start": None if alert.window_start_us is None else moment(alert.window_start_us),
            "window_end": end,
            "renews_at": end if alert.renews else None,
            "data": dict(alert.data),
        }

    async def _queue(self, connection: AsyncConnection, row: Mapping[str, Any], now: datetime) -> None:
        theirs = webhook_endpoints.c.customer_id == row["customer_id"]
        wanted = select(webhook_endpoints.c.id, webhook_endpoints.c.events).where(
            webhook_endpoints.c.enabled, or_(webhook_endpoints.c.customer_id.is_(None), theirs)
        )
        body = message(row["type"], now, row["data"])
        deliveries = [
            queued(self.new_id("dlv"), endpoint.id, row["id"], row["type"], body, now)
            for endpoint in await connection.execute(wanted.order_by(webhook_endpoints.c.id))
            if "*" in endpoint.events or row["type"] in endpoint.events
        ]
        if deliveries:
            await connection.execute(insert(webhook_deliveries), deliveries)

    def new_id(self, prefix: str) -> str:
        return new_id(prefix, self.clock.now_us() // 1000, self.random_bytes(ID_BYTES))


def message(type: str, at: datetime, data: Mapping[str, Any]) -> str:
    """What is signed and sent, by Standard Webhooks."""
    return orjson.dumps({"type": type, "timestamp": utc_text(micros(at)), "data": data}).decode()


def queued(id: str, endpoint_id: str, message_id: str, type: str, body: str, now: datetime) -> dict[str, Any]:
    """The row of a delivery that is due at once."""
    return {
        "id": id,
        "endpoint_id": endpoint_id,
        "message_id": message_id,
        "type": type,
        "body": body,
        "status": "pending",
        "attempts": 0,
        "created_at": now,
        "next_at": now,
    }


def _shown(row: RowMapping) -> dict[str, Any]:
    return {name: row[name] for name in _SHOWN}


_SHOWN = (
    "id",
    "type",
    "raised_at",
    "customer_id",
    "subject",
    "budget_id",
    "threshold",
    "window_start",
    "window_end",
    "data",
)

_FILTERS: dict[str, Callable[[Any], ColumnElement[bool]]] = {
    "type": lambda value: alerts.c.type == value,
    "customer_id": lambda value: alerts.c.customer_id == value,
    "budget_id": lambda value: alerts.c.budget_id == value,
    "from": lambda value: alerts.c.raised_at >= value,
    "to": lambda value: alerts.c.raised_at < value,
}
