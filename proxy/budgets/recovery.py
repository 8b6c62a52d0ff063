"""Needed when Redis has lost something: how far the record goes, and charges that only the ledger knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from proxy.budgets.keys import ShardKeys
from proxy.budgets.scripts import Argument, Connection, Script
from proxy.domain.counters import expires_us
from proxy.domain.reservations import Settlement, sources_of

RECORDED = Script("recorded")
CHARGE = Script("charge")


class Recovery:
    """Raises `StoreAway`."""

    def __init__(self, connection: Connection, shards: int) -> None:
        self._connection = connection
        self._keys = [ShardKeys(number) for number in range(shards)]

    async def recorded(self, shard: int) -> tuple[bytes, int]:
        """(epoch, the highest `seq` up to which the ledger has everything); the epoch is empty while closed."""
        keys = self._keys[shard]
        epoch, through = await RECORDED.run(self._connection, [keys.shard, keys.events], [])
        return epoch, int(through)

    async def charge(
        self, settlement: Settlement, amounts: Sequence[int]
    ) -> Literal["charged", "duplicate", "closed"]:
        """Puts on the counters of `sources_of` what the ledger has just recorded of a reference unknown here."""
        keys = self._keys[settlement.shard]
        arguments: list[Argument] = [settlement.ref, ",".join(map(str, settlement.usage))]
        names = [keys.shard, keys.held, keys.done(settlement.ref)]
        for (_, source), amount in zip(sources_of(settlement), amounts, strict=True):
            names.append(keys.counter(source.name))
            arguments += (amount, (expires_us(source.name) or 0) // 1000)
        said: bytes = await CHARGE.run(self._connection, names, arguments)
        return said.decode()  # type: ignore[return-value]
