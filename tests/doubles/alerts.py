"""Alerts and webhooks in memory, as the admin plane sees them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from proxy.billing.alerts import Delivery, EndpointDisabled, WebhookEndpoint
from proxy.billing.ports import AlreadyExists, NotFound, Page
from proxy.domain.deeds import Deed, by_the_gate
from tests.doubles.directory import NOW, page

ALERT: dict[str, Any] = {
    "id": "alr_1",
    "type": "budget.threshold_reached",
    "raised_at": NOW,
    "customer_id": "acme",
    "subject": "customer",
    "budget_id": "monthly-tokens",
    "threshold": "80%",
    "window_start": NOW,
    "window_end": NOW + timedelta(days=30),
    "data": {"customer_id": "acme", "budget_id": "monthly-tokens", "threshold": "80%", "used": 800, "limit": 1000},
}


class MemoryAlerts:
    def __init__(self) -> None:
        self.kept = [ALERT]
        self.asked: Mapping[str, Any] = {}

    async def alerts(self, filters: Mapping[str, Any], limit: int, cursor: str | None) -> Page[Any]:
        self.asked = filters
        return page(self.kept, limit, cursor)

    async def alert(self, id: str) -> Mapping[str, Any]:
        found = next((alert for alert in self.kept if alert["id"] == id), None)
        if found is None:
            raise NotFound("alert", id)
        return found


class MemoryWebhooks:
    def __init__(self) -> None:
        self.kept: dict[str, WebhookEndpoint] = {}
        self.sent: dict[str, Delivery] = {}
        self.asked: Mapping[str, Any] = {}
        self.deed = by_the_gate("tests")
        self._numbers = itertools.count(1)

    def by(self, deed: Deed) -> MemoryWebhooks:
        bound = copy.copy(self)
        bound.deed = deed
        return bound

    async def create_endpoint(self, fields: Mapping[str, Any]) -> WebhookEndpoint:
        id = fields["id"] or f"whe_{next(self._numbers)}"
        if id in self.kept:
            raise AlreadyExists("webhook endpoint", id)
        url, events, description = fields["url"], tuple(fields["events"]), fields["description"]
        customer_id = fields["customer_id"]
        self.kept[id] = WebhookEndpoint(
            id, url, events, description, customer_id, True, None, "salt", None, None, NOW
        )
        return self.kept[id]

    async def endpoints(self, limit: int, cursor: str | None) -> Page[WebhookEndpoint]:
        return page(self.kept.values(), limit, cursor)

    async def endpoint(self, id: str) -> WebhookEndpoint:
        if id not in self.kept:
            raise NotFound("webhook endpoint", id)
        return self.kept[id]

    async def change_endpoint(self, id: str, changes: Mapping[str, Any]) -> WebhookEndpoint:
        before = await self.endpoint(id)
        self.deed.require(before)
        self.kept[id] = replace(before, **{**changes, "events": tuple(changes.get("events", before.events))})
        return self.kept[id]

    async def delete_endpoint(self, id: str) -> None:
        self.deed.require(await self.endpoint(id))
        del self.kept[id]

    async def rotate_secret(self, id: str) -> WebhookEndpoint:
        before = await self.endpoint(id)
        self.kept[id] = replace(before, salt="new salt", previous_salt=before.salt, rotated_at=NOW)
        return self.kept[id]

    async def send_test(self, id: str) -> Delivery:
        if not (await self.endpoint(id)).enabled:
            raise EndpointDisabled(id)
        body = '{"type":"webhook.test"}'
        sent = Delivery(
            f"dlv_{next(self._numbers)}",
            id,
            "tst_1",
            "webhook.test",
            body,
            "delivered",
            1,
            NOW,
            None,
            NOW,
            200,
            None,
        )
        self.sent[sent.id] = sent
        return sent

    async def deliveries(self, filters: Mapping[str, Any], limit: int, cursor: str | None) -> Page[Delivery]:
        self.asked = filters
        return page(self.sent.values(), limit, cursor)

    async def delivery(self, id: str) -> Delivery:
        if id not in self.sent:
            raise NotFound("webhook delivery", id)
        return self.sent[id]

    async def replay(self, id: str) -> Delivery:
        before = await self.delivery(id)
        if not (await self.endpoint(before.endpoint_id)).enabled:
            raise EndpointDisabled(before.endpoint_id)
        self.sent[id] = replace(before, status="pending", attempts=0, next_at=NOW)
        return self.sent[id]
