"""Denials on their way from the workers to the ledger: streams that may lose their oldest under a storm."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
from redis.asyncio import Redis

from proxy.budgets.event_stream import ShardStreams
from proxy.budgets.store_client import store_away
from proxy.domain.ids import shard_of
from proxy.gateway.denials import DenialDelta

# A ledger that is away for days must not fill Redis with refusals; usage events are never trimmed.
STREAM_ENTRIES_MAX = 100_000
DELTAS_PER_ENTRY = 500


class DenialStream(ShardStreams):
    """A worker's `DenialSink`, and the keeper's `EventStream` of what workers appended (field `deltas`)."""

    def __init__(self, client: Redis, shards: int) -> None:
        super().__init__(client, shards, lambda keys: keys.denials)

    async def append(self, deltas: Sequence[DenialDelta]) -> None:
        """Appends each delta to its customer's shard. After a `StoreAway` the same may be appended again:
        the ledger adds a delta only once, by its id."""
        by_shard: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        for delta in deltas:
            by_shard[shard_of(delta.key.customer_id, len(self._streams))].append(_document(delta))
        with store_away():
            async with self._client.pipeline(transaction=False) as write:
                for shard, documents in by_shard.items():
                    for some in _split(documents):
                        fields: dict[Any, Any] = {"deltas": orjson.dumps(some)}
                        write.xadd(self._streams[shard], fields, maxlen=STREAM_ENTRIES_MAX, approximate=True)
                await write.execute()


def _document(delta: DenialDelta) -> dict[str, Any]:
    key = delta.key
    return {
        "id": delta.id,
        "minute": key.minute,
        "customer_id": key.customer_id,
        "agent_id": key.agent_id,
        "model": key.model,
        "reason": key.reason,
        "count": delta.count,
        "sample_request_id": delta.sample_request_id,
        "sample_message": delta.sample_message,
    }


def _split(documents: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for first in range(0, len(documents), DELTAS_PER_ENTRY):
        yield documents[first : first + DELTAS_PER_ENTRY]
