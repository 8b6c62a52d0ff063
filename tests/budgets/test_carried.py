from __future__ import annotations

from redis.asyncio import Redis

from proxy.budgets.carried import CarriedOver
from proxy.budgets.hot_connection import HotConnection
from proxy.budgets.keys import ShardKeys

CARRIED, FRESH = "acme/customer/b/tokens/P1M/5", "acme/customer/b/tokens/P1M/6"


async def test_what_was_carried_over_is_read_where_the_admission_has_put_it(
    connection: HotConnection, store: Redis
) -> None:
    """Alerts are shares of what may be used, and what the window before has left is part of it."""
    keys = ShardKeys(1)
    await store.hset(keys.counter(CARRIED), mapping={"used": 3, "held": 0, "carry": 500})
    await store.hset(keys.counter(FRESH), mapping={"used": 3, "held": 0})

    asked = [CARRIED, FRESH, "acme/customer/b/tokens/P1M/7"]
    assert await CarriedOver(connection, 4).amounts(1, asked) == [500, 0, 0]
    assert await CarriedOver(connection, 4).amounts(1, []) == []
