"""A Redis older than the record is closed ; one that is not stays open, however far the record is behind."""

from __future__ import annotations

import pytest
from keepers_books import KEYS, SHARD, Business
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.app.older import OlderShards
from proxy.app.store import Store
from proxy.telemetry import Counters, Merged


@pytest.fixture
def business(keeper_store: Store, engine: AsyncEngine) -> Business:
    return Business(keeper_store, engine)


async def test_only_the_shard_that_lies_behind_the_ledger_is_closed(business: Business) -> None:
    """Restored from a copy of before the last settles: what they spent could be spent again."""
    counters = Counters()
    older = OlderShards(business.store.books, business.store.budgets, business.engine, 4, counters)
    await business.attempts(1, 2)
    await business.reserve(3)
    await business.settle(3)
    assert await older.close_older() == []
    await business.store.cold.hset(KEYS.shard, "seq", 1)
    assert await older.close_older() == [SHARD]
    assert await business.store.books.blank() == [SHARD]
    assert await older.close_older() == []
    assert Merged().total([counters.snapshot()]).counters["shards_closed"][()] == 1


async def test_a_ledger_that_is_away_closes_nothing(business: Business) -> None:
    """The database may be away for an hour: no shard is taken for older because nobody can be asked."""
    await business.attempts(1)
    await business.store.cold.hset(KEYS.shard, "seq", 0)
    await business.engine.dispose()
    broken = OlderShards(business.store.books, business.store.budgets, _Away(), 4, Counters())  # type: ignore[arg-type]
    await broken.look()
    assert await business.store.books.blank() == []


class _Away:
    class dialect:  # noqa: N801
        name = "sqlite"

    def connect(self) -> None:
        raise OSError("no such host")
