"""Anthropic's clients before models of other wires: the answer is a Message, the usage the provider's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from gatehouse import House, assert_sound, nothing_held, open_house, plan
from served import Answer

from proxy.demo.scripts import Script, words

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = """
[models."{id}"]
upstream = "{upstream}"
upstream_model = "{id}-upstream"
max_output_tokens = 4096
context_tokens = 128000
output_limit_field = "max_tokens"
price = {{ input = "0.15", output = "0.60" }}
"""
MODELS = MODEL.format(id="small", upstream="openai") + MODEL.format(id="crossed", upstream="other")
OTHER = """
[upstreams.other]
wire = "litellm"
provider = "openai"
base_url = "{upstream}"
api_key_env = "OPENAI_API_KEY"
first_byte_timeout_s = 10
"""
PLANS = {
    "starter": plan("starter", [("tokens", 1_000_000)]),
    "tiny": plan("tiny", [("tokens", 10)]),
    "rolling": plan("rolling", [("tokens", 1_500)], more='hold = "rolling"'),
}
HELLO = {"role": "user", "content": "hello there"}
WEATHER = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
CALLS = ({"name": "weather", "arguments": '{"city":"Rome"}'}, {"name": "weather", "arguments": '{"city":"Bonn"}'})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_house(tmp_path_factory.mktemp("gate"), PLANS, models=MODELS, more=OTHER) as house:
        yield house
        await assert_sound(house.gate)


async def ask(house: House, secret: str, path: str = "/v1/messages?beta=true", **fields: Any) -> Answer:
    """As Anthropic's SDK asks: its own key header, version and betas."""
    session = house.gate.session
    assert session is not None
    headers = {
        "x-api-key": secret,
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14",
    }
    body = {"max_tokens": 100, "messages": [HELLO], **fields}
    async with session.post(house.gate.url + path, headers=headers, json=body) as response:
        return Answer(response.status, response.headers, await response.read())


def events_of(answer: Answer) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in answer.body.decode().split("\n") if line.startswith("data: ")]


@pytest.mark.parametrize("model", ["small", "crossed"])
async def test_plain_and_streamed_messages_are_answered_and_metered(house: House, model: str) -> None:
    """The whole way, natively and through LiteLLM: one event each, with what the provider reports."""
    house.upstream.forget()
    secret = await house.gate.customer(f"acme-{model}")
    plain = await ask(house, secret, model=model, system=[{"type": "text", "text": "Be brief."}])
    assert plain.status == 200, plain.body
    said = plain.json()
    assert (said["type"], said["model"], said["stop_reason"]) == ("message", model, "end_turn")
    assert said["content"] == [{"type": "text", "text": "".join(words(12))}]
    assert said["usage"]["input_tokens"] == 4

    streamed = await ask(house, secret, model=model, stream=True)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    told = events_of(streamed)
    assert [told[0]["type"], told[-2]["type"], told[-1]["type"]] == [
        "message_start",
        "message_delta",
        "message_stop",
    ]
    assert "".join(e["delta"]["text"] for e in told if e["type"] == "content_block_delta") == "".join(words(12))
    assert told[-2]["usage"]["output_tokens"] == 12

    for event in await house.gate.events(2, customer_id=f"acme-{model}"):
        assert event["endpoint"] == "/v1/messages"
        assert (event["status"], event["usage_source"], event["billable"]) == ("succeeded", "provider", True)
        assert event["output_tokens"] == 12
        assert event["input_tokens"] == (2 if event["streamed"] else 4)
    sent = house.upstream.calls[0]
    assert (sent.path, sent.model) == ("/v1/chat/completions", f"{model}-upstream")
    assert sent.output_limit == 100
    assert not [name for name in sent.headers if name.lower().startswith("anthropic")]
    await nothing_held(house.gate, f"acme-{model}")


