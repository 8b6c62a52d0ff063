"""Events between Redis and the ledger: each is there until it is recorded, whoever dies on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from proxy.budgets.event_stream import GROUP, RedisEventStream
from proxy.budgets.keys import ShardKeys
from proxy.budgets.store_client import connect
from proxy.gateway.ports import EventStream, StoreAway

SHARDS = 4


@pytest.fixture
async def client(store: Redis, valkey_url: str) -> AsyncIterator[Redis]:
    async with connect(valkey_url, 5.0) as client:
        yield client


@pytest.fixture
def stream(client: Redis) -> EventStream:
    return RedisEventStream(client, SHARDS)


async def append(client: Redis, shard: int, *names: str) -> None:
    for name in names:
        await client.xadd(ShardKeys(shard).events, {"event": name, "seq": "1"})


def names(entries) -> list[str]:
    return sorted(entry.fields["event"] for entry in entries)


async def pending(client: Redis, shard: int) -> int:
    return int((await client.xpending(ShardKeys(shard).events, GROUP))["pending"])


async def test_what_came_before_the_first_reader_is_read(stream, client):
    """Workers settle before the keeper's first look, and again after every flush."""
    await append(client, 0, "a")
    await append(client, 3, "b", "c")
    entries = await stream.read("w1", 100, 1)
    assert names(entries) == ["a", "b", "c"]
    assert {(entry.shard, entry.fields["event"]) for entry in entries} == {(0, "a"), (3, "b"), (3, "c")}


async def test_an_entry_is_read_once_and_gone_when_done(stream, client):
    """Recorded events must not fill Redis, and unrecorded ones must not leave it."""
    await append(client, 1, "a", "b")
    first = await stream.read("w1", 100, 1)
    assert await stream.read("w1", 100, 1) == []
    assert await stream.backlog() == [0, 2, 0, 0]
    await stream.done(first[:1])
    assert await stream.backlog() == [0, 1, 0, 0]
    assert await pending(client, 1) == 1
    await stream.done(first)
    assert await stream.backlog() == [0, 0, 0, 0]
    assert await pending(client, 1) == 0


async def test_no_more_is_read_than_asked_for(stream, client):
    """After an hour's outage of the ledger there are more events than memory."""
    for shard in range(SHARDS):
        await append(client, shard, *"abcdefgh")
    assert len(await stream.read("w1", 12, 1)) == 12
    assert len(await stream.read("w1", 1000, 1)) == 20


async def test_a_reader_waits_for_the_first_entry(stream, client):
    """An event is in the ledger as soon as it happened, without a busy loop."""
    assert await stream.read("w1", 100, 1) == []
    waiting = asyncio.create_task(stream.read("w1", 100, 4000))
    await blocked(client)
    await append(client, 2, "late")
    assert names(await waiting) == ["late"]


async def blocked(client: Redis) -> None:
    for _ in range(500):
        if (await client.info("clients"))["blocked_clients"]:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody waits")


async def test_a_flush_while_waiting_does_not_end_the_reading(stream, client):
    """FLUSHALL takes the groups along; what is settled afterwards must still reach the ledger."""
    await stream.read("w1", 100, 1)
    waiting = asyncio.create_task(stream.read("w1", 100, 4000))
    await blocked(client)
    await client.flushall()
    await append(client, 0, "after")
    got = await waiting or await stream.read("w1", 100, 1)
    assert names(got) == ["after"]
    await client.flushall()
    assert await stream.claim("w1", 0) == []
    await append(client, 0, "again")
    assert names(await stream.read("w1", 100, 1)) == ["again"]


async def test_what_a_dead_writer_left_is_claimed_by_another(stream, client):
    """`kill -9` between reading and recording loses nothing."""
    await append(client, 0, "a")
    await append(client, 1, "b")
    await stream.read("dead", 100, 1)
    assert await stream.claim("w2", 60_000) == []
    claimed = await stream.claim("w2", 0)
    assert names(claimed) == ["a", "b"]
    await stream.done(claimed)
    assert await stream.claim("w2", 0) == []
    assert await stream.backlog() == [0] * SHARDS


async def test_all_that_was_left_is_claimed_by_and_by(stream, client):
    """One call takes a bounded part, and never says "none" while there are some."""
    await append(client, 0, *(f"{number:04}" for number in range(450)))
    await stream.read("dead", 100_000, 1)
    seen = set()
    while claimed := await stream.claim("w2", 0):
        assert len(claimed) <= 400
        seen |= set(names(claimed))
        await stream.done(claimed)
    assert len(seen) == 450


async def test_old_entries_are_found_behind_a_thousand_fresh_ones(stream, client):
    """Redis looks at a stretch of what is pending, and answers nothing if that stretch is still in hand."""
    await append(client, 0, *(f"{number:04}" for number in range(1300)))
    entries = await stream.read("dead", 100_000, 1)
    await client.xclaim(ShardKeys(0).events, GROUP, "dead", 0, [entries[-1].id], idle=120_000)
    assert names(await stream.claim("w2", 60_000)) == ["1299"]


async def test_an_acknowledgement_cut_off_halfway_heals(stream, client):
    """Deleted but not acknowledged, an entry is nothing to record, and must not come back as one."""
    await append(client, 0, "a", "b")
    entries = await stream.read("dead", 100, 1)
    await client.xdel(ShardKeys(0).events, entries[0].id)
    assert names(await stream.claim("w2", 0)) == ["b"]
    assert await pending(client, 0) == 1


async def test_two_writers_share_and_never_both_get_an_entry(client):
    """Two keepers, one ledger: reading twice is only work, but it is twice the work."""
    streams = [RedisEventStream(client, SHARDS) for _ in range(2)]
    await asyncio.gather(*(stream.read(f"w{number}", 1, 1) for number, stream in enumerate(streams)))
    for shard in range(SHARDS):
        await append(client, shard, *(f"{shard}{number}" for number in range(25)))
    got: list[str] = []

    async def drain(number: int, stream: EventStream) -> None:
        while entries := await stream.read(f"w{number}", 8, 1):
            got.extend(names(entries))
            await stream.done(entries)

    await asyncio.gather(*(drain(number, stream) for number, stream in enumerate(streams)))
    assert len(got) == len(set(got)) == 100


async def test_doing_nothing_is_no_call(stream):
    """A writer whose batch came out empty acknowledges an empty one."""
    await stream.done([])


async def test_a_store_that_is_away_is_said_so(start_valkey):
    """The writer backs off on `StoreAway`, and on nothing else of Redis's."""
    server = start_valkey()
    async with connect(server.url, 5.0) as client:
        stream = RedisEventStream(client, SHARDS)
        assert await stream.read("w1", 1, 1) == []
        server.kill()
        for call in (stream.read("w1", 1, 1), stream.claim("w1", 0), stream.backlog()):
            with pytest.raises(StoreAway):
                await call
