"""Counters read without moving them: what an agent or an admin is shown as used, held and left."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from proxy.budgets.keys import ShardKeys
from proxy.budgets.scripts import Connection
from proxy.domain.balances import Tally


class RedisBalances:
    """Implements `Balances` on a connection of any kind. Raises `StoreAway`."""

    def __init__(self, connection: Connection, shards: int) -> None:
        self._connection = connection
        self._shards = [ShardKeys(number) for number in range(shards)]

    async def tallies(self, shard: int, names: Sequence[str]) -> Mapping[str, Tally]:
        """Each counter by its name, complete."""
        prefix, send = self._shards[shard].counters, self._connection.send
        asked = (send(("HMGET", prefix + name, "used", "held", "carry", "users")) for name in names)
        return {name: _tally(*found) for name, found in zip(names, await asyncio.gather(*asked), strict=True)}

    async def balances(self, shard: int, names: Sequence[str]) -> Sequence[tuple[int, int]]:
        """(used, held) of each counter, zero where it has not been touched."""
        prefix = self._shards[shard].counters
        asked = (self._connection.send(("HMGET", prefix + name, "used", "held")) for name in names)
        return [(int(used or 0), int(held or 0)) for used, held in await asyncio.gather(*asked)]


def _tally(used: bytes | None, held: bytes | None, carry: bytes | None, users: bytes | None) -> Tally:
    return Tally(
        int(used or 0), int(held or 0), None if carry is None else int(carry), int(users or 0), used is not None
    )
