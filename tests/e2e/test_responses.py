"""Responses through a real gate: carried natively, metered, and kept for the customer that made them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from gatehouse import House, budgets, open_house, plan, until
from served import MODELS, PROVIDER_KEY, Answer

from proxy.demo.scripts import Script

# As many tokens as the contexts of three calls, none of which can be bounded by its body.
ROOMY = 400_000
OTHER = """
[models."elsewhere"]
upstream = "other"
upstream_model = "small-upstream"
max_output_tokens = 4096
context_tokens = 128000
output_limit_field = "max_tokens"
price = { input = "0.15", output = "0.60" }
"""
UPSTREAMS = '[upstreams.other]\nwire = "openai"\nbase_url = "{upstream}"\napi_key_env = "OPENAI_API_KEY"'


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    plans = {
        "roomy": plan("roomy", [("tokens", ROOMY), ("cost_usd", "10")]),
        "tight": plan("tight", [("tokens", 400)]),
        "rolling": plan("rolling", [("tokens", 430)], more='hold = "rolling"'),
    }
    async with open_house(tmp_path / "gate", plans, models=MODELS + OTHER, more=UPSTREAMS) as opened:
        yield opened


async def ask(house: House, secret: str, **fields: Any) -> Answer:
    body = {"model": "small", "input": "hello there", "max_output_tokens": 20, **fields}
    return await house.gate._ask("POST", f"{house.gate.url}/v1/responses", secret, body)


async def of(house: House, method: str, path: str, secret: str) -> Answer:
    return await house.gate._ask(method, f"{house.gate.url}/v1/responses/{path}", secret, None)


@contextlib.asynccontextmanager
async def streaming(house: House, secret: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """A stream that has begun; leaving the block leaves the stream."""
    body = {"model": "small", "input": "hello", "stream": True}
    url = f"{house.gate.url}/v1/responses"
    headers = {"authorization": f"Bearer {secret}"}
    async with aiohttp.ClientSession(headers=headers) as session, session.post(url, json=body) as response:
        yield response


async def all_of(response: aiohttp.ClientResponse, got: list[bytes]) -> None:
    while data := await response.content.readany():
        got.append(data)


def events_of(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in stream.split(b"\n") if line.startswith(b"data: {")]


async def test_responses_are_carried_metered_and_kept(house: House) -> None:
    """Plain and streamed, with the customer's record of each: one story at one gate."""
    acme = await house.gate.customer("acme", "roomy")
    rival = await house.gate.customer("rival", "roomy")
    await _plain_and_streamed(house, acme)
    await _continued(house, acme, rival)
    await _shown_and_deleted(house, acme, rival)
    await _refused(house, acme)


async def _plain_and_streamed(house: House, acme: str) -> None:
    answer = await ask(house, acme, user="u-1", metadata={"run_id": "r-1"})
    assert answer.status == 200, answer.body
    usage = answer.json()["usage"]
    [event] = await house.gate.events(1)
    assert (event["input_tokens"], event["output_tokens"]) == (usage["input_tokens"], usage["output_tokens"])
    assert (event["endpoint"], event["user_id"], event["run_id"]) == ("/v1/responses", "u-1", "r-1")
    assert (event["status"], event["usage_source"], event["billable"]) == ("succeeded", "provider", True)
    assert house.upstream.calls[-1].body["max_output_tokens"] == 20
    headers = {name.lower(): value for name, value in house.upstream.calls[-1].headers.items()}
    assert headers["authorization"] == f"Bearer {PROVIDER_KEY}"
    answer = await ask(house, acme, stream=True)
    events = events_of(answer.body)
    assert [each["sequence_number"] for each in events] == list(range(len(events)))
    assert events[-1]["type"] == "response.completed"
    event = (await house.gate.events(2))[0]
    assert (event["streamed"], event["output_tokens"]) == (True, events[-1]["response"]["usage"]["output_tokens"])
    house.upstream.script(Script(error_after=3))
    answer = await ask(house, acme, stream=True)
    assert events_of(answer.body)[-1]["type"] == "response.failed"
    event = (await house.gate.events(3))[0]
    assert (event["status"], event["usage_source"], event["output_tokens"]) == ("failed", "provider", 3)


