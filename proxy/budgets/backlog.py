"""How many events wait for the ledger, and the mark by which the shards admit nothing more."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from proxy.budgets.keys import ShardKeys
from proxy.budgets.scripts import Connection


@dataclass(frozen=True, slots=True)
class Waiting:
    """`events` wait in all shards' streams, the oldest for `oldest_us`; `full`: some shard is marked so, `open`:
    some is not."""

    events: int
    oldest_us: int
    full: bool
    open: bool


class ShardBacklog:
    """Raises `StoreAway`."""

    def __init__(self, connection: Connection, shards: int) -> None:
        self._connection = connection
        self._keys = [ShardKeys(number) for number in range(shards)]

    async def look(self) -> Waiting:
        """One look at every shard; the age of an event is by Redis's own clock, to the millisecond."""
        send = self._connection.send
        seconds, micros = await send(("TIME",))
        lengths, marks = await asyncio.gather(
            asyncio.gather(*(send(("XLEN", keys.events)) for keys in self._keys)),
            asyncio.gather(*(send(("HGET", keys.shard, "full")) for keys in self._keys)),
        )
        waiting = [keys for keys, length in zip(self._keys, lengths, strict=True) if length]
        oldest = await asyncio.gather(*(send(("XRANGE", keys.events, "-", "+", "COUNT", 1)) for keys in waiting))
        now_us = int(seconds) * 1_000_000 + int(micros)
        since_us = [int(entries[0][0].split(b"-")[0]) * 1000 for entries in oldest if entries]
        return Waiting(
            events=sum(lengths),
            oldest_us=max(0, now_us - min(since_us, default=now_us)),
            full=any(mark is not None for mark in marks),
            open=any(mark is None for mark in marks),
        )

    async def mark(self, full: bool) -> None:
        """Marks every shard as full, or none: the next `reserve` goes by it; everything else goes on."""
        send = self._connection.send
        if full:
            await asyncio.gather(*(send(("HSET", keys.shard, "full", 1)) for keys in self._keys))
        else:
            await asyncio.gather(*(send(("HDEL", keys.shard, "full")) for keys in self._keys))
