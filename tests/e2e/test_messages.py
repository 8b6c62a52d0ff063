"""Anthropic's wire through a whole gate: what Claude Code and the Anthropic SDKs speak, metered to the token."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from gatehouse import House, assert_sound, budgets, nothing_held, open_house, plan
from served import Answer

from proxy.demo.scripts import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "sk-ant-canary-provider-key-0123456789abcdef"
MODEL = """
[models."{id}"]
upstream = "anthropic"
upstream_model = "{id}-upstream"
max_output_tokens = 4096
context_tokens = 200000
fallbacks = {fallbacks}
price = {{ input = "3", cached_input = "0.3", cache_write = "3.75", cache_write_1h = "6", output = "15" }}
"""
MODELS = (
    MODEL.format(id="claude", fallbacks='["spare"]')
    + MODEL.format(id="spare", fallbacks="[]")
    + MODEL.format(id="lonely", fallbacks="[]")
)
PLANS = {
    "roomy": plan("roomy", [("tokens", 1_000_000), ("requests", 100), ("cost_usd", 100)]),
    "small": plan("small", [("tokens", 60)]),
    "narrow": plan("narrow", models='["spare"]'),
    "hasty": plan("hasty", [("tokens", 100)], more="[rate_limits]\nrequests_per_minute = 2"),
    "rolling": plan("rolling", [("output_tokens", 40)], more='hold = "rolling"'),
}
SAID = {"model": "claude", "max_tokens": 20, "messages": [{"role": "user", "content": "three plain words"}]}


COUNT = itertools.count()


class Caller:
    """A customer's agent that speaks Messages."""

    def __init__(self, house: House, secret: str, id: str) -> None:
        self.house = house
        self.secret = secret
        self.id = id

    async def post(self, path: str = "/v1/messages", headers: dict[str, str] | None = None, **more: Any) -> Answer:
        session = self.house.gate.session
        assert session is not None
        body = {name: value for name, value in {**SAID, **more}.items() if value is not None}
        all_headers = {"x-api-key": self.secret, **(headers or {})}
        async with session.post(self.house.gate.url + path, headers=all_headers, json=body) as response:
            return Answer(response.status, response.headers, await response.content.read())

    async def event(self, count: int = 1) -> dict[str, Any]:
        return (await self.house.gate.events(count, customer_id=self.id))[0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_house(
        tmp_path_factory.mktemp("messages"),
        PLANS,
        models=MODELS,
        more='[upstreams.anthropic]\nbase_url = "{upstream}"\nidle_timeout_s = 2',
        environment={"ANTHROPIC_API_KEY": KEY},
    ) as house:
        yield house


@pytest_asyncio.fixture(loop_scope="module")
async def hire(house: House) -> Any:
    house.upstream.forget()

    async def hired(plan: str = "roomy") -> Caller:
        id = f"{plan}-{next(COUNT)}"
        return Caller(house, await house.gate.customer(id, plan), id)

    return hired


async def test_a_message_is_passed_on_metered_and_recorded(house: House, hire: Any) -> None:
    caller = await hire()
    answer = await caller.post()
    assert answer.status == 200, answer.body
    said = answer.json()
    assert (said["type"], said["usage"]["input_tokens"], said["usage"]["output_tokens"]) == ("message", 3, 12)
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    assert answer.headers["faregate-model"] == "claude"
    event = await caller.event()
    assert (event["input_tokens"], event["output_tokens"], event["usage_source"]) == (3, 12, "provider")
    assert (event["endpoint"], event["status"], event["billable"]) == ("/v1/messages", "succeeded", True)
    assert Decimal(event["cost_usd"]) == Decimal("0.000189")
    assert house.upstream.calls[0].body == {**SAID, "model": "claude-upstream"}
    left = await nothing_held(house.gate, caller.id)
    assert (left["tokens"]["used"], left["requests"]["used"], left["cost_usd"]["used"]) == (15, 1, "0.000189")


CACHES = {
    "input_tokens": 10,
    "cache_read_input_tokens": 1_000,
    "cache_creation_input_tokens": 600,
    "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 400},
    "output_tokens": 12,
}


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_caches_cost_what_they_cost(house: House, hire: Any, streamed: bool) -> None:
    """What stays in the cache for an hour costs more than what stays for five minutes."""
    caller = await hire()
    house.upstream.script(Script(usage=CACHES))
    answer = await caller.post(stream=streamed, messages=[{"role": "user", "content": "word " * 2_000}])
    assert answer.status == 200, answer.body
    event = await caller.event()
    assert (event["input_tokens"], event["uncached_input_tokens"]) == (1_610, 10)
    assert (event["cache_read_tokens"], event["cache_write_tokens"]) == (1_000, 600)
    assert Decimal(event["cost_usd"]) * 1_000_000 == 10 * 3 + 300 + 200 * Decimal("3.75") + 400 * 6 + 12 * 15
    assert event["raw_usage"]["cache_creation"] == CACHES["cache_creation"]


async def test_a_stream_is_the_upstreams_byte_for_byte_and_settled_before_it_ends(house: House, hire: Any) -> None:
    caller = await hire()
    answer = await caller.post(stream=True)
    types = [json.loads(line[6:])["type"] for line in answer.body.split(b"\n") if line.startswith(b"data: ")]
    assert (types[0], types[2], types[-2:]) == ("message_start", "ping", ["message_delta", "message_stop"])
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["request-id"].startswith("req_")
    house.upstream.script(Script(events=answer.body.decode()))
    assert (await caller.post(stream=True)).body == answer.body
    event = await caller.event(2)
    assert (event["streamed"], event["output_tokens"], event["usage_source"]) == (True, 12, "provider")


async def test_tools_are_used_and_their_results_sent_back(house: House, hire: Any) -> None:
    caller = await hire()
    tools = [{"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]
    house.upstream.script(
        Script(reasoning="hm", tool_calls=[{"name": "weather", "arguments": '{"city": "Oslo"}'}])
    )
    used = (await caller.post(tools=tools)).json()
    assert (used["stop_reason"], used["content"][1]["input"]) == ("tool_use", {"city": "Oslo"})
    result = {"type": "tool_result", "tool_use_id": used["content"][1]["id"], "content": "Rain"}
    turns = [
        {"role": "user", "content": "What is it like in Oslo?"},
        {"role": "assistant", "content": used["content"]},
        {"role": "user", "content": [result]},
    ]
    answer = await caller.post(tools=tools, messages=turns)
    assert answer.status == 200, answer.body
    assert house.upstream.calls[1].body["messages"] == turns


async def test_a_spent_budget_is_a_billing_error_that_nobody_retries(house: House, hire: Any) -> None:
    """402 is asked once by every client; Claude Code shows its message."""
    caller = await hire("small")
    answer = await caller.post(max_tokens=2_000)
    said = answer.json()
    assert (answer.status, said["type"], said["error"]["type"]) == (402, "error", "billing_error")
    assert set(said["error"]) == {"type", "message"}
    assert "tokens" in said["error"]["message"]
    assert said["request_id"] == answer.headers["request-id"]
    assert answer.headers["x-should-retry"] == "false"
    assert not {"retry-after", "x-ratelimit-reset-tokens"} & {name.lower() for name in answer.headers}
    assert house.upstream.calls == []


async def test_counting_tokens_is_free_and_still_limited_per_minute(house: House, hire: Any) -> None:
    """Claude Code counts before it asks, also when there is next to nothing left to ask with."""
    caller = await hire("hasty")
    body = {"max_tokens": None, "system": "word " * 5_000}
    answer = await caller.post("/v1/messages/count_tokens?beta=true", **body)
    assert (answer.status, answer.json()) == (200, {"input_tokens": 5_003}), answer.body
    assert (await caller.post("/v1/messages/count_tokens", **body)).status == 200
    event = await caller.event(2)
    assert (event["input_tokens"], event["output_tokens"], event["usage_source"]) == (0, 0, "none")
    assert (event["endpoint"], event["billable"]) == ("/v1/messages/count_tokens", False)
    assert (await budgets(house.gate, caller.id))["tokens"]["used"] == 0
    limited = await caller.post("/v1/messages/count_tokens", **body)
    assert (limited.status, limited.json()["error"]["type"]) == (429, "rate_limit_error")


async def test_counting_is_no_request_of_the_budget(house: House, hire: Any) -> None:
    caller = await hire()
    assert (await caller.post("/v1/messages/count_tokens", max_tokens=None)).status == 200
    left = await nothing_held(house.gate, caller.id)
    assert [left[meter]["used"] for meter in ("tokens", "requests", "cost_usd")] == [0, 0, "0"]


async def test_headers_go_up_by_allow_list_and_no_key_comes_down(house: House, hire: Any) -> None:
    """Neither side's secret ever reaches the other."""
    caller = await hire()
    house.upstream.script(
        Script(headers={"x-api-key": KEY, "anthropic-organization-id": "org-1", "set-cookie": "a=b"})
    )
    answer = await caller.post(
        "/v1/messages?beta=true",
        headers={
            "anthropic-version": "2023-06-01",
            "anthropic-beta": "claude-code-20250219,context-1m-2025-08-07,oauth-2025-04-20,effort-2025-11-24",
            "authorization": f"Bearer {caller.secret}",
            "x-claude-code-session-id": "canary-session",
            "x-app": "cli",
            "x-stainless-lang": "js",
            "cookie": "canary=1",
            "anthropic-dangerous-direct-browser-access": "true",
        },
    )
    assert answer.status == 200, answer.body
    [call] = house.upstream.calls
    sent = {name.lower(): value for name, value in call.headers.items()}
    assert sent.keys() - {"host", "content-length", "content-type", "accept", "accept-encoding", "user-agent"} == {
        "x-api-key",
        "anthropic-version",
        "anthropic-beta",
    }
    assert (sent["x-api-key"], sent["anthropic-beta"]) == (KEY, "claude-code-20250219,effort-2025-11-24")
    assert caller.secret not in str(call.headers) + str(call.body)
    came = str(dict(answer.headers)) + answer.body.decode()
    assert not [word for word in (KEY, "org-1", "set-cookie", "req-scripted") if word in came.lower()]


async def test_an_error_in_the_stream_passes_and_the_attempt_has_failed(house: House, hire: Any) -> None:
    caller = await hire()
    house.upstream.script(Script(error_after=3))
    answer = await caller.post(stream=True)
    assert answer.body.rstrip().endswith(b'"message":"As the script says."}}')
    assert b"message_stop" not in answer.body
    event = await caller.event()
    assert (event["status"], event["error_type"], event["billable"]) == ("failed", "error_in_stream", False)
    assert (event["input_tokens"], event["output_tokens"], event["usage_source"]) == (3, 4, "estimated")


async def test_a_stream_that_is_cut_off_ends_in_an_error_of_the_wire(house: House, hire: Any) -> None:
    """Never as if it were whole; the input is known from its first event."""
    caller = await hire()
    house.upstream.script(Script(breaks_after_bytes=900, breaks="reset"))
    session = house.gate.session
    assert session is not None
    received = b""
    headers = {"x-api-key": caller.secret}
    async with session.post(
        house.gate.url + "/v1/messages", headers=headers, json={**SAID, "stream": True}
    ) as answer:
        with contextlib.suppress(aiohttp.ClientPayloadError):
            async for chunk in answer.content.iter_any():
                received += chunk
    last = json.loads(received.rstrip().split(b"data: ")[-1])
    assert (last["type"], last["error"]["type"]) == ("error", "api_error")
    event = await caller.event()
    assert (event["status"], event["input_tokens"], event["usage_source"]) == ("failed", 3, "estimated")
    assert event["output_tokens"] >= 1


async def test_an_overload_told_in_the_first_event_is_mended_by_the_fallback(house: House, hire: Any) -> None:
    """Nothing had reached the client, so that another model may answer."""
    caller = await hire()
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    events = f"event: error\ndata: {json.dumps(error)}\n\n"
    house.upstream.script(Script(model="claude-upstream", times=0, events=events))
    answer = await caller.post(stream=True)
    assert answer.headers["faregate-model"] == "spare"
    assert b"message_stop" in answer.body
    left = await nothing_held(house.gate, caller.id)
    assert left["tokens"]["used"] == 15


async def test_a_rolling_hold_ends_the_message_as_if_its_limit_were_reached(house: House, hire: Any) -> None:
    caller = await hire("rolling")
    house.upstream.script(Script(output_tokens=3_000, chunk_delay_s=0.002))
    answer = await caller.post(stream=True, max_tokens=4_000)
    said = [json.loads(line[6:]) for line in answer.body.split(b"\n") if line.startswith(b"data: ")]
    assert [each["type"] for each in said[-3:]] == ["content_block_stop", "message_delta", "message_stop"]
    assert said[-2]["delta"]["stop_reason"] == "max_tokens"
    event = await caller.event()
    assert (event["status"], event["error_type"]) == ("succeeded", "budget_spent")
    assert event["output_tokens"] == said[-2]["usage"]["output_tokens"] < 3_000


PICTURE = {"type": "image", "source": {"type": "url", "url": "https://example.com/cat.png"}}
SEARCH = {"type": "web_search_20260318", "name": "web_search"}

FAULTS: list[tuple[str, dict[str, Any], int, str, str]] = [
    ("roomy", {"max_tokens": None}, 400, "invalid_request_error", "max_tokens"),
    ("roomy", {"messages": []}, 400, "invalid_request_error", "messages"),
    ("roomy", {"speed": "fast"}, 400, "invalid_request_error", "speed"),
    ("roomy", {"next_field": 1}, 400, "invalid_request_error", "next_field"),
    ("roomy", {"tools": [SEARCH]}, 403, "permission_error", "web_search"),
    ("roomy", {"messages": [{"role": "user", "content": [PICTURE]}]}, 403, "permission_error", "remote_images"),
    ("roomy", {"model": "nobody"}, 404, "not_found_error", "nobody"),
    ("narrow", {}, 403, "permission_error", "claude"),
]


@pytest.mark.parametrize(("plan", "more", "status", "kind", "says"), FAULTS)
async def test_each_refusal_is_told_in_anthropics_shape(
    house: House, hire: Any, plan: str, more: dict[str, Any], status: int, kind: str, says: str
) -> None:
    """Its SDKs choose the exception by the status, and show the message."""
    answer = await (await hire(plan)).post(**more)
    said = answer.json()
    assert (answer.status, said["type"], said["error"]["type"]) == (status, "error", kind), answer.body
    assert set(said) == {"type", "error", "request_id"}
    assert says in said["error"]["message"]
    assert said["request_id"] == answer.headers["request-id"] == answer.headers["x-request-id"]
    assert house.upstream.calls == []


UPSTREAM = [
    (400, "invalid_request_error", "prompt is too long", 400, "invalid_request_error"),
    (400, "invalid_request_error", "Your credit balance is too low", 502, "api_error"),
    (401, "authentication_error", f"invalid x-api-key {KEY}", 502, "api_error"),
    (404, "not_found_error", "model: lonely-upstream", 404, "not_found_error"),
    (413, "request_too_large", "too large", 413, "invalid_request_error"),
    (500, "api_error", "Internal server error", 500, "api_error"),
    (529, "overloaded_error", "Overloaded", 529, "overloaded_error"),
]


@pytest.mark.parametrize(("status", "kind", "says", "told", "told_kind"), UPSTREAM)
async def test_each_failure_of_the_upstream_is_told_in_anthropics_shape(
    house: House, hire: Any, status: int, kind: str, says: str, told: int, told_kind: str
) -> None:
    caller = await hire()
    body = json.dumps({"type": "error", "error": {"type": kind, "message": says}, "request_id": "req_theirs"})
    house.upstream.script(Script(times=0, status=status, body=body))
    answer = await caller.post(model="lonely")
    error = answer.json()["error"]
    assert (answer.status, error["type"]) == (told, told_kind), answer.body
    assert (says in error["message"]) is (400 <= told < 500)
    assert KEY not in answer.body.decode()
    assert (await nothing_held(house.gate, caller.id))["tokens"]["used"] == 0


async def test_nobody_is_told_so_in_anthropics_shape(house: House) -> None:
    """Also where there is no such path or method, and where the request is no proper HTTP."""
    nobody = Caller(house, "fg_live_nobody", "nobody")
    answers = {
        "secret": await nobody.post(),
        "path": await nobody.post("/v1/messages/batches"),
        "text": await nobody.post(headers={"content-type": "text/plain"}),
    }
    kinds = {name: (answer.status, answer.json()["error"]["type"]) for name, answer in answers.items()}
    assert kinds["secret"] == (401, "authentication_error")
    assert kinds["path"] == (404, "not_found_error")
    reader, writer = await asyncio.open_connection("127.0.0.1", house.gate.port)
    writer.write(b"POST /v1/messages#x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    raw = await reader.read()
    writer.close()
    assert raw.startswith(b"HTTP/1.1 400")
    said = json.loads(raw.partition(b"\r\n\r\n")[2])
    assert (said["type"], said["error"]["type"]) == ("error", "invalid_request_error")


async def test_who_it_was_for_is_in_the_event(house: House, hire: Any) -> None:
    """Claude Code puts both into one field."""
    caller = await hire()
    await caller.post(metadata={"user_id": f"user_{'a' * 64}_account__session_0b-1", "step": "plan"})
    event = await caller.event()
    assert (event["user_id"], event["run_id"], event["step"]) == (f"user_{'a' * 64}_account_", "0b-1", "plan")
    assert house.upstream.calls[0].body["metadata"].keys() == {"user_id"}


async def test_everything_adds_up(house: House) -> None:
    """Whatever happened above: the counters say what the ledger says, and nothing is held."""
    await assert_sound(house.gate)
