"""The ledger away, or at odds with Redis: what goes on, what stops, and what is put right by itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gatehouse import assert_sound, budgets, kill, logged, nothing_held, open_house, plan, store_pid, until
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis
from served import ADMIN_TOKEN, Gate

from proxy.budgets.keys import ShardKeys
from proxy.domain.ids import shard_of

PLANS = {"counted": plan("counted", [("requests", 100_000), ("tokens", 10_000_000)])}
KEYS = ShardKeys(shard_of("acme", 16))


async def metrics(gate: Gate) -> dict[tuple[str, ...], float]:
    """What Prometheus would read: (name, label values...) -> value."""
    answer = await gate._ask("GET", f"{gate.admin_url}/metrics", ADMIN_TOKEN, None)
    families = text_string_to_metric_families(answer.body.decode())
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


@contextlib.contextmanager
def locked(ledger: Path) -> Iterator[None]:
    """As long as somebody else writes, nobody can: a database that is away, as SQLite has it."""
    connection = sqlite3.connect(ledger, isolation_level=None, timeout=10)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.rollback()
        connection.close()


def store_of(gate: Gate) -> Any:
    return Redis.from_url(f"unix://{gate.folder}/var/store/valkey.sock")


async def test_the_gate_closes_at_the_backlog_and_opens_when_the_ledger_has_caught_up(tmp_path: Path) -> None:
    """Redis is memory: without a bound a database that stays away fills it, and settles would be refused too."""
    more = "[ledger]\nbacklog_max_events = 50\n"
    async with open_house(tmp_path / "gate", PLANS, more=more) as house:
        gate = house.gate
        secret = await gate.customer("acme", "counted")
        assert (await gate.chat(secret, max_tokens=20)).status == 200
        await gate.events(1)
        house.upstream.hold()
        under_way = [asyncio.create_task(gate.chat(secret, max_tokens=20, stream=True)) for _ in range(3)]
        await house.upstream.arrived(4)
        statuses: list[int] = []

        async def closed() -> bool:
            answer = await gate.chat(secret, max_tokens=20)
            statuses.append(answer.status)
            return answer.status == 503 and answer.json()["error"]["code"] == "gate_unavailable"

        with locked(gate.folder / "var" / "ledger.sqlite3"):
            house.upstream.release()
            await until(closed, 20)
            assert (await closed(), await closed()) == (True, True)
            answered = await asyncio.gather(*under_way)
            assert {answer.status for answer in answered} == {200}
            assert statuses.count(200) >= 40
            seen = await metrics(gate)
            assert seen["faregate_ledger_backlog_full",] == 1
            assert seen["faregate_ledger_backlog_events",] >= 50
            assert seen["faregate_ledger_lag_seconds",] > 0
        calls = len(house.upstream.calls)

        async def open_again() -> bool:
            return (await gate.chat(secret, max_tokens=20)).status == 200

        await until(open_again, 20)
        await gate.events(calls + 1, within_s=20, customer_id="acme")
        await nothing_held(gate, "acme")
        await assert_sound(gate)

        async def told() -> bool:
            seen = await metrics(gate)
            return (seen["faregate_events_recorded_total",], seen["faregate_ledger_backlog_full",]) == (
                len(house.upstream.calls),
                0,
            )

        await until(told, 5)


async def test_a_drift_is_corrected_to_the_ledger_and_reported(tmp_path: Path) -> None:
    """An account that is wrong is put right without anybody's doing, and everybody can see that it was."""
    often = {"FAREGATE_CHAOS": json.dumps({"examine_s": 0.3})}
    async with open_house(tmp_path / "gate", PLANS, environment=often) as house:
        gate = house.gate
        secret = await gate.customer("acme", "counted")
        for _ in range(3):
            assert (await gate.chat(secret, max_tokens=20)).status == 200
        await gate.events(3)
        store = store_of(gate)
        [counter] = [key async for key in store.scan_iter(KEYS.counters + "*") if b"/requests/" in key]
        await store.hincrby(counter, "used", 40)
        await store.hincrby(counter, "held", 7)
        await store.aclose()

        async def mended() -> bool:
            now = (await budgets(gate, "acme"))["requests"]
            return (now["used"], now["held"]) == (3, 0)

        await until(mended, 15)
        await until(lambda: len(logged(gate, "drift.corrected")) == 2, 5)

        async def told() -> bool:
            seen = await metrics(gate)
            corrected = [seen.get(("faregate_drift_corrected_total", id)) for id in ("I1", "I4")]
            return corrected == [1, 1] and seen["faregate_invariant_ok", "I4"] == 1

        await until(told, 5)
        await assert_sound(gate)


