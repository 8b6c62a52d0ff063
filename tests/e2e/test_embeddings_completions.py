"""Embeddings and completions through a whole gate: what goes over the wire, what is charged, what is refused."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import openai
import pytest
import pytest_asyncio
from gatehouse import House, assert_sound, budgets, nothing_held, open_house, plan
from served import MODELS, Answer

from proxy.demo.scripts import Script

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211"),
]

MORE_MODELS = """
[models."embedder"]
upstream = "openai"
upstream_model = "embedder-upstream"
max_output_tokens = 1
context_tokens = 100
price = { input = "0.02", output = "0" }

[models."chatty"]
upstream = "chatty"
upstream_model = "chatty-upstream"
max_output_tokens = 4096
context_tokens = 128000
price = { input = "1", output = "2" }
"""
UPSTREAMS = """
[upstreams.chatty]
wire = "openai"
base_url = "{upstream}"
endpoints = ["chat/completions"]
"""
PLANS = {
    "metered": plan(
        "metered", [("tokens", 100_000), ("input_tokens", 100_000), ("requests", 10), ("cost_usd", "1")]
    ),
    "narrow": plan("narrow", [("tokens", 900)]),
    "two": plan("two", [("requests", 2)]),
    "cheap": plan("cheap", [("cost_usd", "0.000005")]),
    "rolling": plan("rolling", [("tokens", 400)], more='hold = "rolling"'),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("wires")
    async with open_house(folder, PLANS, models=MODELS + MORE_MODELS, more=UPSTREAMS) as opened:
        yield opened


async def embed(house: House, secret: str, **body: Any) -> Answer:
    asked = {"model": "embedder", "input": "three plain words", **body}
    return await house.gate._ask("POST", house.gate.url + "/v1/embeddings", secret, asked)


async def complete(house: House, secret: str, **body: Any) -> Answer:
    asked = {"model": "small", "prompt": "three plain words", "max_tokens": 5, **body}
    return await house.gate._ask("POST", house.gate.url + "/v1/completions", secret, asked)


async def test_the_openai_library_embeds_in_either_encoding(house: House) -> None:
    """It asks for base64 unless told otherwise, and unpacks it itself: both must be numbers in the end."""
    secret = await house.gate.customer("library")
    house.upstream.forget()
    client = openai.AsyncOpenAI(base_url=house.gate.url + "/v1", api_key=secret, max_retries=0)
    packed = await client.embeddings.create(model="embedder", input=["one", "two words"])
    plain = await client.embeddings.create(model="embedder", input=["one", "two words"], encoding_format="float")
    await client.close()
    assert [call.body["encoding_format"] for call in house.upstream.calls] == ["base64", "float"]
    assert [each.embedding for each in packed.data] == [each.embedding for each in plain.data]
    assert plain.data[1].embedding == [1.0, 9.0, 0.5, 0.5]
    assert (packed.usage.prompt_tokens, packed.usage.total_tokens) == (3, 3)


async def test_embeddings_are_charged_to_the_token_the_request_and_the_microdollar(house: House) -> None:
    secret = await house.gate.customer("exact", "metered")
    house.upstream.forget()
    house.upstream.script(Script(usage={"prompt_tokens": 90, "total_tokens": 90}))
    answer = await embed(house, secret, input=["x" * 90] * 2, encoding_format="base64")
    assert answer.status == 200, answer.body
    assert struct.unpack("<4f", base64.b64decode(answer.json()["data"][1]["embedding"]))[:2] == (1.0, 90.0)
    [event] = await house.gate.events(1, customer_id="exact")
    assert (event["endpoint"], event["streamed"], event["status"]) == ("/v1/embeddings", False, "succeeded")
    assert (event["input_tokens"], event["output_tokens"], event["usage_source"]) == (90, 0, "provider")
    assert (event["billable"], Decimal(event["cost_usd"])) == (True, Decimal("0.0000018"))
    left = await nothing_held(house.gate, "exact")
    assert [left[meter]["used"] for meter in ("tokens", "input_tokens", "requests")] == [90, 90, 1]
    assert Decimal(str(left["cost_usd"]["used"])) == Decimal("0.000002")
    await assert_sound(house.gate)


async def test_many_inputs_are_bounded_by_the_context_of_each_and_not_of_one(house: House) -> None:
    """Ten texts may fill the context ten times: held for one, the other nine would be given away."""
    secret = await house.gate.customer("many", "narrow")
    house.upstream.forget()
    refused = await embed(house, secret, input=["x" * 200] * 10)
    assert refused.status == 402
    budget = refused.json()["error"]["budget"]
    assert (budget["asked"], budget["can_afford"], budget["used"]) == (10 * 100, 0, 0)
    assert house.upstream.calls == []
    assert (await embed(house, secret, input=["x" * 200] * 9)).status == 200


@pytest.mark.parametrize("name", ["narrow", "cheap"])
async def test_an_input_that_cannot_be_paid_is_refused_before_it_is_read(house: House, name: str) -> None:
    """No limit of output would make it cheaper, so nothing can be afforded."""
    secret = await house.gate.customer(f"denied-{name}", name)
    house.upstream.forget()
    refused = await embed(house, secret, input=["a" * 84] * 50)
    assert (refused.status, refused.headers["x-should-retry"]) == (402, "false")
    error = refused.json()["error"]
    assert (error["code"], error["budget"]["can_afford"]) == ("insufficient_quota", 0)
    assert house.upstream.calls == []


async def test_requests_are_counted_on_every_wire_together(house: House) -> None:
    secret = await house.gate.customer("counted", "two")
    assert (await embed(house, secret)).status == 200
    assert (await complete(house, secret)).status == 200
    refused = await embed(house, secret)
    assert (refused.status, refused.json()["error"]["budget"]["meter"]) == (402, "requests")


async def test_a_completion_is_answered_metered_and_recorded(house: House) -> None:
    secret = await house.gate.customer("plain", "metered")
    house.upstream.forget()
    answer = await complete(house, secret, prompt=["one", "two words"], n=2, best_of=3)
    assert answer.status == 200, answer.body
    assert [choice["index"] for choice in answer.json()["choices"]] == [0, 1, 2, 3]
    assert house.upstream.calls[0].body["max_tokens"] == 5
    [event] = await house.gate.events(1, customer_id="plain")
    assert (event["endpoint"], event["input_tokens"], event["output_tokens"]) == ("/v1/completions", 3, 30)
    assert (await nothing_held(house.gate, "plain"))["tokens"]["used"] == 33
    await assert_sound(house.gate)


@pytest.mark.parametrize(
    ("body", "made"),
    [
        ({}, 1),
        ({"n": 2}, 2),
        ({"best_of": 4}, 4),
        ({"n": 2, "best_of": 4}, 4),
        ({"prompt": ["xxxx", "xxxx"], "best_of": 3}, 6),
    ],
)
async def test_everything_that_may_be_made_is_held(house: House, body: dict[str, Any], made: int) -> None:
    """Three of four are thrown away by the provider, and billed by it."""
    id = f"held-{json.dumps(body, sort_keys=True).encode().hex()[:40]}-{made}"
    secret = await house.gate.customer(id, "narrow")
    house.upstream.forget()
    refused = await complete(house, secret, **{"prompt": "xxxx", "max_tokens": 1000, **body})
    assert refused.status == 402
    prompts = len(body.get("prompt", [1]))
    input_bound = prompts * (4 + 16) + 16
    budget = refused.json()["error"]["budget"]
    assert budget["asked"] == input_bound + 1000 * made
    assert budget["can_afford"] == (900 - input_bound) // made
    assert house.upstream.calls == []


async def test_a_streamed_completion_is_whole_and_metered(house: House) -> None:
    secret = await house.gate.customer("stream", "metered")
    for asking in ({}, {"stream_options": {"include_usage": True}}):
        answer = await complete(house, secret, stream=True, **asking)
        events = [line[6:] for line in answer.body.decode().split("\n") if line.startswith("data: ")]
        assert events.pop() == "[DONE]"
        said = [json.loads(event) for event in events]
        assert "".join(c["text"] for each in said for c in each["choices"]) == "A gate stands where the"
        assert [each["usage"]["completion_tokens"] for each in said if each.get("usage")] == (
            [5] if asking else []
        )
    recorded = await house.gate.events(2, customer_id="stream")
    assert {(e["streamed"], e["usage_source"], e["output_tokens"]) for e in recorded} == {(True, "provider", 5)}
    assert (await nothing_held(house.gate, "stream"))["tokens"]["used"] == 16


async def test_without_a_limit_of_its_own_a_completion_gets_the_plans_and_not_sixteen(house: House) -> None:
    """The wire's default is 16 tokens; what is held is what is sent."""
    secret = await house.gate.customer("unlimited")
    house.upstream.forget()
    asked = {"model": "small", "prompt": "three plain words"}
    assert (await house.gate._ask("POST", house.gate.url + "/v1/completions", secret, asked)).status == 200
    assert house.upstream.calls[0].body["max_tokens"] == 4096