@pytest.mark.parametrize("model", ["small", "crossed"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_round_of_tools_goes_there_and_back(house: House, model: str, stream: bool) -> None:
    """An agent is nothing but this loop."""
    house.upstream.forget()
    name = f"tools-{model}-{int(stream)}"
    secret = await house.gate.customer(name)
    house.upstream.script(Script(tool_calls=CALLS))
    first = await ask(house, secret, model=model, tools=[WEATHER], stream=stream)
    assert first.status == 200, first.body
    if stream:
        starts = [e["content_block"] for e in events_of(first) if e["type"] == "content_block_start"]
        deltas = [e for e in events_of(first) if e["type"] == "content_block_delta"]
        content = [
            {**block, "input": json.loads("".join(e["delta"]["partial_json"] for e in deltas if e["index"] == at))}
            for at, block in enumerate(starts)
        ]
    else:
        content = first.json()["content"]
    assert [block["input"] for block in content] == [{"city": "Rome"}, {"city": "Bonn"}]

    results = [{"type": "tool_result", "tool_use_id": block["id"], "content": "fair"} for block in content]
    turns = [HELLO, {"role": "assistant", "content": content}, {"role": "user", "content": results}]
    second = await ask(house, secret, model=model, tools=[WEATHER], messages=turns)
    assert second.status == 200, second.body
    sent = house.upstream.calls[-1].body["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool"]
    assert [call["id"] for call in sent[1]["tool_calls"]] == [message["tool_call_id"] for message in sent[2:]]
    assert [call["function"] for call in sent[1]["tool_calls"]] == [
        {"name": "weather", "arguments": json.dumps(json.loads(call["arguments"]))} for call in CALLS
    ]


async def test_tokens_are_counted_and_nothing_is_charged(house: House) -> None:
    """Claude Code counts before it sends, and a model on another wire has no such endpoint."""
    house.upstream.forget()
    secret = await house.gate.customer("counting")
    path = "/v1/messages/count_tokens?beta=true"
    answer = await ask(house, secret, path, model="small", messages=[{"role": "user", "content": "x" * 4_000}])
    assert answer.status == 200, answer.body
    assert 900 <= answer.json()["input_tokens"] <= 1_100
    assert house.upstream.calls == []
    budgets = await nothing_held(house.gate, "counting")
    assert budgets["tokens"]["used"] == 0


async def test_denials_are_told_as_anthropic_tells_them(house: House) -> None:
    """A spent budget, and a field that cannot be carried: each once, in the client's own shape."""
    house.upstream.forget()
    secret = await house.gate.customer("poor", plan="tiny")
    denied = await ask(house, secret, model="small")
    assert denied.status == 402
    assert denied.json()["error"]["type"] == "billing_error"
    secret = await house.gate.customer("reader")
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}
    for model in ("small", "crossed"):
        refused = await ask(house, secret, model=model, messages=[{"role": "user", "content": [pdf]}])
        assert refused.status == 400
        said = refused.json()
        assert (said["type"], said["error"]["type"]) == ("error", "invalid_request_error")
        assert "'messages.0.content.0.source'" in said["error"]["message"]
    assert house.upstream.calls == []
    budgets = await nothing_held(house.gate, "reader")
    assert budgets["tokens"]["used"] == 0


async def test_an_upstream_that_breaks_off_ends_the_message_with_an_error(house: House) -> None:
    """Never as if it were whole; what had come is charged."""
    house.upstream.forget()
    secret = await house.gate.customer("broken")
    house.upstream.script(Script(breaks_after_bytes=1_500))
    session = house.gate.session
    assert session is not None
    body = {"model": "small", "max_tokens": 100, "messages": [HELLO], "stream": True}
    url = house.gate.url + "/v1/messages"
    async with session.post(url, headers={"x-api-key": secret}, json=body) as response:
        answer = await response.read()
    assert b"event: error" in answer
    assert b"message_stop" not in answer
    [event] = await house.gate.events(1, customer_id="broken")
    assert (event["status"], event["usage_source"]) == ("failed", "estimated")
    assert event["output_tokens"] >= 1


async def test_a_rolling_hold_ends_the_message_by_its_length(house: House) -> None:
    """The end looks like one of the message's own limit, and is complete."""
    house.upstream.forget()
    secret = await house.gate.customer("rolling", plan="rolling")
    house.upstream.script(Script(output_tokens=4_000, chunk_delay_s=0.001))
    answer = await ask(house, secret, model="small", max_tokens=4_000, stream=True)
    assert answer.status == 200, answer.body
    told = events_of(answer)
    assert [e["type"] for e in told[-3:]] == ["content_block_stop", "message_delta", "message_stop"]
    assert told[-2]["delta"]["stop_reason"] == "max_tokens"
    [event] = await house.gate.events(1, customer_id="rolling")
    assert event["endpoint"] == "/v1/messages"
    assert event["output_tokens"] < 1_600
