"""Records of kept responses: the customer's own, for thirty days, in the customer's shard."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from proxy.budgets.hot_connection import HotConnection
from proxy.budgets.stored_responses import RedisStoredResponses
from proxy.gateway.ports import StoreAway, StoredResponse

MADE = StoredResponse("up", "gpt-x", 42)
FOUND = StoredResponse("up", "gpt-x", None)


async def test_a_record_is_found_by_its_customer_only(store: Redis, connection: HotConnection) -> None:
    """One account at the provider serves all customers, so that this is what keeps them apart."""
    records = RedisStoredResponses(connection, 16)
    await records.keep(3, "acme", {"resp_1": MADE}, {"msg_1": MADE, "ws_1": FOUND})
    assert await records.find_response(3, "acme", "resp_1") == MADE
    assert await records.find_response(3, "rival", "resp_1") is None
    assert await records.find_response(3, "acme", "msg_1") is None
    assert await records.find_items(3, "acme", ["ws_1", "none", "msg_1", "resp_1"]) == [FOUND, None, MADE, None]
    assert await records.find_items(3, "rival", ["ws_1"]) == [None]
    assert await records.find_items(3, "acme", []) == []
    await records.forget(3, "acme", "resp_1")
    assert await records.find_response(3, "acme", "resp_1") is None


async def test_a_record_that_names_another_customer_is_nobodys(store: Redis, connection: HotConnection) -> None:
    """Whatever put it there."""
    records = RedisStoredResponses(connection, 16)
    await records.keep(3, "acme", {"resp_1": MADE}, {})
    await store.rename("faregate:{s3}:response:acme/resp_1", "faregate:{s3}:response:rival/resp_1")
    assert await records.find_response(3, "rival", "resp_1") is None


async def test_records_end_with_what_they_tell_of(store: Redis, connection: HotConnection) -> None:
    """Providers keep a response for thirty days; a record for ever would fill Redis."""
    records = RedisStoredResponses(connection, 16)
    await records.keep(3, "acme", {"resp_1": MADE}, {"msg_1": MADE})
    lives = [await store.ttl(key) async for key in store.scan_iter("faregate:{s3}:*:acme/*")]
    assert len(lives) == 2
    assert all(29 * 86_400 < life <= 30 * 86_400 for life in lives)


async def test_a_redis_that_is_away_is_told(connection: HotConnection) -> None:
    records = RedisStoredResponses(connection, 16)
    await connection.close()
    with pytest.raises(StoreAway):
        await records.find_response(3, "acme", "resp_1")
    with pytest.raises(StoreAway):
        await records.keep(3, "acme", {"resp_1": MADE}, {})
