"""Counters brought back from what was recorded, for shards of a Redis that has lost its data.

Order is the guarantee: counters first, `seq` with them, the epoch last. Until a shard has an epoch every script
answers `closed`, so nothing is ever admitted against counters that are not known.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Iterable, Mapping, Sequence

from proxy.budgets import scripts
from proxy.budgets.keys import ALL_OF_SHARDS, ShardKeys
from proxy.budgets.scripts import Connection
from proxy.domain.counters import expires_us, shared_of
from proxy.domain.reservations import LiveReservation

BATCH = 500


class ShardBooks:
    """Reads epochs and sequence numbers, and restores shards. Raises `StoreAway`."""

    def __init__(self, connection: Connection, shards: int, lease_s: float = 60) -> None:
        self._connection = connection
        self._lease_us = round(lease_s * 1_000_000)
        self._keys = [ShardKeys(number) for number in range(shards)]

    async def blank(self) -> list[int]:
        """The shards that have no epoch: new, flushed, or not yet restored."""
        asked = (self._connection.send(("HGET", keys.shard, "epoch")) for keys in self._keys)
        return [number for number, epoch in enumerate(await asyncio.gather(*asked)) if epoch is None]

    async def seq(self, shard: int) -> int:
        return int(await self._connection.send(("HGET", self._keys[shard].shard, "seq")) or 0)

    async def seqs(self) -> dict[int, int]:
        """The sequence number of every shard that is open."""
        asked = (self._connection.send(("HMGET", keys.shard, "epoch", "seq")) for keys in self._keys)
        found = enumerate(await asyncio.gather(*asked))
        return {number: int(seq or 0) for number, (epoch, seq) in found if epoch is not None}

    async def close(self, shard: int, recorded_seq: int) -> bool:
        """Closes a shard that lies behind what the ledger has of it; True if it was open, and is closed now."""
        return bool(await scripts.CLOSE.run(self._connection, [self._keys[shard].shard], (recorded_seq,)))

    async def clear(self, *shards: int) -> int:
        """Deletes what closed shards remember of spending: counters, reservations, and how they ended.

        For shards put back to an older state, before `restore`. Their events and denials stay, since the ledger
        may lack them; so do customers, rate limits and the clock. It goes through all of Redis once, however many
        shards there are, in batches. Returns the number of keys deleted; ValueError for a shard that is open.
        """
        if still_open := set(shards) & (await self.seqs()).keys():
            raise ValueError(f"Shards {sorted(still_open)} are open: what they remember is in use.")
        send, deleted = self._connection.send, 0
        for keys in (self._keys[shard] for shard in shards):
            deleted += await send(("UNLINK", keys.held, keys.leases, keys.observed))
            await send(("HDEL", keys.shard, "seq", "admitted", "settled", "released", "expired"))
        stale = tuple(prefix.encode() for shard in shards for prefix in self._keys[shard].remembered())
        cursor = b"0"
        while True:
            cursor, found = await send(("SCAN", cursor, "MATCH", ALL_OF_SHARDS, "COUNT", BATCH))
            if keys_found := [key for key in found if key.startswith(stale)]:
                deleted += await send(("UNLINK", *keys_found))
            if cursor == b"0":
                return deleted

    async def restore(
        self, shard: int, charged: Mapping[str, int], seq: int, epoch: str, live: Sequence[LiveReservation] = ()
    ) -> int:
        """Opens a blank shard with these counters and what is under way; returns how many were still of use.

        What is under way is held whatever the limits say: it was admitted, and its provider is working on it.

        Counters whose window has passed are left out. What a script may have counted in between cannot be:
        without an epoch it counts nothing.
        """
        keys, send = self._keys[shard], self._connection.send
        seconds, micros = await send(("TIME",))
        now_us = int(seconds) * 1_000_000 + int(micros)
        counters = [
            (name, amount, expires)
            for name, amount in charged.items()
            if (expires := expires_us(name)) is None or expires > now_us
        ]
        for first in range(0, len(counters), BATCH):
            batch = counters[first : first + BATCH]
            await asyncio.gather(*(send(("HSET", keys.counter(n), "used", a, "held", 0)) for n, a, _ in batch))
            await asyncio.gather(
                *(send(("PEXPIREAT", keys.counter(n), e // 1000)) for n, _, e in batch if e is not None)
            )
        under_way = {name for reservation in live for name in reservation.counters}
        await self._count_users(keys, under_way.union(name for name, _, _ in counters))
        await asyncio.gather(*(self._hold(keys, reservation, now_us) for reservation in live))
        await send(("HSET", keys.shard, "seq", seq, "admitted", len(live)))
        await send(("HSETNX", keys.shard, "epoch", epoch))
        return len(counters)

    async def _count_users(self, keys: ShardKeys, names: Iterable[str]) -> None:
        """How many users have a counter of their own, of each budget and window that counts per user."""
        users = Tally(shared for name in names if (shared := shared_of(name)) is not None)
        for shared, count in users.items():
            key, expires = keys.counter(shared), expires_us(shared)
            await self._connection.send(("HSET", key, "users", count))
            if expires is not None:
                await self._connection.send(("PEXPIREAT", key, expires // 1000))

    async def _hold(self, keys: ShardKeys, live: LiveReservation, now_us: int) -> None:
        counters = [keys.counter(name) for name in live.counters]
        amounts = ",".join(map(str, live.amounts))
        # The rate limits are forgotten, so there is nothing that a settle could give back: an empty interval.
        kept = f"{live.admitted_us}|0|0|{amounts}|{chr(9).join(counters)}\n{live.record}"
        send = self._connection.send
        await asyncio.gather(
            send(("HSET", keys.held, live.ref, kept)),
            send(("ZADD", keys.leases, now_us + self._lease_us, live.ref)),
            send(("SADD", keys.holding(live.customer_id), live.ref)),
            *(send(("HSETNX", key, "used", 0)) for key in counters),
            *(send(("HINCRBY", key, "held", amount)) for key, amount in zip(counters, live.amounts, strict=True)),
            *(
                send(("PEXPIREAT", keys.counter(name), expires // 1000))
                for name in live.counters
                if (expires := expires_us(name)) is not None and expires > now_us
            ),
        )
