"""What RedisBudgets knows of a shard besides its scripts: installation, epoch and sequence."""

from __future__ import annotations

import pytest
from books import KEYS, SHARD, Books, reservation, settlement
from redis.asyncio import Redis

from proxy.budgets import keys
from proxy.budgets.hot_connection import HotConnection
from proxy.budgets.redis_budgets import RedisBudgets, WrongShards
from proxy.domain.reservations import Closed, Held


async def test_a_blank_store_is_installed_and_opened_once(store: Redis, connection: HotConnection) -> None:
    """A second keeper starting at the same time must not open the shards under another epoch."""
    first, second = RedisBudgets(connection, 4), RedisBudgets(connection, 4)
    await first.open_shards("epoch-1")
    await second.open_shards("epoch-2")
    installed = await store.hgetall(keys.INSTALL)
    assert (installed[b"format"], installed[b"shards"]) == (b"1", b"4")
    for number in range(4):
        assert await store.hget(keys.ShardKeys(number).shard, "epoch") == b"epoch-1"
    assert not await store.exists(keys.ShardKeys(4).shard)


async def test_another_number_of_shards_is_refused_with_what_to_do(
    store: Redis, connection: HotConnection
) -> None:
    """With another number every customer would start over from zero in a shard that never heard of it."""
    await RedisBudgets(connection, 4).open_shards("epoch-1")
    with pytest.raises(WrongShards, match=r"redis\.shards = 4, and the settings say 8.*set redis\.shards = 4"):
        await RedisBudgets(connection, 8).open_shards("epoch-2")


async def test_a_store_of_another_format_is_refused(store: Redis, connection: HotConnection) -> None:
    """A newer version's keys, read as ours, would be read wrong."""
    await store.hset(keys.INSTALL, mapping={"shards": 4, "format": 9})
    with pytest.raises(WrongShards, match="holds format 9"):
        await RedisBudgets(connection, 4).open_shards("epoch-1")


async def test_a_worker_that_starts_before_the_keeper_has_opened_the_shards_serves_afterwards(
    store: Redis, connection: HotConnection
) -> None:
    """Nothing is admitted against blank counters, and nobody has to restart the worker."""
    worker = Books(store, connection)
    assert await worker.budgets.reserve(reservation()) == Closed()
    assert (await worker.budgets.settle(settlement())).outcome == "closed"
    assert (await worker.budgets.release(settlement())).outcome == "closed"
    assert await worker.budgets.extend(SHARD, {"req_1:1": 0}) == frozenset()
    assert await store.dbsize() == 0
    await Books(store, connection).open()
    assert isinstance(await worker.budgets.reserve(reservation()), Held)


async def test_a_closed_shard_is_used_again_only_once_it_has_another_epoch(books: Books) -> None:
    """An epoch is written last of all by whoever rebuilt the counters; until then nothing may be admitted."""
    await books.budgets.reserve(reservation())
    await books.budgets.settle(settlement())
    await books.redis.hdel(KEYS.shard, "epoch", "seq")
    for _ in range(3):
        assert await books.budgets.reserve(reservation("req_2:1")) == Closed()
    await books.redis.hset(KEYS.shard, mapping={"epoch": "epoch-2", "seq": 0})
    assert isinstance(await books.budgets.reserve(reservation("req_2:1")), Held)


async def test_a_new_connection_reserves_only_on_a_server_that_a_keeper_has_looked_at(books: Books) -> None:
    """It may lead to an older state, which a worker that has seen little of it cannot tell from a newer one."""
    await books.redis.hset(keys.INSTALL, "vouched", "another life")
    books.connection.generation += 1
    assert await books.budgets.reserve(reservation()) == Closed()
    await books.budgets.vouch(await books.budgets.run_id())
    assert isinstance(await books.budgets.reserve(reservation()), Held)


async def test_adopting_the_same_epoch_does_not_forget_how_far_the_shard_had_come(books: Books) -> None:
    """A replica that lags behind keeps the epoch: only the sequence gives it away."""
    await books.budgets.reserve(reservation())
    await books.budgets.settle(settlement())
    await books.redis.hset(KEYS.shard, "seq", 0)
    await books.budgets.adopt_epochs()
    assert await books.budgets.reserve(reservation("req_2:1")) == Closed()
