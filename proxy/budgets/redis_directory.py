"""The directory in Redis: workers read identities and the policy from it, the keeper projects them into it.

Order keeps it honest. A projection writes the secrets' records before the customer's hash, and a reader
reads them after it: a record is never older than the revision that it is used with. Whether a secret is
valid stands in the hash alone, and changes in the same moment as the revision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import orjson
from redis.asyncio import Redis

from proxy.budgets import keys
from proxy.budgets.keys import ShardKeys
from proxy.budgets.scripts import Script
from proxy.budgets.store_client import DEADLINE_S, store_away
from proxy.domain.identity import Identity
from proxy.domain.ids import shard_of
from proxy.domain.policy import Policy
from proxy.domain.policy_documents import policy_from_document
from proxy.gateway.ports import DirectoryIncomplete

OLD_POLICY_KEPT_S = 3600


class RedisDirectory:
    """`Directory` for the workers. `client` is one of `store_client.connect`; each look-up has `deadline_s`."""

    def __init__(self, client: Redis, shards: int, deadline_s: float = DEADLINE_S) -> None:
        self._client = client
        self._shards = [ShardKeys(number) for number in range(shards)]
        self._deadline_s = deadline_s

    async def identity(self, digest: str) -> Identity | None:
        """Who is behind a secret's digest; None: nobody (unknown or revoked)."""
        with store_away():
            async with asyncio.timeout(self._deadline_s):
                return await self._identity(digest)

    async def policy(self) -> Policy:
        """The newest policy."""
        with store_away():
            async with asyncio.timeout(self._deadline_s):
                revision = await self._client.get(keys.POLICY)
                document = revision and await self._client.get(keys.policy_document(int(revision)))
        if not document:
            raise DirectoryIncomplete("Redis holds no policy yet: the keeper has not published one.")
        try:
            return policy_from_document(orjson.loads(document))
        except ValueError as fault:
            raise DirectoryIncomplete(f"The policy of revision {revision} cannot be read: {fault}") from fault

    async def _identity(self, digest: str) -> Identity | None:
        key = keys.secret(digest)
        async with self._client.pipeline(transaction=False) as ask:
            found, complete = await ask.get(key).get(keys.DIRECTORY).execute()
        if found is None:
            if complete is None:
                raise DirectoryIncomplete("Redis does not hold the whole directory yet: nobody can be refused.")
            return None
        customer_id, secret_id = _who(found)
        shard = shard_of(customer_id, len(self._shards))
        customer = self._shards[shard].customer(customer_id)
        async with self._client.pipeline(transaction=False) as ask:
            ask.hmget(customer, ["rev", "doc", keys.secret_field(secret_id)])
            # Again, and after the hash: what was found above may be older than the revision read here.
            ask.get(key)
            (revision, document, expires_at_ms), record = await ask.execute()
        if record is None:
            return None
        if revision is None or document is None:
            raise DirectoryIncomplete(f"Redis knows a secret of customer {customer_id}, but not the customer.")
        if expires_at_ms is None:
            return None
        return _identity(orjson.loads(record), orjson.loads(document), int(revision), int(expires_at_ms), shard)


def _who(record: str) -> tuple[str, str]:
    """The customer and the secret of a record; neither ever changes for a digest."""
    read = orjson.loads(record)
    return read["customer_id"], read["secret_id"]


def _identity(
    record: Mapping[str, Any], document: Mapping[str, Any], revision: int, expires_at_ms: int, shard: int
) -> Identity:
    return Identity(
        customer_id=record["customer_id"],
        agent_id=record["agent_id"],
        agent_type_id=record["agent_type_id"],
        secret_id=record["secret_id"],
        expires_at_ms=expires_at_ms,
        status=document["status"],
        plan_id=document["plan"],
        anchor_us=document["anchor_us"],
        timezone=document["timezone"],
        revision=revision,
        shard=shard,
    )


