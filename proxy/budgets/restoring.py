"""Counters brought back from what was recorded, for shards of a Redis that has lost its data.

Order is the guarantee: counters first, `seq` with them, the epoch last. Until a shard has an epoch every script
answers `closed`, so nothing is ever admitted against counters that are not known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from proxy.budgets.keys import ShardKeys
from proxy.budgets.scripts import Connection
from proxy.domain.windows import LIFETIME, parse_duration

BATCH = 500
# As `reserve` keeps a counter: the window, and 35 days for late settles.
KEPT_US = 35 * 86_400_000_000


class ShardBooks:
    """Reads epochs and sequence numbers, and restores shards. Raises `StoreAway`."""

    def __init__(self, connection: Connection, shards: int) -> None:
        self._connection = connection
        self._keys = [ShardKeys(number) for number in range(shards)]

    async def blank(self) -> list[int]:
        """The shards that have no epoch: new, flushed, or not yet restored."""
        asked = (self._connection.send(("HGET", keys.shard, "epoch")) for keys in self._keys)
        return [number for number, epoch in enumerate(await asyncio.gather(*asked)) if epoch is None]

    async def seq(self, shard: int) -> int:
        return int(await self._connection.send(("HGET", self._keys[shard].shard, "seq")) or 0)

    async def restore(self, shard: int, charged: Mapping[str, int], seq: int, epoch: str) -> int:
        """Opens a blank shard with these counters; returns how many were still of use.

        Counters whose window has passed are left out. What a script may have counted in between cannot be:
        without an epoch it counts nothing.
        """
        keys, send = self._keys[shard], self._connection.send
        seconds, micros = await send(("TIME",))
        now_us = int(seconds) * 1_000_000 + int(micros)
        live = [
            (name, amount, expires)
            for name, amount in charged.items()
            if (expires := _expires_us(name)) is None or expires > now_us
        ]
        for first in range(0, len(live), BATCH):
            batch = live[first : first + BATCH]
            await asyncio.gather(*(send(("HSET", keys.counter(n), "used", a, "held", 0)) for n, a, _ in batch))
            await asyncio.gather(
                *(send(("PEXPIREAT", keys.counter(n), e // 1000)) for n, _, e in batch if e is not None)
            )
        await send(("HSET", keys.shard, "seq", seq))
        await send(("HSETNX", keys.shard, "epoch", epoch))
        return len(live)


def _expires_us(name: str) -> int | None:
    """When a counter may go: well after its window's end, which its name gives to within a few days."""
    *_, window, start = name.rsplit("/", 2)
    if window == LIFETIME:
        return None
    return int(start) + parse_duration(window).mean_us + KEPT_US