async def test_a_redis_restored_from_an_older_copy_spends_nothing_twice_and_lets_nobody_in_again(
    tmp_path: Path,
) -> None:
    """A backup that somebody puts back while the gate serves: neither what was spent nor who was revoked since."""
    async with open_house(tmp_path / "gate", PLANS) as house:
        gate = house.gate
        secret = await gate.customer("acme", "counted")
        revoked = await gate.admin("POST", "/agents/acme-agent/secrets", {})
        for _ in range(2):
            assert (await gate.chat(secret, max_tokens=20)).status == 200
        assert (await gate.chat(revoked["secret"], max_tokens=20)).status == 200
        await gate.events(3)
        data, copy = gate.folder / "var" / "store" / "appendonlydir", tmp_path / "copy"
        shutil.copytree(data, copy)
        for _ in range(3):
            assert (await gate.chat(secret, max_tokens=20)).status == 200
        await gate.admin("DELETE", f"/agents/acme-agent/secrets/{revoked['id']}")
        assert (await gate.chat(revoked["secret"], max_tokens=20)).status == 401
        await gate.events(6)
        assert gate.process is not None
        gate.process.send_signal(signal.SIGSTOP)
        kill(store_pid(gate), signal.SIGKILL)
        shutil.rmtree(data)
        shutil.copytree(copy, data)
        gate.process.send_signal(signal.SIGCONT)
        statuses: set[int] = set()

        async def serves() -> bool:
            statuses.add((await gate.chat(revoked["secret"], max_tokens=20)).status)
            return (await gate.chat(secret, max_tokens=20)).status == 200

        await until(serves, 15)
        await serves()
        assert statuses <= {401, 503}
        assert 401 in statuses
        assert logged(gate, "store.older_than_the_ledger")
        await nothing_held(gate, "acme")
        assert (await budgets(gate, "acme"))["requests"]["used"] == len(house.upstream.calls)
        await gate.events(len(house.upstream.calls), customer_id="acme")
        await assert_sound(gate)


async def test_a_redis_older_than_the_ledger_is_closed(tmp_path: Path) -> None:
    """Put back behind what is recorded, a shard would let be spent again what was spent since."""
    async with open_house(tmp_path / "gate", PLANS) as house:
        gate = house.gate
        secret = await gate.customer("acme", "counted")
        for _ in range(4):
            assert (await gate.chat(secret, max_tokens=20)).status == 200
        await gate.events(4)
        store = store_of(gate)
        [counter] = [key async for key in store.scan_iter(KEYS.counters + "*") if b"/requests/" in key]
        epoch = await store.hget(KEYS.shard, "epoch")
        async with store.pipeline(transaction=True) as write:
            write.hset(counter, "used", 1)
            write.hset(KEYS.shard, "seq", 1)
            await write.execute()
        await until(lambda: logged(gate, "store.older_than_the_ledger"), 5)

        async def rebuilt() -> bool:
            return (await store.hget(KEYS.shard, "epoch")) not in (None, epoch)

        await until(rebuilt, 10)
        await store.aclose()
        assert (await budgets(gate, "acme"))["requests"]["used"] == 4

        async def serves() -> bool:
            return (await gate.chat(secret, max_tokens=20)).status == 200

        await until(serves, 10)
        assert (await metrics(gate))["faregate_shards_closed_total",] == 1
