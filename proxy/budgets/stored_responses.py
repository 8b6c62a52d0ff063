"""Whose the responses are that upstreams keep: a record for each, and for each item of its output.

The keys are the customer's own, so that nobody can ask for another's: to every other customer an id is unknown.
A record lives as long as providers promise to keep a response. Records are no money: Redis may lose them, and the
ledger does not bring them back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import orjson

from proxy.budgets.keys import ShardKeys
from proxy.budgets.scripts import Connection
from proxy.gateway.ports import StoredResponse

KEPT_S = 30 * 24 * 3600


class RedisStoredResponses:
    """Implements `StoredResponses`. Raises `StoreAway`."""

    def __init__(self, connection: Connection, shards: int) -> None:
        self._connection = connection
        self._shards = [ShardKeys(number) for number in range(shards)]

    async def keep(
        self,
        shard: int,
        customer_id: str,
        responses: Mapping[str, StoredResponse],
        items: Mapping[str, StoredResponse],
    ) -> None:
        keys = self._shards[shard]
        records = {keys.response(customer_id, id): stored for id, stored in responses.items()}
        records |= {keys.item(customer_id, id): stored for id, stored in items.items()}
        send = self._connection.send
        waiting = [send(("SET", key, _text(customer_id, each), "EX", KEPT_S)) for key, each in records.items()]
        await asyncio.gather(*waiting)

    async def find_response(self, shard: int, customer_id: str, id: str) -> StoredResponse | None:
        return _record(customer_id, await self._connection.send(("GET", self._key(shard, customer_id, id))))

    async def find_items(
        self, shard: int, customer_id: str, ids: Sequence[str]
    ) -> Sequence[StoredResponse | None]:
        if not ids:
            return []
        keys = self._shards[shard]
        texts = await self._connection.send(("MGET", *(keys.item(customer_id, id) for id in ids)))
        return [_record(customer_id, text) for text in texts]

    async def forget(self, shard: int, customer_id: str, id: str) -> None:
        await self._connection.send(("DEL", self._key(shard, customer_id, id)))

    def _key(self, shard: int, customer_id: str, id: str) -> str:
        return self._shards[shard].response(customer_id, id)


def _text(customer_id: str, stored: StoredResponse) -> bytes:
    return orjson.dumps(
        {
            "customer_id": customer_id,
            "upstream": stored.upstream,
            "upstream_model": stored.upstream_model,
            "tokens": stored.tokens,
        }
    )


def _record(customer_id: str, text: bytes | None) -> StoredResponse | None:
    if text is None:
        return None
    read = orjson.loads(text)
    # The key says so already; a record that says otherwise is nobody's.
    if read["customer_id"] != customer_id:
        return None
    return StoredResponse(read["upstream"], read["upstream_model"], read["tokens"])
