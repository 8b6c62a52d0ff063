"""What counters were given by the windows before them, as the admission has worked it out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from proxy.budgets.keys import ShardKeys
from proxy.budgets.scripts import Connection


class CarriedOver:
    """Reads on a connection of any kind. Raises `StoreAway`."""

    def __init__(self, connection: Connection, shards: int) -> None:
        self._connection = connection
        self._shards = [ShardKeys(number) for number in range(shards)]

    async def amounts(self, shard: int, names: Sequence[str]) -> Sequence[int]:
        """Of each counter; zero where nothing was carried over, or nobody has used the window yet."""
        keys = self._shards[shard]
        asked = (self._connection.send(("HGET", keys.counter(name), "carry")) for name in names)
        return [int(carried or 0) for carried in await asyncio.gather(*asked)]
