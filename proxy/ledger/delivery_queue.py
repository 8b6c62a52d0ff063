"""The queue of webhook deliveries: claimed under a lease, so that no attempt is ever made by two at once.

A claim moves `next_at` to the lease's end. Whoever dies with it leaves a delivery that is due again then; whoever
comes back later than that finds the claim no longer its own, and writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from proxy.billing.alerts import Delivery, Outcome, WebhookEndpoint
from proxy.domain.deeds import by_the_gate
from proxy.ledger.alert_tables import webhook_deliveries, webhook_endpoints
from proxy.ledger.audit_log import audit
from proxy.ledger.engine import reading, writing
from proxy.ledger.tables import moment
from proxy.ledger.webhooks import delivery_of, endpoint_of

# Of one endpoint's that fill it, the next look passes over, since the endpoint is busy by then.
LOOKED_AT = 200
GONE = "it answered 410 Gone"
FORGOTTEN_AT_ONCE = 1000
COURIER = by_the_gate("webhooks")

_D = webhook_deliveries.c


@dataclass(frozen=True, slots=True)
class SqlDeliveryQueue:
    """Implements `DeliveryQueue`. `new_claim` makes a text that is never made again."""

    engine: AsyncEngine
    new_claim: Callable[[], str]

    async def claim(
        self, most: int, of_each: int, busy: Mapping[str, int], now_us: int, lease_us: int
    ) -> Sequence[tuple[Delivery, WebhookEndpoint, str]]:
        chosen = await self._choose(most, of_each, busy, now_us)
        if not chosen:
            return []
        claim, until = self.new_claim(), moment(now_us + lease_us)
        async with writing(self.engine) as connection:
            # Whoever was quicker has moved `next_at`, which the database looks at again under the row's lock.
            ours = update(webhook_deliveries).where(_D.id.in_(chosen), _D.next_at <= moment(now_us))
            rows = await connection.execute(ours.values(next_at=until, claim=claim).returning(webhook_deliveries))
            deliveries = [delivery_of(row) for row in rows.mappings()]
            endpoints = await _endpoints(connection, {delivery.endpoint_id for delivery in deliveries})
        return [
            (delivery, endpoints[delivery.endpoint_id], claim)
            for delivery in deliveries
            if delivery.endpoint_id in endpoints
        ]

    async def finish(
        self, delivery: Delivery, claim: str, outcome: Outcome, now_us: int, next_us: int | None
    ) -> bool:
        delivered = outcome.error is None
        status = "delivered" if delivered else "dead" if next_us is None else "pending"
        values = {
            "status": status,
            "attempts": delivery.attempts + 1,
            "next_at": moment(next_us) if status == "pending" and next_us is not None else None,
            "claim": None,
            "last_attempt_at": moment(now_us),
            "last_status": outcome.status,
            "last_error": outcome.error,
        }
        ours = update(webhook_deliveries).where(_D.id == delivery.id, _D.claim == claim)
        async with writing(self.engine) as connection:
            if (await connection.execute(ours.values(**values))).rowcount == 0:
                return False
            if outcome.gone:
                await _disable(connection, delivery.endpoint_id, now_us)
        return True

    async def lengths(self) -> tuple[int, int]:
        counted = select(_D.status, func.count()).where(_D.status != "delivered").group_by(_D.status)
        async with reading(self.engine) as connection:
            lengths = {status: int(count) for status, count in await connection.execute(counted)}
        return lengths.get("pending", 0), lengths.get("dead", 0)

    async def forget_delivered(self, before_us: int) -> int:
        old = select(_D.id).where(_D.status == "delivered", _D.created_at < moment(before_us))
        gone = delete(webhook_deliveries).where(_D.id.in_(old.limit(FORGOTTEN_AT_ONCE)))
        async with writing(self.engine) as connection:
            return int((await connection.execute(gone)).rowcount)

    async def _choose(self, most: int, of_each: int, busy: Mapping[str, int], now_us: int) -> list[str]:
        full = [endpoint_id for endpoint_id, count in busy.items() if count >= of_each]
        wanted = (
            select(_D.id, _D.endpoint_id)
            .join(webhook_endpoints, webhook_endpoints.c.id == _D.endpoint_id)
            .where(_D.next_at <= moment(now_us), webhook_endpoints.c.enabled, _D.endpoint_id.not_in(full))
            .order_by(_D.next_at, _D.id)
            .limit(LOOKED_AT)
        )
        chosen: list[str] = []
        taken = Counter(busy)
        async with reading(self.engine) as connection:
            for id, endpoint_id in await connection.execute(wanted):
                if len(chosen) < most and taken[endpoint_id] < of_each:
                    taken[endpoint_id] += 1
                    chosen.append(id)
        return chosen


async def _disable(connection: AsyncConnection, id: str, now_us: int) -> None:
    its = webhook_endpoints.c.id == id
    row = (await connection.execute(select(webhook_endpoints).where(its).with_for_update())).mappings().first()
    if row is not None:
        before = endpoint_of(row)
        off = replace(before, enabled=False, disabled_reason=GONE)
        await connection.execute(update(webhook_endpoints).where(its).values(enabled=False, disabled_reason=GONE))
        await audit(connection, COURIER, moment(now_us), "webhook_endpoint", id, before, off)


async def _endpoints(connection: AsyncConnection, ids: set[str]) -> dict[str, WebhookEndpoint]:
    wanted = select(webhook_endpoints).where(webhook_endpoints.c.id.in_(ids))
    return {row["id"]: endpoint_of(row) for row in (await connection.execute(wanted)).mappings()}
