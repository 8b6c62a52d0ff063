"""Webhook endpoints, and what is delivered to them, as the admin plane sees and changes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import RowMapping, delete, insert, select, type_coerce, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import BigInteger

from proxy.billing.alerts import Delivery, EndpointDisabled, WebhookEndpoint
from proxy.billing.ports import AlreadyExists, NotFound, Page
from proxy.domain.deeds import Deed, by_the_gate
from proxy.ledger.alert_tables import webhook_deliveries, webhook_endpoints
from proxy.ledger.alerts import SqlAlerts, message, queued
from proxy.ledger.audit_log import audit
from proxy.ledger.engine import reading, writing
from proxy.ledger.paging import after, page_of
from proxy.ledger.tables import customers, micros, moment

SALT_BYTES = 16
TEST = "webhook.test"


class SqlWebhooks:
    """Implements `Webhooks`."""

    def __init__(self, alerts: SqlAlerts, deed: Deed | None = None) -> None:
        self._alerts, self._engine = alerts, alerts.engine
        self._deed = deed or by_the_gate("webhooks")

    def by(self, deed: Deed) -> SqlWebhooks:
        return SqlWebhooks(self._alerts, deed)

    async def create_endpoint(self, fields: Mapping[str, Any]) -> WebhookEndpoint:
        made = WebhookEndpoint(
            id=fields.get("id") or self._alerts.new_id("whe"),
            url=fields["url"],
            events=tuple(fields["events"]),
            description=fields.get("description"),
            customer_id=fields.get("customer_id"),
            enabled=True,
            disabled_reason=None,
            salt=self._salt(),
            previous_salt=None,
            rotated_at=None,
            created_at=moment(self._alerts.clock.now_us()),
        )
        async with writing(self._engine) as connection:
            if made.customer_id is not None:
                await _must_be_there(connection, made.customer_id)
            try:
                await connection.execute(insert(webhook_endpoints).values(**_row(made)))
            except IntegrityError:
                raise AlreadyExists("webhook endpoint", made.id) from None
            await self._audit(connection, made.id, None, made)
        return made

    async def endpoints(self, limit: int, cursor: str | None) -> Page[WebhookEndpoint]:
        """Oldest first."""
        key = (type_coerce(webhook_endpoints.c.created_at, BigInteger), webhook_endpoints.c.id)
        wanted = select(webhook_endpoints).order_by(*key).limit(limit + 1)
        if cursor is not None:
            wanted = wanted.where(after(key, cursor, newest_first=False))
        async with reading(self._engine) as connection:
            rows = (await connection.execute(wanted)).mappings().all()
        page = page_of(rows, limit, lambda row: (micros(row["created_at"]), row["id"]))
        return Page([endpoint_of(row) for row in page.data], page.next_cursor)

    async def endpoint(self, id: str) -> WebhookEndpoint:
        async with reading(self._engine) as connection:
            return await _endpoint(connection, id)

    async def change_endpoint(self, id: str, changes: Mapping[str, Any]) -> WebhookEndpoint:
        """Of `url, events, description, enabled`. Enabling it forgets why it was disabled."""

        def changed(before: WebhookEndpoint) -> WebhookEndpoint:
            given = dict(changes)
            if "events" in given:
                given["events"] = tuple(given["events"])
            if "enabled" in given:
                given["disabled_reason"] = None
            return replace(before, **given)

        return await self._rewrite(id, changed)

    async def rotate_secret(self, id: str) -> WebhookEndpoint:
        """The secret of before is signed with, too, for a while."""
        now = moment(self._alerts.clock.now_us())
        return await self._rewrite(
            id, lambda before: replace(before, salt=self._salt(), previous_salt=before.salt, rotated_at=now)
        )

    async def delete_endpoint(self, id: str) -> None:
        async with writing(self._engine) as connection:
            before = await _endpoint(connection, id, locked=True)
            await connection.execute(delete(webhook_deliveries).where(webhook_deliveries.c.endpoint_id == id))
            await connection.execute(delete(webhook_endpoints).where(webhook_endpoints.c.id == id))
            await self._audit(connection, id, before, None)

    async def send_test(self, id: str) -> Delivery:
        now = moment(self._alerts.clock.now_us())
        body = message(TEST, now, {"endpoint_id": id})
        row = queued(self._alerts.new_id("dlv"), id, self._alerts.new_id("tst"), TEST, body, now)
        async with writing(self._engine) as connection:
            endpoint = await _endpoint(connection, id)
            if not endpoint.enabled:
                raise EndpointDisabled(id)
            await connection.execute(insert(webhook_deliveries).values(**row))
            # It changes nothing, but an idempotency key wants to be told that it is done.
            await self._audit(connection, id, endpoint, endpoint)
            return await _delivery(connection, row["id"])

    async def deliveries(self, filters: Mapping[str, Any], limit: int, cursor: str | None) -> Page[Delivery]:
        key = (type_coerce(webhook_deliveries.c.created_at, BigInteger), webhook_deliveries.c.id)
        wanted = select(webhook_deliveries).order_by(*(column.desc() for column in key)).limit(limit + 1)
        for name, value in filters.items():
            wanted = wanted.where(webhook_deliveries.c[name] == value)
        if cursor is not None:
            wanted = wanted.where(after(key, cursor, newest_first=True))
        async with reading(self._engine) as connection:
            rows = (await connection.execute(wanted)).mappings().all()
        page = page_of(rows, limit, lambda row: (micros(row["created_at"]), row["id"]))
        return Page([delivery_of(row) for row in page.data], page.next_cursor)

    async def delivery(self, id: str) -> Delivery:
        async with reading(self._engine) as connection:
            return await _delivery(connection, id)

    async def replay(self, id: str) -> Delivery:
        now = moment(self._alerts.clock.now_us())
        async with writing(self._engine) as connection:
            before = await _delivery(connection, id, locked=True)
            endpoint = await _endpoint(connection, before.endpoint_id)
            if not endpoint.enabled:
                raise EndpointDisabled(endpoint.id)
            # What is under way keeps its claim, and is delivered by whoever has it.
            idle = webhook_deliveries.c.claim.is_(None)
            again = update(webhook_deliveries).where(webhook_deliveries.c.id == id, idle)
            fresh: dict[str, Any] = {} if before.status == "pending" else {"attempts": 0}
            await connection.execute(again.values(status="pending", next_at=now, **fresh))
            after = await _delivery(connection, id)
            deed = replace(self._deed, precondition=None)
            await audit(connection, deed, now, "webhook_delivery", id, _audited(before), _audited(after))
        return after

    async def _rewrite(self, id: str, changed: Callable[[WebhookEndpoint], WebhookEndpoint]) -> WebhookEndpoint:
        async with writing(self._engine) as connection:
            before = await _endpoint(connection, id, locked=True)
            now = changed(before)
            await connection.execute(
                update(webhook_endpoints).where(webhook_endpoints.c.id == id).values(**_row(now))
            )
            await self._audit(connection, id, before, now)
        return now

    async def _audit(
        self, connection: AsyncConnection, id: str, before: WebhookEndpoint | None, after: WebhookEndpoint | None
    ) -> None:
        now = moment(self._alerts.clock.now_us())
        await audit(connection, self._deed, now, "webhook_endpoint", id, before, after)

    def _salt(self) -> str:
        return self._alerts.random_bytes(SALT_BYTES).hex()


def endpoint_of(row: RowMapping) -> WebhookEndpoint:
    return WebhookEndpoint(**{**row, "events": tuple(row["events"])})


def delivery_of(row: RowMapping) -> Delivery:
    return Delivery(**{name: value for name, value in row.items() if name != "claim"})


def _row(endpoint: WebhookEndpoint) -> dict[str, Any]:
    row = {name: getattr(endpoint, name) for name in WebhookEndpoint.__slots__}
    return {**row, "events": list(endpoint.events)}


def _audited(delivery: Delivery) -> dict[str, Any]:
    return {"status": delivery.status, "attempts": delivery.attempts}


async def _endpoint(connection: AsyncConnection, id: str, *, locked: bool = False) -> WebhookEndpoint:
    wanted = select(webhook_endpoints).where(webhook_endpoints.c.id == id)
    row = (await connection.execute(wanted.with_for_update() if locked else wanted)).mappings().first()
    if row is None:
        raise NotFound("webhook endpoint", id)
    return endpoint_of(row)


async def _delivery(connection: AsyncConnection, id: str, *, locked: bool = False) -> Delivery:
    wanted = select(webhook_deliveries).where(webhook_deliveries.c.id == id)
    row = (await connection.execute(wanted.with_for_update() if locked else wanted)).mappings().first()
    if row is None:
        raise NotFound("webhook delivery", id)
    return delivery_of(row)


async def _must_be_there(connection: AsyncConnection, customer_id: str) -> None:
    found = await connection.execute(select(customers.c.id).where(customers.c.id == customer_id))
    if found.first() is None:
        raise NotFound("customer", customer_id)
