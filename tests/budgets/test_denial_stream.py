"""Denials reach the ledger once, and a storm of them never fills Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson
import pytest
from redis.asyncio import Redis

from proxy.budgets import denial_stream
from proxy.budgets.denial_stream import DenialStream
from proxy.budgets.keys import ShardKeys
from proxy.budgets.store_client import connect
from proxy.domain.ids import shard_of
from proxy.gateway.denials import DenialDelta, DenialSink
from proxy.gateway.ports import DenialKey, EventStream, StoreAway

SHARDS = 4


@pytest.fixture
async def client(store: Redis, valkey_url: str) -> AsyncIterator[Redis]:
    async with connect(valkey_url, 5.0) as client:
        yield client


def delta(id: str, customer_id: str = "cus_1") -> DenialDelta:
    return DenialDelta(id, DenialKey(29_000_000, customer_id, "agt_1", "gpt", "budget"), 7, "req_1", "Spent.")


async def test_a_delta_arrives_as_the_ledger_reads_it(client):
    """The fields are a contract between two processes that never meet."""
    sink: DenialSink = DenialStream(client, SHARDS)
    reader: EventStream = DenialStream(client, SHARDS)
    await sink.append([delta("den_1")])
    (entry,) = await reader.read("w1", 100, 1)
    assert entry.shard == shard_of("cus_1", SHARDS)
    assert orjson.loads(entry.fields["deltas"]) == [
        {
            "id": "den_1",
            "minute": 29_000_000,
            "customer_id": "cus_1",
            "agent_id": "agt_1",
            "model": "gpt",
            "reason": "budget",
            "count": 7,
            "sample_request_id": "req_1",
            "sample_message": "Spent.",
        }
    ]
    await reader.done([entry])
    assert await reader.backlog() == [0] * SHARDS


async def test_many_deltas_are_few_entries_and_none_is_missing(client):
    """One entry per delta would cost Redis more than the refusals did."""
    stream = DenialStream(client, SHARDS)
    await stream.append([delta(f"den_{number}", f"cus_{number % 50}") for number in range(3000)])
    entries = await stream.read("w1", 1000, 1)
    assert len(entries) <= 3000 // denial_stream.DELTAS_PER_ENTRY + SHARDS
    ids = [part["id"] for entry in entries for part in orjson.loads(entry.fields["deltas"])]
    assert len(ids) == len(set(ids)) == 3000


async def test_the_stream_is_bounded(client, monkeypatch):
    """A ledger that is away for a week, and a client that hammers: Redis must keep its memory for budgets."""
    monkeypatch.setattr(denial_stream, "STREAM_ENTRIES_MAX", 100)
    stream = DenialStream(client, SHARDS)
    for number in range(1000):
        await stream.append([delta(f"den_{number}")])
    assert await client.xlen(ShardKeys(shard_of("cus_1", SHARDS)).denials) < 300


async def test_nothing_to_append_is_no_call_and_an_absent_store_is_said_so(start_valkey):
    """The counter keeps its deltas and offers them again, but only if it is told."""
    server = start_valkey()
    async with connect(server.url) as client:
        stream = DenialStream(client, SHARDS)
        server.kill()
        await stream.append([])
        with pytest.raises(StoreAway):
            await stream.append([delta("den_1")])
