"""The directory in Redis: workers read identities and the policy from it, the keeper projects them into it.

Order keeps it honest. A projection writes the secrets' records before the customer's hash, and a reader
reads them after it: a record is never older than the revision that it is used with. Whether a secret is
valid stands in the hash alone, and changes in the same moment as the revision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from redis.asyncio import Redis

from proxy.budgets import keys
from proxy.budgets.keys import ShardKeys
from proxy.budgets.scripts import Script
from proxy.budgets.store_client import DEADLINE_S, store_away
from proxy.domain.grants import Grant
from proxy.domain.identity import Identity, ScheduledPlan
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
        """Who is behind a secret's digest; None: nobody (unknown, revoked or expired)."""
        with store_away():
            async with asyncio.timeout(self._deadline_s):
                return await self._identity(digest)

    async def policy(self) -> Policy:
        """The newest policy."""
        with store_away():
            async with asyncio.timeout(self._deadline_s):
                revision = await self._client.get(keys.POLICY)
                document = await self._client.get(keys.policy_document(int(revision or 0)))
        if not document:
            raise DirectoryIncomplete("Redis holds no policy yet: the keeper has not published one.")
        try:
            return policy_from_document(orjson.loads(document))
        except ValueError as fault:
            raise DirectoryIncomplete(f"The newest policy cannot be read: {fault}") from fault

    async def current(self, identity: Identity, policy_revision: int) -> bool:
        """Whether the admission script would find all of this in force: one round trip."""
        shard = self._shards[identity.shard]
        with store_away():
            async with asyncio.timeout(self._deadline_s), self._client.pipeline(transaction=False) as ask:
                ask.hmget(shard.customer(identity.customer_id), ["rev", keys.secret_field(identity.secret_id)])
                ask.hget(shard.shard, "policy")
                ask.time()
                (revision, expires_at_ms), newest, now = await ask.execute()
        return (
            int(revision or 0) == identity.revision
            and _is_valid(expires_at_ms, now)
            and policy_revision >= int(newest or 0)
        )

    async def _identity(self, digest: str) -> Identity | None:
        key = keys.secret(digest)
        async with self._client.pipeline(transaction=False) as ask:
            ask.get(key)
            ask.get(keys.DIRECTORY)
            found, complete = await ask.execute()
        if found is None:
            _refuse_if_incomplete(complete)
            return None
        customer_id, secret_id = _who(found)
        shard = shard_of(customer_id, len(self._shards))
        async with self._client.pipeline(transaction=False) as ask:
            fields = ["rev", "doc", keys.secret_field(secret_id)]
            ask.hmget(self._shards[shard].customer(customer_id), fields)
            # Again, and after the hash: what was found above may be older than the revision read here.
            ask.get(key)
            ask.get(keys.DIRECTORY)
            ask.time()
            (revision, document, expires_at_ms), record, complete, now = await ask.execute()
        if record is None:
            _refuse_if_incomplete(complete)
            return None
        if revision is None or document is None:
            raise DirectoryIncomplete(f"Redis knows a secret of customer {customer_id}, but not the customer.")
        if not _is_valid(expires_at_ms, now):
            return None
        return _identity(orjson.loads(record), orjson.loads(document), int(revision), int(expires_at_ms), shard)


def _is_valid(expires_at_ms: str | None, now: tuple[int, int]) -> bool:
    """As the admission script has it. None: revoked; `now` is Redis's TIME, (seconds, microseconds)."""
    if expires_at_ms is None:
        return False
    now_us = now[0] * 1_000_000 + now[1]
    return expires_at_ms == "0" or now_us < int(expires_at_ms) * 1000


def _refuse_if_incomplete(complete: str | None) -> None:
    if complete is None:
        raise DirectoryIncomplete("Redis does not hold the whole directory yet: nobody can be refused.")


def _who(record: str) -> tuple[str, str]:
    """The customer and the secret of a record; neither ever changes for a digest."""
    read = orjson.loads(record)
    return read["customer_id"], read["secret_id"]


def _identity(
    record: Mapping[str, Any], document: Mapping[str, Any], revision: int, expires_at_ms: int, shard: int
) -> Identity:
    scheduled = document.get("scheduled")
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
        grants=tuple(Grant(**grant) for grant in document.get("grants", ())),
        overrides=document.get("overrides", {}),
        scheduled=ScheduledPlan(scheduled["plan"], scheduled["at_us"]) if scheduled else None,
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
        doc: Mapping[str, Any] | None,
        revision: int,
        secrets: Mapping[str, int],
        digests: Mapping[str, Mapping[str, Any]],
        revoked_digests: Sequence[str],
    ) -> None:
        """`DirectorySink`: replaces what is there of a customer, unless that is newer.

        `doc` None takes the customer out. Once it returns, nobody in `revoked_digests` is admitted any more.
        Repeating it does no harm.
        """
        customer = self._shards[shard_of(customer_id, len(self._shards))].customer(customer_id)
        fields: list[str | bytes | int] = []
        if doc is not None:
            fields += ["doc", orjson.dumps(doc)]
            for secret_id, expires_at_ms in secrets.items():
                fields += [keys.secret_field(secret_id), expires_at_ms]
        with store_away():
            if int(await self._client.hget(customer, "rev") or 0) > revision:
                return
            if doc is None:
                await self._delete_records({*digests, *revoked_digests})
            else:
                await self._write_records(digests)
                await self._delete_records(revoked_digests)
            await self._project_customer(keys=[customer], args=[revision, *fields])

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
