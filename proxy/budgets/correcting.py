"""Counters put right that differ from what they are to agree with: `used` from the ledger, `held` from the
reservations. Each correction is one script, which changes nothing if anything has moved since the look."""

from __future__ import annotations

from proxy.budgets import scripts
from proxy.budgets.keys import ShardKeys
from proxy.budgets.scripts import Connection
from proxy.domain.counters import expires_us


class Corrections:
    """Raises `StoreAway`. `counter` is always the counter's name; True: it was corrected."""

    def __init__(self, connection: Connection, shards: int) -> None:
        self._connection = connection
        self._keys = [ShardKeys(number) for number in range(shards)]

    async def used(self, shard: int, counter: str, epoch: str, seq: int, seen: int | None, right: int) -> bool:
        """Sets `used` to `right`, if shard and counter still stand as they were seen (None: it was not there)."""
        keys = self._keys[shard]
        expires_ms = (expires_us(counter) or 0) // 1000 if seen is None else 0
        arguments = (epoch, seq, seen or 0, right, expires_ms)
        names = [keys.shard, keys.counter(counter)]
        return bool(await scripts.CORRECT.run(self._connection, names, arguments))

    async def held(self, shard: int, counter: str, epoch: str, difference: int) -> bool:
        """Sets `held` to what the reservations hold, if it still differs from that by `difference`."""
        keys = self._keys[shard]
        names = [keys.shard, keys.held, keys.counter(counter)]
        return bool(await scripts.RECOUNT.run(self._connection, names, (epoch, difference)))