async def _continued(house: House, acme: str, rival: str) -> None:
    first = (await ask(house, acme)).json()
    held = (await budgets(house.gate, "acme"))["tokens"]["used"]
    second = await ask(house, acme, previous_response_id=first["id"], stream=True)
    assert second.status == 200, second.body
    told = events_of(second.body)[-1]["response"]
    assert told["usage"]["input_tokens"] == first["usage"]["total_tokens"] + 2
    assert (await budgets(house.gate, "acme"))["tokens"]["used"] == held + told["usage"]["total_tokens"]
    calls = len(house.upstream.calls)
    unknown = await ask(house, acme, previous_response_id="resp_nobodys")
    foreign = await ask(house, rival, previous_response_id=first["id"])
    assert unknown.status == foreign.status == 404
    assert foreign.json()["error"]["code"] == "previous_response_not_found"
    assert (
        unknown.json()["error"]["message"].replace("resp_nobodys", first["id"])
        == foreign.json()["error"]["message"]
    )
    item = {"type": "item_reference", "id": first["output"][0]["id"]}
    assert (await ask(house, rival, input=[item])).status == 404
    away = await ask(house, acme, model="elsewhere", previous_response_id=first["id"])
    assert (away.status, away.json()["error"]["param"]) == (400, "previous_response_id")
    assert len(house.upstream.calls) == calls
    assert (await ask(house, acme, input=[item, {"role": "user", "content": "go on"}])).status == 200
    unkept = (await ask(house, acme, store=False)).json()
    assert (await ask(house, acme, previous_response_id=unkept["id"])).status == 404


async def _shown_and_deleted(house: House, acme: str, rival: str) -> None:
    made = (await ask(house, acme)).json()
    events = len(await house.gate.events(len([c for c in house.upstream.calls if c.path == "/v1/responses"])))
    id = made["id"]
    calls = len(house.upstream.calls)
    unknown, foreign = await of(house, "GET", "resp_nobodys", acme), await of(house, "GET", id, rival)
    assert (unknown.status, foreign.status) == (404, 404)
    assert unknown.json()["error"]["message"].replace("resp_nobodys", id) == foreign.json()["error"]["message"]
    assert (await of(house, "DELETE", id, rival)).status == 404
    assert (await of(house, "GET", id, "fg_live_nonsense")).status == 401
    for path in (f"{id}/input_items", f"{id}/cancel", "", "compact", "input_tokens"):
        assert (await of(house, "GET", path, acme)).status == 404, path
    assert (await of(house, "GET", f"{id}?stream=true", acme)).status == 400
    assert (await of(house, "GET", f"{id}?starting_after=3", acme)).status == 400
    assert (await of(house, "POST", id, acme)).status == 405
    assert len(house.upstream.calls) == calls
    shown = await of(house, "GET", f"{id}?include[]=reasoning.encrypted_content", acme)
    assert (shown.status, shown.json()) == (200, made)
    call = house.upstream.calls[-1]
    assert call.body == {"method": "GET", "query": "include[]=reasoning.encrypted_content"}
    assert acme not in str(call.headers)
    house.upstream.script(Script(status=401))
    failed = await of(house, "GET", id, acme)
    assert (failed.status, failed.json()["error"]["type"]) == (502, "upstream_error")
    deleted = await of(house, "DELETE", id, acme)
    assert (deleted.status, deleted.json()["deleted"]) == (200, True)
    assert (await of(house, "GET", id, acme)).status == 404
    assert (await ask(house, acme, previous_response_id=id)).status == 404
    assert len(await house.gate.events(events)) == events


