"""Business on a real store and a real ledger: reservations settled, and their events recorded."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.app.store import Store
from proxy.budgets.event_stream import RedisEventStream
from proxy.budgets.keys import ShardKeys, secret_field
from proxy.domain.policy import Budget, RateLimits
from proxy.domain.reservations import Counter, Held, Hold, Reservation, Settlement
from proxy.domain.usage_events import FIELDS
from proxy.ledger.writer import LedgerWriter

SHARD = 2
KEYS = ShardKeys(SHARD)
NAME = "acme/customer/b/tokens/lifetime/0"
COUNTER = Counter(NAME, Budget("b", "tokens", 1000, "lifetime"), 0, None)
TEXTS = {"request_id", "customer_id", "agent_id", "agent_type_id", "plan_id", "endpoint", "model"}


class Clock:
    """Stands still."""

    us = 1_795_200_000_000_000

    def now_us(self) -> int:
        return self.us

    def monotonic_us(self) -> int:
        return self.us

    def store_now_us(self) -> int:
        return self.us

    def store_said(self, now_us: int) -> None: ...


class Business:
    """A customer of shard 2, whose attempts use 7 tokens of 10 held."""

    def __init__(self, store: Store, engine: AsyncEngine) -> None:
        self.store, self.engine, self.clock = store, engine, Clock()
        self.writer = LedgerWriter(RedisEventStream(store.cold_blocking, 4), engine, self.clock, "writer")

    async def reserve(self, number: int, amount: int = 10) -> None:
        await self.store.cold.hset(KEYS.customer("acme"), mapping={"rev": 1, secret_field("sec"): 0})
        reservation = Reservation(
            f"req_{number}:1", "acme", SHARD, "sec", 1, 0, True, (Hold(COUNTER, amount),), RateLimits(), 0, b"{}"
        )
        assert isinstance(await self.store.budgets.reserve(reservation), Held)

    async def settle(self, number: int, used: int = 7) -> None:
        settlement = Settlement(
            f"req_{number}:1", "acme", SHARD, (COUNTER,), (used,), 0, RateLimits(), (5, used, 0), event(number)
        )
        assert (await self.store.budgets.settle(settlement)).outcome == "settled"

    async def attempts(self, *numbers: int) -> None:
        """Reserved, settled and recorded."""
        for number in numbers:
            await self.reserve(number)
            await self.settle(number)
        await self.writer.drain()

    async def balance(self, counter: str = NAME) -> tuple[int, int]:
        used, held = await self.store.cold.hmget(KEYS.counter(counter), "used", "held")
        return int(used or 0), int(held or 0)


def event(number: int) -> bytes:
    fields: dict[str, Any] = dict.fromkeys(FIELDS)
    fields |= dict.fromkeys(TEXTS, "x") | {"request_id": f"req_{number}", "customer_id": "acme"}
    fields |= {name: 0 for name in FIELDS if name.endswith("_tokens")}
    fields |= {
        "attempt": 1, "plan_version": 1, "streamed": False, "status": "succeeded", "usage_source": "provider",
        "held": [{"budget_id": "b", "window_start": 0, "grant_id": None, "amount": 10}], "charged": [],
        "admitted_at": Clock.us, "billable": True, "seq": 0, "late": False, "disputed": False, "kind": "terminal",
    }  # fmt: skip
    return json.dumps(fields).encode()
