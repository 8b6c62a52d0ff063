"""The keeper's Redis: embedded or given, checked, and opened only when its counters are known."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import structlog
from redis.asyncio import Redis

from proxy.budgets.backlog import ShardBacklog
from proxy.budgets.balances import RedisBalances
from proxy.budgets.correcting import Corrections
from proxy.budgets.embedded import EmbeddedStore
from proxy.budgets.event_stream import RedisEventStream
from proxy.budgets.hot_connection import HotConnection
from proxy.budgets.redis_budgets import RedisBudgets
from proxy.budgets.restoring import ShardBooks
from proxy.budgets.store_client import check_server, connect
from proxy.settings import Settings
from proxy.telemetry import Tasks

log = structlog.get_logger(__name__)

# Pages, streams that block for a second, a directory projected whole: nothing of it is on a request's path.
COLD_S = 2.0
BLOCKING_S = 5.0


class Store:
    """Connections to Redis for each of the keeper's uses, and the embedded server if there is one."""

    def __init__(self, url: str, embedded: EmbeddedStore | None, shards: int, lease_s: float) -> None:
        self.url = url
        self.embedded = embedded
        self._shards = shards
        self.cold: Redis = connect(url, COLD_S)
        self.cold_blocking: Redis = connect(url, BLOCKING_S)
        self.hot = HotConnection(url, deadline_s=COLD_S)
        self.budgets = RedisBudgets(self.hot, shards, lease_s)
        self.books = ShardBooks(self.hot, shards, lease_s)
        self.waiting = ShardBacklog(self.hot, shards)
        self.corrections = Corrections(self.hot, shards)
        self.balances = RedisBalances(self.hot, shards)

    @classmethod
    async def open(
        cls, settings: Settings, tasks: Tasks, closing: contextlib.AsyncExitStack, lease_s: float
    ) -> Store:
        """Raises `EmbeddedStoreFault`, `StoreUnfit` or `StoreAway`."""
        embedded = None if settings.redis.url else EmbeddedStore(settings.data.dir, settings.redis.fsync)
        if embedded:
            closing.push_async_callback(embedded.stop)
        url = await embedded.start() if embedded else settings.redis.url
        store = cls(url, embedded, settings.redis.shards, lease_s)
        closing.push_async_callback(store._close)
        await check_server(store.cold)
        await store.hot.start()
        return store

    async def check_install(self) -> None:
        """Raises `WrongShards` if Redis was installed with another number of them."""
        await self.budgets.check_install()

    async def backlog(self) -> int:
        """How many usage events wait for the ledger."""
        return sum(await RedisEventStream(self.cold, self._shards).backlog())

    async def guard(self, on_restart: Callable[[], Awaitable[None]]) -> None:
        """Starts the embedded server again whenever it is gone, and then has looked at what it may have lost."""
        if self.embedded is not None:
            await self.embedded.guard(on_restart)

    async def _close(self) -> None:
        await self.hot.close()
        await self.cold.aclose()
        await self.cold_blocking.aclose()
