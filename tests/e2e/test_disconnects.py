"""Clients that leave: the provider bills what it produced, so the attempt is read on and settled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from gatehouse import House, assert_sound, budgets, nothing_held, open_house, plan, until

from proxy.demo.scripts import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLANS = {"counted": plan("counted", [("tokens", 100_000), ("requests", 1_000)])}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_house(tmp_path_factory.mktemp("disconnects"), PLANS) as opened:
        yield opened
        opened.upstream.release()


async def _connected(house: House) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", house.gate.port)


def _request(secret: str, **fields: Any) -> bytes:
    body = json.dumps(
        {"model": "small", "messages": [{"role": "user", "content": "hello there"}], **fields}
    ).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {secret}\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def _alone(house: House, customer: str) -> dict[str, Any]:
    """The customer's one event, and its counters agreeing with it."""
    [event] = await house.gate.events(1, customer_id=customer)
    now = await nothing_held(house.gate, customer)
    assert now["tokens"]["used"] == event["input_tokens"] + event["output_tokens"]
    assert now["requests"]["used"] == 1
    await assert_sound(house.gate)
    return event


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_who_leaves_before_the_body_is_complete_has_asked_nothing(house: House, how: str) -> None:
    """Half a request is no request: no reservation, no call, no event."""
    gate, upstream = house.gate, house.upstream
    secret = await gate.customer(f"half-{how}", "counted")
    upstream.forget()
    _, writer = await _connected(house)
    writer.write(_request(secret)[:-5])
    await writer.drain()
    # The gate is at work on it: it has read what there is.
    assert (await gate.get("/v1/entitlements", secret)).status == 200
    if how == "reset":
        writer.transport.abort()
    else:
        writer.close()
        await writer.wait_closed()
    assert (await gate.chat(secret, max_tokens=20)).status == 200
    assert len(upstream.calls) == 1
    await _alone(house, f"half-{how}")


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_who_leaves_while_a_plain_answer_is_awaited_pays_what_it_came_to(house: House, how: str) -> None:
    """The provider finishes and bills the answer, whoever reads it."""
    gate, upstream = house.gate, house.upstream
    customer = f"plain-{how}"
    secret = await gate.customer(customer, "counted")
    upstream.forget()
    upstream.hold()
    upstream.script(Script(output_tokens=9))
    _, writer = await _connected(house)
    writer.write(_request(secret, max_tokens=20))
    await house.arrived(1)
    assert (await budgets(gate, customer))["requests"]["held"] == 1
    if how == "reset":
        writer.transport.abort()
    else:
        writer.close()
    await asyncio.sleep(0.05)
    upstream.release()
    event = await _alone(house, customer)
    assert (event["status"], event["usage_source"], event["billable"]) == ("cancelled", "provider", True)
    assert (event["input_tokens"], event["output_tokens"]) == (2, 9)


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_who_leaves_in_a_stream_leaves_one_row_with_the_providers_usage(house: House, how: str) -> None:
    """The stream is drained to its usage report: an estimate would be a guess at money."""
    gate, upstream = house.gate, house.upstream
    customer = f"stream-{how}"
    secret = await gate.customer(customer, "counted")
    upstream.forget()
    upstream.script(Script(output_tokens=20, chunk_delay_s=0.02))
    reader, writer = await _connected(house)
    writer.write(_request(secret, max_tokens=100, stream=True))
    await reader.readuntil(b"stands")
    if how == "reset":
        writer.transport.abort()
    else:
        writer.close()
    event = await _alone(house, customer)
    assert (event["status"], event["usage_source"], event["streamed"]) == ("cancelled", "provider", True)
    assert (event["input_tokens"], event["output_tokens"], event["billable"]) == (2, 20, True)
    assert upstream.calls[0].finished


async def test_a_client_that_closes_right_after_done_has_succeeded(house: House) -> None:
    """Clients close at `[DONE]` without reading the end of the body: that is success, not a cancellation."""
    gate, upstream = house.gate, house.upstream
    secret = await gate.customer("done", "counted")
    upstream.forget()
    reader, writer = await _connected(house)
    writer.write(_request(secret, max_tokens=20, stream=True))
    await reader.readuntil(b"data: [DONE]\n\n")
    writer.transport.abort()
    assert (await _alone(house, "done"))["status"] == "succeeded"


async def test_a_crowd_that_leaves_at_once_leaks_nothing(house: House) -> None:
    """An agent's host that is restarted drops all its calls in one moment."""
    gate, upstream = house.gate, house.upstream
    secret = await gate.customer("crowd", "counted")
    upstream.forget()
    upstream.hold()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        calls = [
            asyncio.create_task(
                session.post(
                    f"{gate.url}/v1/chat/completions",
                    headers={"authorization": f"Bearer {secret}"},
                    json={
                        "model": "small",
                        "max_tokens": 20,
                        "stream": at % 2 == 0,
                        "messages": [{"role": "user", "content": "hello there"}],
                    },
                )
            )
            for at in range(40)
        ]
        await house.arrived(40)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    upstream.release()
    events = await gate.events(40, customer_id="crowd")
    assert {(event["status"], event["usage_source"]) for event in events} == {("cancelled", "provider")}
    now = await nothing_held(gate, "crowd")
    assert now["tokens"]["used"] == sum(call.input_tokens + call.output_tokens for call in upstream.calls)
    await until(lambda: len(upstream.calls) == 40)
    await assert_sound(gate)
