"""One metered call, end to end through real processes: the least that must always work."""

from __future__ import annotations

import asyncio
import json

from redis.asyncio import Redis
from served import Gate

from proxy.demo.scripted_upstream import ScriptedUpstream

PLAN = """
id = "starter"
name = "Starter"
models = ["*"]
[[budgets]]
meter = "tokens"
limit = 100000
[[budgets]]
meter = "cost_usd"
limit = 1
"""


async def test_a_plain_call_is_answered_metered_and_recorded(gate: Gate, upstream: ScriptedUpstream) -> None:
    secret = await gate.customer("acme")
    answer = await gate.chat(secret, max_tokens=20)
    assert answer.status == 200, answer.body
    usage = answer.json()["usage"]
    [event] = await gate.events(1)
    assert (event["input_tokens"], event["output_tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert (event["status"], event["usage_source"], event["billable"]) == ("succeeded", "provider", True)
    assert event["id"] == f"{answer.headers['x-request-id']}:0"


async def test_a_stream_is_whole_and_metered_without_the_chunk_nobody_asked_for(
    gate: Gate, upstream: ScriptedUpstream
) -> None:
    secret = await gate.customer("acme")
    answer = await gate.chat(secret, max_tokens=20, stream=True)
    events = [line[6:] for line in answer.body.decode().split("\n") if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    assert all(json.loads(event)["choices"] for event in events[:-1])
    [event] = await gate.events(1)
    assert (event["streamed"], event["usage_source"]) == (True, "provider")
    assert event["output_tokens"] == upstream.calls[-1].output_tokens


async def test_every_invariant_holds_after_calls_of_every_kind(gate: Gate) -> None:
    """`faregate doctor` asks the same; and it must notice a counter that says something else than the ledger."""
    gate.write_plan("starter", PLAN)
    secret = await gate.customer("acme")
    async with asyncio.timeout(5):
        while not (await gate.admin("GET", "/customers/acme/entitlements"))["budgets"]:
            await asyncio.sleep(0.02)
    for fields in ({}, {"stream": True}, {"max_tokens": 5}, {"model": "large"}, {"model": "none"}):
        await gate.chat(secret, **fields)
    await gate.events(4)
    report = await gate.admin("GET", "/invariants")
    assert report["ok"], report
    assert [check["id"] for check in report["checks"]] == ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "audit_log"]
    async with Redis.from_url(f"unix://{gate.folder}/var/store/valkey.sock") as store:
        [counter] = [key async for key in store.scan_iter("faregate:{s*}:b:acme/*/tokens/*")]
        await store.hincrby(counter, "used", 200_000)
    report = await gate.admin("GET", "/invariants")
    assert [check["id"] for check in report["checks"] if not check["ok"]] == ["I4", "I7"]
