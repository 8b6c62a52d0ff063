"""Every client library, changed in nothing but address and key, makes the calls that agents are made of."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.demo.scripts import Script, words
from tests.clients.conftest import Stage
from tests.clients.speakers import CROSSED, EMBEDDING, NATIVE, model_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

WEATHER = ({"name": "weather", "arguments": '{"city": "Oslo"}'},)
BOTH = ({"name": "weather", "arguments": '{"city": "Oslo"}'}, {"name": "weather", "arguments": '{"city": "Lima"}'})
TEXT = "".join(words(12))


def counted(numbers: dict[str, Any]) -> tuple[int, int]:
    return numbers["input_tokens"], numbers["output_tokens"]


def summed(events: list[dict[str, Any]]) -> tuple[int, int]:
    return sum(event["input_tokens"] for event in events), sum(event["output_tokens"] for event in events)


@pytest.mark.parametrize("case", ["plain", "streamed"])
@pytest.mark.parametrize(("client", "endpoint", "model"), NATIVE + CROSSED)
async def test_an_answer_and_its_usage_are_what_the_ledger_says(
    stage: Stage, client: str, endpoint: str, model: str, case: str
) -> None:
    """The text is the provider's, and the number that the agent's developer sees is the number that is billed."""
    id, secret = await stage.customer()
    said = await stage.call(client, endpoint, case, secret, model=model)
    result = said.well()
    [event] = await stage.gate.events(1, customer_id=id)
    assert result["text"] == TEXT
    assert counted(result) == counted(event)
    assert (event["usage_source"], event["status"]) == ("provider", "succeeded")
    assert event["streamed"] is (case == "streamed")
    assert len(said.requests) == 1


@pytest.mark.parametrize("calls", [WEATHER, BOTH], ids=["one", "two at once"])
@pytest.mark.parametrize("case", ["tools", "tools_streamed"])
@pytest.mark.parametrize(("client", "endpoint", "model"), NATIVE + CROSSED)
async def test_a_tool_is_called_and_its_result_goes_back(
    stage: Stage, client: str, endpoint: str, model: str, case: str, calls: tuple[dict[str, str], ...]
) -> None:
    """Agents are mostly tool calls: one lost piece is broken JSON, one lost id an answer without its question."""
    id, secret = await stage.customer()
    stage.upstream.script(Script(tool_calls=calls))
    said = await stage.call(client, endpoint, case, secret, model=model)
    result = said.well()
    cities = [json.loads(each["arguments"]) for each in calls]
    assert result["calls"] == cities
    assert result["text"] == TEXT
    events = await stage.gate.events(2, customer_id=id)
    assert counted(result) == summed(events)
    assert len(said.requests) == 2
    _, second = stage.upstream.calls
    sent_back = json.dumps(second.body)
    assert [city for city in cities if f"It rains in {city['city']}." not in sent_back] == []


@pytest.mark.parametrize("model", ["small", "claude"])
@pytest.mark.parametrize(
    "client",
    ["openai-python", "openai-node", "langchain-openai", "openai-agents", "ai-sdk-openai-compatible", "litellm"],
)
async def test_a_stream_without_usage_breaks_no_naive_reader(stage: Stage, client: str, model: str) -> None:
    """The gate asks the provider for usage always; who did not ask must not meet a chunk without choices."""
    id, secret = await stage.customer()
    said = await stage.call(client, "chat", "naive", secret, model=model)
    assert said.well()["text"] == TEXT
    [event] = await stage.gate.events(1, customer_id=id)
    assert (event["usage_source"], event["output_tokens"]) == ("provider", 12)


@pytest.mark.parametrize("client", EMBEDDING)
async def test_embeddings_arrive_and_are_counted(stage: Stage, client: str) -> None:
    """Some libraries ask for base64 unasked, and count what it says of itself."""
    id, secret = await stage.customer()
    said = await stage.call(client, "embeddings", "plain", secret, model="embed")
    result = said.well()
    [event] = await stage.gate.events(1, customer_id=id)
    assert result["vectors"] == 2
    assert len(result["sizes"]) == 1
    assert result["input_tokens"] in (event["input_tokens"], None)
    assert (event["output_tokens"], event["usage_source"], len(said.requests)) == (0, "provider", 1)


ADDRESSED = [
    ("openai-python", "chat", "plain", "/v1/chat/completions", ["authorization"]),
    ("openai-python", "responses", "plain", "/v1/responses", ["authorization"]),
    ("pydantic-ai", "responses", "by_name", "/v1/responses", ["authorization"]),
    ("openai-agents", "responses", "by_name", "/v1/responses", ["authorization"]),
    ("ai-sdk-openai", "responses", "plain", "/v1/responses", ["authorization"]),
    ("ai-sdk-openai-compatible", "chat", "plain", "/v1/chat/completions", ["authorization"]),
    ("anthropic-python", "messages", "plain", "/v1/messages", ["authorization"]),
    ("anthropic-python", "messages", "beta", "/v1/messages?beta=true", ["authorization"]),
    ("anthropic-typescript", "messages", "plain", "/v1/messages", ["authorization"]),
    ("anthropic-typescript", "messages", "beta", "/v1/messages?beta=true", ["authorization"]),
    ("ai-sdk-anthropic", "messages", "plain", "/v1/messages", ["x-api-key"]),
]


@pytest.mark.parametrize(("client", "endpoint", "case", "target", "keys"), ADDRESSED)
async def test_a_client_meets_the_endpoint_that_it_prefers(
    stage: Stage, client: str, endpoint: str, case: str, target: str, keys: list[str]
) -> None:
    """What a library calls when nobody tells it must be served, with the key where the library puts it."""
    _, secret = await stage.customer()
    said = await stage.call(client, endpoint, case, secret, model=model_of(client, endpoint))
    assert said.well()["text"] == TEXT
    [request] = said.requests
    assert request.target == target
    assert request.key_headers == keys


@pytest.mark.parametrize("model", ["claude", "small"])
@pytest.mark.parametrize("client", ["anthropic-python", "anthropic-typescript"])
async def test_tokens_are_counted_before_they_are_bought(stage: Stage, client: str, model: str) -> None:
    """Agents ask how large their context is; that costs no tokens."""
    _, secret = await stage.customer()
    said = await stage.call(client, "messages", "counted", secret, model=model)
    assert said.well()["input_tokens"] >= 1
    assert [request.target for request in said.requests] == ["/v1/messages/count_tokens"]