class DirectoryProjector:
    """The keeper's hand in the directory. `client` is one of `store_client.connect`. Raises `StoreAway`."""

    def __init__(self, client: Redis, shards: int) -> None:
        self._client = client
        self._shards = [ShardKeys(number) for number in range(shards)]
        self._project_customer = client.register_script(Script("project_customer").source)
        self._raise_policy = client.register_script(Script("raise_policy").source)

    async def project_customer(
        self,
        customer_id: str,
        document: Mapping[str, Any] | None,
        revision: int,
        secrets: Mapping[str, int],
        digests: Mapping[str, Mapping[str, Any]],
        revoked_digests: Collection[str],
    ) -> bool:
        """Puts the customer's whole subtree in the place of what was there; False: what is there is newer.

        `document`: `{"status", "plan", "anchor_us", "timezone"}`, None takes the customer out.
        `secrets`: secret id -> expires_at_ms (0: never), of every secret that is valid; `digests`: their
        digests -> `{"secret_id", "agent_id", "agent_type_id", "customer_id", "expires_at_ms"}`. Once it
        returns, nobody in `revoked_digests` is admitted any more. Repeating it does no harm.
        """
        customer = self._shards[shard_of(customer_id, len(self._shards))].customer(customer_id)
        fields: list[str | bytes | int] = []
        if document is not None:
            fields += ["doc", orjson.dumps(document)]
            for secret_id, expires_at_ms in secrets.items():
                fields += [keys.secret_field(secret_id), expires_at_ms]
        with store_away():
            if int(await self._client.hget(customer, "rev") or 0) > revision:
                return False
            await self._write_records(digests if document is not None else {})
            await self._delete_records(set(revoked_digests) | (set() if document is not None else set(digests)))
            return bool(await self._project_customer(keys=[customer], args=[revision, *fields]))

    async def mark_complete(self) -> None:
        """From now on, a secret that is not there is unknown."""
        with store_away():
            await self._client.set(keys.DIRECTORY, "complete")

    async def is_complete(self) -> bool:
        with store_away():
            return bool(await self._client.exists(keys.DIRECTORY))

    async def clear_mark(self) -> None:
        """Until the next `mark_complete`, a secret that is not there is answered with 503, not 401."""
        with store_away():
            await self._client.delete(keys.DIRECTORY)

    async def publish_policy(self, document: Mapping[str, Any], revision: int) -> None:
        """Makes `document` (of `policy_document`) the policy, unless a newer one is.

        It can be read before the shards ask for it: the other way round a worker that is told of it would
        not find it. Documents that are no longer the newest go after an hour.
        """
        with store_away():
            await self._client.set(keys.policy_document(revision), orjson.dumps(document))
            before = int(await self._raise_policy(keys=[keys.POLICY], args=[revision, "-"]))
            async with self._client.pipeline(transaction=False) as raises:
                for shard in self._shards:
                    await self._raise_policy(keys=[shard.shard], args=[revision, "policy"], client=raises)
                await raises.execute()
            await self._let_go({revision, before} - {max(revision, before), 0})

    async def _write_records(self, digests: Mapping[str, Mapping[str, Any]]) -> None:
        """Only those that differ: a revocation then writes none, and is not refused when memory is short."""
        wanted = {keys.secret(digest): orjson.dumps(record).decode() for digest, record in digests.items()}
        async with self._client.pipeline(transaction=False) as ask:
            for key in wanted:
                ask.get(key)
            present = await ask.execute()
        async with self._client.pipeline(transaction=False) as write:
            for (key, record), there in zip(wanted.items(), present, strict=True):
                if there != record:
                    write.set(key, record)
            await write.execute()

    async def _delete_records(self, digests: Iterable[str]) -> None:
        async with self._client.pipeline(transaction=False) as write:
            for digest in digests:
                write.delete(keys.secret(digest))
            await write.execute()

    async def _let_go(self, revisions: Iterable[int]) -> None:
        for revision in revisions:
            await self._client.expire(keys.policy_document(revision), OLD_POLICY_KEPT_S)
