"""Endpoints and deliveries to try things with."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

from proxy.billing.alerts import Delivery, WebhookEndpoint

NOW = datetime(2026, 11, 20, tzinfo=UTC)


class RealClock:
    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_us(self) -> int:
        return round(asyncio.get_running_loop().time() * 1_000_000)

    def store_now_us(self) -> int:
        return self.now_us()

    def store_said(self, now_us: int) -> None: ...


def endpoint_at(url: str, id: str = "home") -> WebhookEndpoint:
    return WebhookEndpoint(id, url, ("*",), None, None, True, None, "salt", None, None, NOW)


def delivery_of(number: int = 1, endpoint_id: str = "home") -> Delivery:
    body = '{"type":"webhook.test","timestamp":"2026-11-20T00:00:00Z","data":{}}'
    return Delivery(
        f"dlv_{number}",
        endpoint_id,
        f"alr_{number}",
        "webhook.test",
        body,
        "pending",
        0,
        NOW,
        NOW,
        None,
        None,
        None,
    )
