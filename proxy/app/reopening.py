"""Shards that lost their counters are rebuilt from the ledger, at start and whenever it happens."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.budgets.restoring import ShardBooks
from proxy.gateway.ports import StoreAway
from proxy.ledger.counter_sums import charged_by_counter
from proxy.ledger.engine import one_keeper

log = structlog.get_logger(__name__)

LOOK_S = 0.5


class Reopening:
    """Watches for blank shards. `forgotten` is called when they are open again, to publish the policy anew."""

    def __init__(self, books: ShardBooks, engine: AsyncEngine, forgotten: Callable[[], Awaitable[None]]) -> None:
        self._books = books
        self._engine = engine
        self._forgotten = forgotten

    async def open_blank_shards(self) -> int:
        """Rebuilds and opens every shard without an epoch; returns how many there were. One keeper at a time."""
        if not await self._books.blank():
            return 0
        async with one_keeper(self._engine):
            blank = await self._books.blank()
            epoch = secrets.token_hex(8)
            counters = 0
            for shard in blank:
                charged, seq = await charged_by_counter(self._engine, shard)
                counters += await self._books.restore(shard, charged, seq, epoch)
        if counters:
            log.warning("store.counters_rebuilt", shards=len(blank), counters=counters)
        return len(blank)

    async def run(self) -> None:
        """Looks twice a second, for as long as the keeper lives."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                if await self.open_blank_shards():
                    await self._forgotten()
            except StoreAway:
                continue
            except OSError as away:
                log.warning("store.cannot_be_rebuilt", why=str(away))
