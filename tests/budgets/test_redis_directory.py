"""The directory in Redis: a worker never takes an old truth for a new one, nor an absent one for a refusal."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from proxy.budgets import keys
from proxy.budgets.keys import ShardKeys
from proxy.budgets.redis_directory import DirectoryProjector, RedisDirectory
from proxy.budgets.store_client import connect
from proxy.domain.grants import Grant
from proxy.domain.identity import Identity, ScheduledPlan
from proxy.domain.ids import shard_of
from proxy.domain.policy import Model, Plan, Policy, Target
from proxy.domain.policy_documents import policy_document
from proxy.gateway.ports import Directory, DirectoryIncomplete, DirectorySink, StoreAway

SHARDS = 16
SHARD = shard_of("cus_1", SHARDS)
CUSTOMER = ShardKeys(SHARD).customer("cus_1")
DOC = {"status": "active", "plan": "starter", "anchor_us": 1_700_000_000_000_000, "timezone": "Europe/Berlin"}


@pytest.fixture
async def client(store: Redis, valkey_url: str) -> AsyncIterator[Redis]:
    async with connect(valkey_url, 5.0) as client:
        yield client


@pytest.fixture
def directory(client: Redis) -> Directory:
    return RedisDirectory(client, SHARDS, deadline_s=5.0)


@pytest.fixture
def projector(client: Redis) -> DirectoryProjector:
    return DirectoryProjector(client, SHARDS)


def record(secret_id: str = "sec_1", **changes: Any) -> dict[str, Any]:
    known = {
        "secret_id": secret_id,
        "agent_id": "agt_1",
        "agent_type_id": "typ_1",
        "customer_id": "cus_1",
        "expires_at_ms": 0,
    }
    return known | changes


async def project(sink: DirectorySink, revision: int = 1, **changes: Any) -> None:
    """Customer cus_1 with the secret sec_1, whose digest is d1, unless `changes` say otherwise."""
    told: dict[str, Any] = {
        "doc": DOC,
        "secrets": {"sec_1": 0},
        "digests": {"d1": record()},
        "revoked_digests": [],
    }
    await sink.project_customer("cus_1", revision=revision, **(told | changes))


async def test_a_projected_secret_has_an_identity(directory, projector):
    """What the ledger says of an agent is what a worker decides by."""
    await project(projector, 3)
    assert await directory.identity("d1") == Identity(
        customer_id="cus_1",
        agent_id="agt_1",
        agent_type_id="typ_1",
        secret_id="sec_1",
        expires_at_ms=0,
        status="active",
        plan_id="starter",
        anchor_us=1_700_000_000_000_000,
        timezone="Europe/Berlin",
        revision=3,
        shard=SHARD,
    )


async def test_what_a_customer_has_beside_its_plan_comes_along(directory, projector):
    """Grants, overrides and a scheduled change are decided by at the next request, without another look-up."""
    grant = {"id": "grt_1", "meter": "tokens", "amount": 500, "per": "customer", "budget_id": None, "priority": 7}
    grant |= {"effective_at_us": 5, "expires_at_us": None, "created_at_us": 4}
    doc = DOC | {
        "grants": [grant],
        "overrides": {"features": {"web_search": True}},
        "scheduled": {"plan": "pro", "at_us": 9},
    }
    await project(projector, doc=doc)
    identity = await directory.identity("d1")
    assert identity.grants == (Grant("grt_1", "tokens", 500, "customer", None, 7, 5, None, 4),)
    assert identity.overrides == {"features": {"web_search": True}}
    assert identity.scheduled == ScheduledPlan("pro", 9)


async def test_an_absent_secret_proves_nothing_until_the_directory_is_complete(directory, projector):
    """After a flush, 401 would make every client throw its good secret away; 503 makes it try again."""
    with pytest.raises(DirectoryIncomplete):
        await directory.identity("d1")
    assert not await projector.is_complete()

    await projector.mark_complete()
    assert await projector.is_complete()
    assert await directory.identity("d1") is None

    await projector.clear_mark()
    with pytest.raises(DirectoryIncomplete):
        await directory.identity("d1")


async def test_a_known_secret_is_served_before_the_directory_is_complete(directory, projector):
    """While a rebuild runs, those who are there already need not wait for the rest."""
    await project(projector)
    assert await directory.identity("d1") is not None


async def test_a_secret_without_its_customer_is_incomplete(directory, projector, client):
    """A lost hash is a hole in the directory, not a revocation."""
    await project(projector)
    await projector.mark_complete()
    await client.delete(CUSTOMER)
    with pytest.raises(DirectoryIncomplete, match="cus_1"):
        await directory.identity("d1")


async def test_a_revoked_secret_is_nobody_and_the_other_lives_on(directory, projector, client):
    """Rotation: the old secret goes, the new one stays."""
    await projector.mark_complete()
    both = {"d1": record("sec_1"), "d2": record("sec_2")}
    await project(projector, 1, secrets={"sec_1": 0, "sec_2": 0}, digests=both)
    await project(projector, 2, secrets={"sec_2": 0}, digests={"d2": both["d2"]}, revoked_digests=["d1"])
    assert await directory.identity("d1") is None
    assert not await client.exists(keys.secret("d1"))
    assert (await directory.identity("d2")).revision == 2
    assert await client.hgetall(CUSTOMER) == {
        "rev": "2",
        "doc": json.dumps(DOC, separators=(",", ":")),
        "k:sec_2": "0",
    }


async def test_a_digest_that_was_left_behind_lets_nobody_in(directory, projector, client):
    """A keeper may die between two steps of a revocation, or project an older state late."""
    await project(projector, 1)
    await project(projector, 2, secrets={}, digests={}, revoked_digests=["d1"])
    await client.set(keys.secret("d1"), json.dumps(record()))
    assert await directory.identity("d1") is None


async def test_an_expired_secret_is_nobody_by_the_time_of_redis(directory, projector, client):
    """What the admission script calls expired, no list of models may be shown to either."""
    now_ms = (await client.time())[0] * 1000
    await project(projector, 1, secrets={"sec_1": now_ms - 1})
    assert await directory.identity("d1") is None
    await project(projector, 2, secrets={"sec_1": now_ms + 60_000})
    assert (await directory.identity("d1")).expires_at_ms == now_ms + 60_000


async def test_an_older_projection_never_replaces_a_newer(directory, projector, client):
    """Two keepers may project one customer at once; the late one must not bring a revoked secret back."""
    await projector.mark_complete()
    await project(projector, 5, secrets={}, digests={}, revoked_digests=["d1"])
    await project(projector, 4)
    assert await directory.identity("d1") is None
    assert not await client.exists(keys.secret("d1"))
    await project(projector, 5, doc=DOC | {"status": "suspended"})
    assert (await directory.identity("d1")).status == "suspended"


async def test_a_projection_that_was_overtaken_halfway_changes_nothing(directory, projector, client):
    """The newer one may come between the look at the revision and the script: the script looks itself."""

    class Overtaken(DirectoryProjector):
        async def _delete_records(self, digests: Any) -> None:
            await project(projector, 5, secrets={}, digests={}, revoked_digests=["d1"])

    await project(projector, 3)
    await project(Overtaken(client, SHARDS), 4)
    assert await client.hmget(CUSTOMER, ["rev", "k:sec_1"]) == ["5", None]


async def test_revision_and_secrets_change_in_one_moment(projector, client):
    """A moment with the new revision and the old secrets would admit a revoked one."""
    seen = set()
    stop = asyncio.Event()

    async def watch() -> None:
        while not stop.is_set():
            seen.add(tuple(await client.hmget(CUSTOMER, ["rev", "k:sec_1", "k:sec_2"])))

    await project(projector, 1)
    watching = asyncio.create_task(watch())
    for revision in range(2, 200, 2):
        await project(projector, revision, secrets={"sec_2": 0})
        await project(projector, revision + 1)
    stop.set()
    await watching
    assert len(seen) > 20
    for revision, first, second in seen:
        assert (first, second) == (("0", None) if int(revision) % 2 else (None, "0"))


async def test_a_revocation_acts_when_memory_is_short(start_valkey):
    """A store that is full must still be able to say no."""
    async with connect(start_valkey().url, 5.0) as client:
        projector = DirectoryProjector(client, SHARDS)
        both = {"d1": record("sec_1"), "d2": record("sec_2")}
        await projector.mark_complete()
        await project(projector, 1, secrets={"sec_1": 0, "sec_2": 0}, digests=both)
        await client.config_set("maxmemory", "1")
        await project(projector, 2, secrets={"sec_2": 0}, digests={"d2": both["d2"]}, revoked_digests=["d1"])
        directory = RedisDirectory(client, SHARDS, deadline_s=5.0)
        assert await directory.identity("d1") is None
        assert await directory.identity("d2") is not None


class SlowReader:
    """A client whose first answer is followed by `meanwhile`, before anything else is asked."""

    def __init__(self, client: Redis, meanwhile: Any) -> None:
        self._client, self._meanwhile, self._asked = client, meanwhile, 0

    def pipeline(self, transaction: bool) -> Any:
        pipe = self._client.pipeline(transaction=transaction)
        execute, self._asked = pipe.execute, self._asked + 1
        if self._asked == 2:

            async def late() -> Any:
                await self._meanwhile()
                return await execute()

            pipe.execute = late
        return pipe


async def test_a_record_is_never_older_than_its_revision(projector, client):
    """A worker remembers what it reads until the revision changes: old facts under a new one would stay."""
    await project(projector, 1)

    async def meanwhile() -> None:
        await project(projector, 2, digests={"d1": record(agent_type_id="typ_2")})

    identity = await RedisDirectory(SlowReader(client, meanwhile), SHARDS, 5.0).identity("d1")
    assert (identity.revision, identity.agent_type_id) == (2, "typ_2")


async def test_a_flush_between_two_reads_is_no_refusal(projector, client):
    """The secret was there a millisecond ago; that it is gone with everything else says nothing about it."""
    await projector.mark_complete()
    await project(projector)
    with pytest.raises(DirectoryIncomplete):
        await RedisDirectory(SlowReader(client, client.flushall), SHARDS, 5.0).identity("d1")


async def test_a_customer_that_is_taken_out_is_nobody(directory, projector, client):
    """What the ledger no longer has must not be served from Redis."""
    await projector.mark_complete()
    await project(projector, 1)
    await project(projector, 2, doc=None, secrets={})
    assert await directory.identity("d1") is None
    assert not await client.exists(CUSTOMER)


async def test_current_says_what_the_admission_script_would(directory, projector, client):
    """A refusal that rests on remembered facts is given only while they still hold."""
    await project(projector, 1)
    await projector.publish_policy(policy_document(policy(4)), 4)
    known = await directory.identity("d1")
    assert await directory.current(known, 4)
    assert await directory.current(known, 5)
    assert not await directory.current(known, 3)
    assert not await directory.current(replace(known, revision=0), 4)
    assert not await directory.current(replace(known, secret_id="sec_9"), 4)
    await project(projector, 1, secrets={"sec_1": 1})
    assert not await directory.current(known, 4)
    await client.delete(CUSTOMER)
    assert not await directory.current(known, 4)


def policy(revision: int) -> Policy:
    model = Model("gpt", (Target("openai", "gpt"),), 100, 1000, "max_tokens")
    return Policy(revision, {"gpt": model}, {"free": Plan("free", f"Free {revision}", revision)})


async def test_the_newest_policy_is_read_and_every_shard_asks_for_it(directory, projector, client):
    """An applied plan acts on the next request: the shards' copy is what makes workers read it."""
    with pytest.raises(DirectoryIncomplete, match="no policy"):
        await directory.policy()
    await projector.publish_policy(policy_document(policy(1)), 1)
    await projector.publish_policy(policy_document(policy(2)), 2)
    assert await directory.policy() == policy(2)
    assert [await client.hget(ShardKeys(k).shard, "policy") for k in range(SHARDS)] == ["2"] * SHARDS