async def _refused(house: House, acme: str) -> None:
    calls = len(house.upstream.calls)
    for field, value in (("background", True), ("conversation", "conv_1"), ("prompt", {"id": "pmpt_1"})):
        answer = await ask(house, acme, **{field: value})
        assert (answer.status, answer.json()["error"]["param"]) == (400, field)
        assert answer.json()["error"]["code"] == "unsupported_parameter"
    answer = await ask(house, acme, tools=[{"type": "web_search"}])
    assert (answer.status, answer.json()["error"]["code"]) == (403, "feature_not_allowed")
    assert len(house.upstream.calls) == calls


async def test_budgets_fallbacks_and_leaving_clients(house: House) -> None:
    """A denial is OpenAI's; what falls back is metered where it was served; who leaves pays for what was made."""
    await _denied(house)
    await _cut_short(house)
    await _fallen_back(house)
    await _left(house)
    await _broken_off(house)


async def _denied(house: House) -> None:
    secret = await house.gate.customer("poor", "tight")
    answer = await ask(house, secret, max_output_tokens=4000)
    assert answer.status == 402
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("insufficient_quota", "insufficient_quota", None)
    assert error["budget"]["meter"] == "tokens"
    assert answer.headers["x-should-retry"] == "false"
    assert house.upstream.calls == []
    assert (await ask(house, secret, max_output_tokens=None)).status == 200
    assert house.upstream.calls[0].output_limit is not None
    assert house.upstream.calls[0].output_limit < 400


async def _cut_short(house: House) -> None:
    secret = await house.gate.customer("roller", "rolling")
    house.upstream.script(Script(output_tokens=2_000, chunk_delay_s=0.001))
    answer = await ask(house, secret, stream=True, max_output_tokens=None)
    events = events_of(answer.body)
    assert [each["sequence_number"] for each in events] == list(range(len(events)))
    assert [each["type"] for each in events[-3:]] == [
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    text = "".join(each["delta"] for each in events if each["type"] == "response.output_text.delta")
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == text
    [event] = await house.gate.events(1, customer_id="roller")
    assert (event["status"], event["error_type"], event["usage_source"]) == (
        "succeeded",
        "budget_spent",
        "estimated",
    )


async def _fallen_back(house: House) -> None:
    secret = await house.gate.customer("faller", "roomy")
    house.upstream.script(Script(model="large-upstream", status=500, times=0))
    answer = await ask(house, secret, model="large", stream=True)
    assert (answer.status, answer.headers["faregate-model"]) == (200, "small")
    assert events_of(answer.body)[-1]["type"] == "response.completed"


async def _left(house: House) -> None:
    secret = await house.gate.customer("leaver", "roomy")
    house.upstream.script(Script(output_tokens=60, chunk_delay_s=0.02))
    async with streaming(house, secret) as response:
        while b"response.output_text.delta" not in await response.content.readany():
            pass
    [event] = await house.gate.events(1, customer_id="leaver")
    assert (event["status"], event["usage_source"]) == ("cancelled", "provider")
    made = house.upstream.calls[-1].output_tokens
    assert event["output_tokens"] == made == 60
    held = await until(lambda: _held(house, "leaver"))
    assert held == {0}


async def _held(house: House, customer: str) -> set[Any]:
    await asyncio.sleep(0)
    return {float(budget["held"]) for budget in (await budgets(house.gate, customer)).values()}


async def _broken_off(house: House) -> None:
    """Nobody may take half an answer for a whole one."""
    secret = await house.gate.customer("broken", "roomy")
    house.upstream.script(Script(breaks_after_bytes=2_500, breaks="reset", chunk_delay_s=0.002))
    got: list[bytes] = []
    async with streaming(house, secret) as response:
        await all_of(response, got)
    last = events_of(b"".join(got))[-1]
    assert (last["type"], last["response"]["error"]["code"]) == ("response.failed", "upstream_reset")
    [event] = await house.gate.events(1, customer_id="broken")
    assert (event["status"], event["usage_source"]) == ("failed", "estimated")
