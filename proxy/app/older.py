"""A Redis that was put back to an older state: restored from a backup, or a replica that lagged behind.

It still has epochs, and its counters look sound; only the ledger knows better, since it has recorded what such a
Redis has never heard of. A shard that lies behind the record is closed, and then rebuilt like one that lost its
data.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.budgets.redis_budgets import RedisBudgets
from proxy.budgets.restoring import ShardBooks
from proxy.gateway.ports import StoreAway
from proxy.ledger.counter_sums import highest_seqs
from proxy.telemetry import Counters

log = structlog.get_logger(__name__)

LOOK_S = 1.0


class OlderShards:
    """Watches for shards that are older than the ledger, and closes them."""

    def __init__(
        self, books: ShardBooks, budgets: RedisBudgets, engine: AsyncEngine, shards: int, counters: Counters
    ) -> None:
        self._books = books
        self._budgets = budgets
        self._engine = engine
        self._shards = range(shards)
        self._counters = counters
        self._vouched = b""
        self.seen_by_workers: Callable[[], Awaitable[dict[int, int]]] = _no_workers

    async def close_older(self) -> Sequence[int]:
        """Closes every open shard that lies behind the ledger; returns which. Raises `StoreAway`, and what the
        database's driver says.

        The ledger is asked first: a shard that is not behind can only have come further since. Then this life of
        the server is vouched for, without which no worker reserves on a new connection.
        """
        run_id = await self._budgets.run_id()
        recorded = await highest_seqs(self._engine, self._shards)
        if run_id != self._vouched:
            # The ledger may not have come as far as the workers have seen the shards come.
            for shard, seq in (await self.seen_by_workers()).items():
                recorded[shard] = max(seq, recorded[shard])
        behind = [shard for shard, seq in (await self._books.seqs()).items() if seq < recorded[shard]]
        closed = [shard for shard in behind if await self._books.close(shard, recorded[shard])]
        if closed:
            self._counters.add("shards_closed", len(closed))
            log.error("store.older_than_the_ledger", shards=closed)
        await self._budgets.vouch(run_id)
        self._vouched = run_id
        return closed

    async def close_behind(self, shards: Sequence[tuple[int, int]]) -> None:
        """Closes shards that a worker knows to lie behind, though the ledger may not have come that far."""
        try:
            for shard, seq in shards:
                if await self._books.close(shard, seq):
                    self._counters.add("shards_closed", 1)
                    log.error("store.older_than_a_worker", shard=shard)
        except StoreAway:
            self._counters.store_fault("older_shards")

    async def look(self) -> None:
        """`close_older`, as far as it can be done now: while the database is away nothing can be compared, but
        workers still notice what they have seen themselves."""
        try:
            await self.close_older()
        except StoreAway:
            self._counters.store_fault("older_shards")
        except (SQLAlchemyError, OSError, TimeoutError) as away:
            log.warning("store.age_not_checked", fault=type(away).__name__)

    async def run(self) -> None:
        """Looks every second, for as long as the keeper lives."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()


async def _no_workers() -> dict[int, int]:
    return {}
