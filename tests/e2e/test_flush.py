"""A Redis that has lost its data: nothing is admitted against counters that nobody knows, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from served import Gate

from proxy.demo.scripted_upstream import ScriptedUpstream

PLAN = """
id = "starter"
name = "Starter"
models = ["*"]
[[budgets]]
meter = "requests"
limit = {limit}
window = "P1D"
"""


@pytest.fixture
async def limited(gate: Gate) -> str:
    """The secret of a customer with three requests a day."""
    return await customer_of(gate, 3)


@pytest.fixture
async def redis(gate: Gate) -> AsyncIterator[Redis]:
    """The embedded store, by the back door."""
    async with Redis.from_url(f"unix://{gate.folder}/var/store/valkey.sock") as store:
        yield store


async def customer_of(gate: Gate, limit: int) -> str:
    gate.write_plan("starter", PLAN.format(limit=limit))
    secret = await gate.customer("acme")
    async with asyncio.timeout(5):
        while not (await gate.admin("GET", "/customers/acme/entitlements"))["budgets"]:
            await asyncio.sleep(0.02)
    return secret


async def balance(gate: Gate) -> tuple[int, int]:
    [budget] = (await gate.admin("GET", "/customers/acme/entitlements"))["budgets"]
    return budget["used"], budget["held"]


async def test_after_a_flush_the_counters_are_rebuilt_before_anything_is_admitted(
    gate: Gate, limited: str, redis: Redis
) -> None:
    """What was spent stays spent: the ledger says so, and the gate waits until Redis does too."""
    for _ in range(2):
        assert (await gate.chat(limited, max_tokens=5)).status == 200
    await gate.events(2)
    await redis.flushall()
    statuses = []
    async with asyncio.timeout(15):
        while 402 not in statuses:
            statuses.append((await gate.chat(limited, max_tokens=5)).status)
            await asyncio.sleep(0.02)
    assert statuses.count(200) == 1
    assert set(statuses) == {503, 200, 402}
    assert await balance(gate) == (3, 0)


async def test_what_is_under_way_stays_held_through_a_flush(
    gate: Gate, limited: str, redis: Redis, upstream: ScriptedUpstream
) -> None:
    """Two calls are with the provider when Redis forgets them: one place is left, and not three."""
    upstream.hold()
    under_way = [asyncio.ensure_future(gate.chat(limited, max_tokens=5)) for _ in range(2)]
    await upstream.arrived(2)
    await redis.flushall()
    async with asyncio.timeout(15):
        while await balance(gate) != (0, 2):
            await asyncio.sleep(0.02)
        while (third := await asyncio.wait_for(first_of(gate, limited), 5)) == 503:
            await asyncio.sleep(0.02)
    assert third == "held back"
    assert (await gate.chat(limited, max_tokens=5)).status == 402
    upstream.release()
    assert [(await call).status for call in under_way] == [200, 200]
    events = await gate.events(3)
    assert {event["status"] for event in events} <= {"succeeded", "cancelled"}
    assert await balance(gate) == (3, 0)
    assert (await gate.admin("GET", "/invariants"))["ok"]


async def first_of(gate: Gate, secret: str) -> int | str:
    """A call's status if it is refused at once; "held back" if it is with the provider."""
    try:
        async with asyncio.timeout(0.5):
            return (await gate.chat(secret, max_tokens=5)).status
    except TimeoutError:
        return "held back"


async def test_what_redis_acknowledged_and_the_ledger_had_not_yet_is_not_lost(
    gate: Gate, redis: Redis, upstream: ScriptedUpstream
) -> None:
    """Flushes in the middle of traffic: each call the provider answered is recorded, once."""
    secret = await customer_of(gate, 1_000_000)

    async def calls(count: int) -> None:
        for _ in range(count):
            await gate.chat(secret, max_tokens=5)

    async def flushes() -> None:
        for _ in range(3):
            await asyncio.sleep(0.7)
            await redis.flushall()

    await asyncio.gather(flushes(), *(calls(120) for _ in range(8)))
    reached = len(upstream.calls)
    assert reached > 100
    async with asyncio.timeout(15):
        while not (await gate.admin("GET", "/invariants"))["ok"] or await balance(gate) != (reached, 0):
            await asyncio.sleep(0.2)
    events = await gate.events(reached)
    assert len({event["id"] for event in events}) == reached
