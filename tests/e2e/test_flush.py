"""A Redis that has lost its data: nothing is admitted against counters that nobody knows."""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis
from served import Gate

PLAN = """
id = "starter"
name = "Starter"
models = ["*"]
[[budgets]]
meter = "requests"
limit = 3
window = "P1D"
"""


async def test_after_a_flush_the_counters_are_rebuilt_before_anything_is_admitted(gate: Gate) -> None:
    """What was spent stays spent: the ledger says so, and the gate waits until Redis does too."""
    gate.write_plan("starter", PLAN)
    secret = await gate.customer("acme")
    await until_limited(gate)
    for _ in range(2):
        assert (await gate.chat(secret, max_tokens=5)).status == 200
    await gate.events(2)
    store = Redis.from_url(f"unix://{gate.folder}/var/store/valkey.sock")
    await store.flushall()
    statuses = []
    async with asyncio.timeout(15):
        while 402 not in statuses:
            statuses.append((await gate.chat(secret, max_tokens=5)).status)
            await asyncio.sleep(0.02)
    await store.aclose()
    assert statuses.count(200) == 1
    assert set(statuses) == {503, 200, 402}
    [budget] = (await gate.admin("GET", "/customers/acme/entitlements"))["budgets"]
    assert (budget["used"], budget["held"]) == (3, 0)


async def until_limited(gate: Gate) -> None:
    """Waits until the edited plan is live."""
    async with asyncio.timeout(5):
        while not (await gate.admin("GET", "/customers/acme/entitlements"))["budgets"]:
            await asyncio.sleep(0.02)
