"""The shards' streams, as the keeper reads them: by a consumer group, so that nothing is lost between reading
and recording, and nothing is ever trimmed.

An entry is pending from `read` to `done`. What a writer leaves pending when it dies, another claims.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from proxy.budgets.keys import ShardKeys
from proxy.budgets.store_client import store_away
from proxy.gateway.ports import StreamEntry

Found = list[tuple[str, dict[str, str]]]

GROUP = "ledger"
CLAIM_ENTRIES_PER_SHARD = 100
SCAN_FROM = "0-0"

# What Redis says after a flush, to a reader that comes later, and to one that was waiting (7.0; newer ones).
GROUP_IS_GONE = ("NOGROUP", "UNBLOCKED")


class ShardStreams:
    """One stream of every shard, read together; implements the port `EventStream`.

    `client` is one of `store_client.connect` whose `timeout_s` is longer than any `block_ms`.
    """

    def __init__(self, client: Redis, shards: int, stream_of: Callable[[ShardKeys], str]) -> None:
        self._client = client
        self._streams = [stream_of(ShardKeys(number)) for number in range(shards)]
        self._shard_of = {stream: number for number, stream in enumerate(self._streams)}

    async def read(self, consumer: str, count: int, block_ms: int) -> Sequence[StreamEntry]:
        """At most `count` entries (but one of each shard) that nobody has read; waits for the first."""
        with store_away():
            try:
                return await self._read(consumer, count, block_ms)
            except ResponseError as refused:
                if not str(refused).startswith(GROUP_IS_GONE):
                    raise
                await self._create_groups()
                return await self._read(consumer, count, block_ms)

    async def claim(self, consumer: str, idle_ms: int) -> Sequence[StreamEntry]:
        """Entries that were read and not finished for `idle_ms`; empty only when there are none left."""
        claimed: list[StreamEntry] = []
        scans = dict.fromkeys(self._streams, SCAN_FROM)
        with store_away():
            while scans:
                for stream, (cursor, found) in (await self._claim(consumer, idle_ms, scans)).items():
                    claimed += self._entries(stream, found)
                    scans[stream] = cursor
                    if found or cursor == SCAN_FROM:
                        del scans[stream]
        return claimed

    async def done(self, entries: Sequence[StreamEntry]) -> None:
        """Takes the entries out: to be called only once they are recorded.

        Deleted first, acknowledged second: cut off in between, an entry is pending and void, and a claim
        clears it away; the other way round it would stay forever.
        """
        with store_away():
            async with self._client.pipeline(transaction=False) as write:
                for shard, group in groupby(sorted(entries, key=_shard), key=_shard):
                    ids = [entry.id for entry in group]
                    write.xdel(self._streams[shard], *ids)
                    write.xack(self._streams[shard], GROUP, *ids)
                await write.execute()

    async def backlog(self) -> list[int]:
        """How many entries are not `done`, by shard."""
        with store_away():
            async with self._client.pipeline(transaction=False) as ask:
                for stream in self._streams:
                    ask.xlen(stream)
                lengths: list[int] = await ask.execute()
        return lengths

    async def _read(self, consumer: str, count: int, block_ms: int) -> list[StreamEntry]:
        # Redis counts each stream for itself, and waits forever if told to wait 0 ms.
        replies: Any = await self._client.xreadgroup(
            GROUP,
            consumer,
            dict.fromkeys(self._streams, ">"),
            count=max(1, count // len(self._streams)),
            block=max(1, block_ms),
        )
        return [entry for stream, found in replies for entry in self._entries(stream, found)]

    async def _claim(self, consumer: str, idle_ms: int, scans: Mapping[str, str]) -> dict[str, tuple[str, Found]]:
        """One step of every scan: the cursor to go on from, and what was found."""
        async with self._client.pipeline(transaction=False) as ask:
            for stream, cursor in scans.items():
                ask.xautoclaim(stream, GROUP, consumer, idle_ms, cursor, count=CLAIM_ENTRIES_PER_SHARD)
            replies: list[Any] = await ask.execute(raise_on_error=False)
        if any(_says_group_is_gone(reply) for reply in replies):
            await self._create_groups()
        steps: dict[str, tuple[str, Found]] = {}
        for stream, reply in zip(scans, replies, strict=True):
            if _says_group_is_gone(reply):
                # A group made just now has nothing pending.
                steps[stream] = (SCAN_FROM, [])
            elif isinstance(reply, Exception):
                raise reply
            else:
                steps[stream] = (reply[0], reply[1])
        return steps

    async def _create_groups(self) -> None:
        """From id 0: what was appended before the group was there is to be recorded too."""
        async with self._client.pipeline(transaction=False) as write:
            for stream in self._streams:
                write.xgroup_create(stream, GROUP, id="0", mkstream=True)
            replies: list[Any] = await write.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, Exception) and not str(reply).startswith("BUSYGROUP"):
                raise reply

    def _entries(self, stream: str, found: Found) -> list[StreamEntry]:
        return [StreamEntry(self._shard_of[stream], id, fields) for id, fields in found]


def _shard(entry: StreamEntry) -> int:
    return entry.shard


def _says_group_is_gone(reply: object) -> bool:
    return isinstance(reply, ResponseError) and str(reply).startswith(GROUP_IS_GONE)


class RedisEventStream(ShardStreams):
    """The usage events that the scripts have appended."""

    def __init__(self, client: Redis, shards: int) -> None:
        super().__init__(client, shards, lambda keys: keys.events)