async def test_a_rolling_hold_ends_a_completion_like_its_limit(house: House) -> None:
    secret = await house.gate.customer("roll", "rolling")
    house.upstream.forget()
    house.upstream.script(Script(output_tokens=4000, chunk_delay_s=0.0005))
    answer = await complete(house, secret, stream=True, max_tokens=4000)
    events = [line[6:] for line in answer.body.decode().split("\n") if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["choices"][0]["finish_reason"] == "length"
    assert (await nothing_held(house.gate, "roll"))["tokens"]["used"] <= 400 + 200


async def test_a_chat_only_upstream_completes_and_says_what_it_cannot(house: House) -> None:
    secret = await house.gate.customer("chat-only", "metered")
    house.upstream.forget()
    answer = await complete(house, secret, model="chatty")
    assert (answer.status, answer.json()["choices"][0]["text"]) == (200, "A gate stands where the")
    assert [call.path for call in house.upstream.calls] == ["/v1/chat/completions"]
    refused = await complete(house, secret, model="chatty", suffix="after")
    assert (refused.status, refused.json()["error"]["param"]) == (400, "suffix")
    unserved = await embed(house, secret, model="chatty")
    assert (unserved.status, unserved.json()["error"]["code"]) == (400, "unsupported_endpoint")
    left = await nothing_held(house.gate, "chat-only")
    assert (left["tokens"]["used"], left["requests"]["used"]) == (8, 1)


async def test_without_a_report_an_estimate_is_charged_and_says_so(house: House) -> None:
    secret = await house.gate.customer("silent", "metered")
    house.upstream.script(Script(usage="absent", times=2))
    await embed(house, secret, input="x" * 80)
    await complete(house, secret, stream=True)
    recorded = await house.gate.events(2, customer_id="silent")
    assert {event["usage_source"] for event in recorded} == {"estimated"}
    by = {event["endpoint"]: event for event in recorded}
    assert (by["/v1/embeddings"]["input_tokens"], by["/v1/embeddings"]["output_tokens"]) == (20, 0)
    assert by["/v1/completions"]["output_tokens"] >= 5


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/embeddings", {"model": "embedder", "input": []}, "input"),
        ("/v1/embeddings", {"model": "embedder", "input": "a", "stream": True}, "stream"),
        ("/v1/embeddings", {"model": "embedder", "input": "a", "input_type": "query"}, "input_type"),
        ("/v1/completions", {"model": "small", "prompt": "a", "best_of": 21}, "best_of"),
        ("/v1/completions", {"model": "small", "prompt": "a", "use_beam_search": True}, "use_beam_search"),
        ("/v1/completions", {"model": "small", "messages": []}, "prompt"),
    ],
)
async def test_a_body_that_cannot_be_bounded_goes_nowhere(
    house: House, path: str, body: dict[str, Any], param: str
) -> None:
    """Fields that nobody here knows are refused where money is counted."""
    secret = await house.gate.customer(f"bad-{param}", "metered")
    house.upstream.forget()
    refused = await house.gate._ask("POST", house.gate.url + path, secret, body)
    assert (refused.status, refused.json()["error"]["param"]) == (400, param)
    assert house.upstream.calls == []
    assert (await budgets(house.gate, f"bad-{param}"))["requests"]["used"] == 0


async def test_a_lie_is_charged_as_all_that_was_held_and_disputed(house: House) -> None:
    secret = await house.gate.customer("lied", "metered")
    house.upstream.script(Script(usage={"prompt_tokens": -5, "total_tokens": "many"}))
    assert (await embed(house, secret, input="x" * 60)).status == 200
    [event] = await house.gate.events(1, customer_id="lied")
    assert (event["disputed"], event["billable"]) == (True, False)
    assert (await nothing_held(house.gate, "lied"))["tokens"]["used"] == 60 + 16 + 16