async def test_a_policy_never_goes_back(directory, projector, client):
    """Two keepers publish in any order; the newest stands, and stays."""
    for revision in (3, 2, 3):
        await projector.publish_policy(policy_document(policy(revision)), revision)
        assert await directory.policy() == policy(3)
        assert {await client.hget(ShardKeys(k).shard, "policy") for k in range(SHARDS)} == {"3"}
    assert 0 < await client.ttl(keys.policy_document(2)) <= 3600
    assert await client.ttl(keys.policy_document(3)) == -1


async def test_old_policies_go_and_the_newest_stays(projector, client):
    """A plan edited every minute must not fill Redis, and a worker in mid-reading must still find its own."""
    for revision in (1, 2, 3):
        await projector.publish_policy(policy_document(policy(revision)), revision)
    lives = [await client.ttl(keys.policy_document(revision)) for revision in (1, 2, 3)]
    assert lives[2] == -1
    assert all(3500 < life <= 3600 for life in lives[:2])


async def test_a_worker_told_of_a_policy_can_read_it(projector, client, directory):
    """Shards that ask for what is not there yet would stop every request meanwhile."""
    behind = []
    stop = asyncio.Event()

    async def watch() -> None:
        while not stop.is_set():
            asked = await client.hget(ShardKeys(SHARDS - 1).shard, "policy")
            behind.append((await directory.policy()).revision < int(asked))

    await projector.publish_policy(policy_document(policy(1)), 1)
    watching = asyncio.create_task(watch())
    for revision in range(2, 60):
        await projector.publish_policy(policy_document(policy(revision)), revision)
    stop.set()
    await watching
    assert len(behind) > 10
    assert not any(behind)


async def test_a_policy_of_a_newer_faregate_is_not_half_read(directory, projector):
    """During an upgrade half a policy could mean half of the limits."""
    await projector.publish_policy(policy_document(policy(1)) | {"surcharges": {}}, 1)
    with pytest.raises(DirectoryIncomplete, match="surcharges"):
        await directory.policy()


async def test_a_store_that_is_away_is_said_so_within_the_deadline(start_valkey):
    """503 within 300 ms: a look-up that waits longer than its deadline breaks that promise."""
    server = start_valkey()
    async with connect(server.url) as client:
        directory = RedisDirectory(client, SHARDS)
        await client.client_pause(10_000)
        for look_up in (directory.identity("d1"), directory.policy()):
            began = time.monotonic()
            with pytest.raises(StoreAway):
                await look_up
            assert time.monotonic() - began < 0.29
        server.kill()
        with pytest.raises(StoreAway):
            await directory.identity("d1")
