"""A shard to try things on: a customer, builders with defaults, and a clock that the test turns."""

from __future__ import annotations

import json
from typing import Any

from redis.asyncio import Redis

from proxy.budgets.hot_connection import HotConnection
from proxy.budgets.keys import ShardKeys, secret_field
from proxy.budgets.redis_budgets import RedisBudgets
from proxy.domain.policy import Budget, RateLimits
from proxy.domain.reservations import Counter, Hold, Reservation, Settlement

SHARD = 5
KEYS = ShardKeys(SHARD)
LEASE_US = 60_000_000

# Far ahead of any real clock: the scripts go by the later of the two, so here the test's clock counts.
NOW_US = 4_000_000_000_000_000


def counter(meter: str = "tokens", limit: int = 100, starts_us: int = 0, ends_us: int | None = None) -> Counter:
    return Counter(f"acme:{meter}:{starts_us}", Budget(f"{meter}-budget", meter, limit), starts_us, ends_us)


class Books:
    """One shard of a real store, opened, with the customer `acme` and its secret `sec_1`."""

    def __init__(self, redis: Redis, connection: HotConnection) -> None:
        self.redis = redis
        self.connection = connection
        self.budgets = RedisBudgets(connection, 16)

    async def open(self) -> None:
        await self.budgets.open_shards("epoch-1")
        await self.redis.hset(KEYS.customer("acme"), mapping={"rev": 3, secret_field("sec_1"): 0})
        await self.redis.hset(KEYS.shard, mapping={"policy": 2})
        await self.turn_clock(NOW_US)

    async def turn_clock(self, now_us: int) -> None:
        await self.redis.hset(KEYS.shard, "clock_us", now_us)

    async def balance(self, of: Counter) -> tuple[int, int]:
        used, held = await self.redis.hmget(KEYS.counter(of.name), "used", "held")
        return int(used or 0), int(held or 0)

    async def events(self) -> list[dict[str, str]]:
        rows = await self.redis.xrange(KEYS.events)
        return [{name.decode(): text.decode() for name, text in fields.items()} for _, fields in rows]

    async def everything(self) -> dict[str, Any]:
        """Every key of the store with its value, to show that nothing was written."""
        return {key: await self.redis.dump(key) for key in sorted(await self.redis.keys("*"))}


def reservation(ref: str = "req_1:1", *holds: tuple[Counter, int], **changes: Any) -> Reservation:
    fields: dict[str, Any] = {
        "ref": ref,
        "customer_id": "acme",
        "shard": SHARD,
        "secret_id": "sec_1",
        "customer_revision": 3,
        "policy_revision": 2,
        "first": True,
        "holds": tuple(Hold(of, amount) for of, amount in (holds or ((counter(), 10),))),
        "limits": RateLimits(),
        "rate_tokens": 0,
        "record": b'{"model":"a|b"}',
    }
    return Reservation(**(fields | changes))


def settlement(ref: str = "req_1:1", *charges: tuple[Counter, int], **changes: Any) -> Settlement:
    charges = charges or ((counter(), 7),)
    fields: dict[str, Any] = {
        "ref": ref,
        "customer_id": "acme",
        "shard": SHARD,
        "counters": tuple(of for of, _ in charges),
        "amounts": tuple(amount for _, amount in charges),
        "rate_tokens": 0,
        "limits": RateLimits(),
        "usage": (4, 3, 1_000),
        "event": json.dumps({"id": ref}).encode(),
    }
    return Settlement(**(fields | changes))
