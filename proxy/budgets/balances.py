"""Counters read without moving them: what an agent or an admin is shown as used, held and left."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from proxy.budgets.keys import ShardKeys
from proxy.budgets.scripts import Connection


class RedisBalances:
    """Implements `Balances` on a connection of any kind. Raises `StoreAway`."""

    def __init__(self, connection: Connection, shards: int) -> None:
        self._connection = connection
        self._shards = [ShardKeys(number) for number in range(shards)]

    async def balances(self, shard: int, names: Sequence[str]) -> Sequence[tuple[int, int]]:
        """(used, held) of each counter, zero where it has not been touched."""
        prefix = self._shards[shard].counters
        asked = (self._connection.send(("HMGET", prefix + name, "used", "held")) for name in names)
        return [(int(used or 0), int(held or 0)) for used, held in await asyncio.gather(*asked)]
