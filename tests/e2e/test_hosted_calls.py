"""Tools that a provider runs itself, through a whole gate: who may have them, what is held, what is charged."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio
from gatehouse import House, assert_sound, nothing_held, open_house, plan
from served import Answer

from proxy.demo.scripts import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = """
[models."{id}"]
upstream = "{upstream}"
max_output_tokens = 4096
context_tokens = 10000
price = {{ input = "1", output = "2"{calls} }}
"""
MODELS = (
    MODEL.format(id="gpt", upstream="openai", calls=', web_search = "0.01", file_search = "0.0025"')
    + MODEL.format(id="claude", upstream="anthropic", calls=', web_search = "0.02"')
    + MODEL.format(id="bare", upstream="openai", calls="")
)
FEATURES = ("web_search", "web_fetch", "file_search", "code_interpreter", "mcp", "priority_tier", "remote_images")
ALL = f"features = {{ {', '.join(f'{name} = true' for name in FEATURES)} }}"
PLANS = {
    "plain": plan("plain", [("tokens", 1_000_000)]),
    "metered": plan("metered", [("tokens", 1_000_000), ("cost_usd", "10")], more=ALL),
    "counted": plan("counted", [("tokens", 1_000_000)], more=ALL),
    "narrow": plan("narrow", [("tokens", 30_000)], more=ALL),
    "open": plan("open", [("requests", 1_000)], more=ALL),
}

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
HELLO = [{"role": "user", "content": "three plain words"}]
SEARCH, FILES = {"type": "web_search"}, {"type": "file_search", "vector_store_ids": ["vs_1"]}
CLAUDES = {"type": "web_search_20250305", "name": "web_search"}
FETCHING = {"type": "web_fetch_20250910", "name": "web_fetch", "max_uses": 1}
PICTURE = {"type": "image_url", "image_url": {"url": "https://example.test/a.png"}}
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": "gpt", "messages": HELLO, "max_tokens": 20},
    RESPONSES: {"model": "gpt", "input": "three plain words", "max_output_tokens": 20},
    MESSAGES: {"model": "claude", "messages": HELLO, "max_tokens": 20},
}
COUNT = itertools.count()


class Caller:
    def __init__(self, house: House, secret: str, id: str) -> None:
        self.house, self.secret, self.id = house, secret, id

    async def post(self, path: str, **fields: Any) -> Answer:
        return await self.house.gate._ask(
            "POST", self.house.gate.url + path, self.secret, {**BODIES[path], **fields}
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_house(
        tmp_path_factory.mktemp("hosted"),
        PLANS,
        models=MODELS,
        more='[upstreams.anthropic]\nbase_url = "{upstream}"',
        environment={"ANTHROPIC_API_KEY": "sk-ant-canary-provider-key-0123456789abcdef"},
    ) as house:
        yield house


@pytest_asyncio.fixture(loop_scope="module")
async def hire(house: House) -> Any:
    house.upstream.forget()

    async def hired(plan: str) -> Caller:
        id = f"{plan}-{next(COUNT)}"
        return Caller(house, await house.gate.customer(id, plan), id)

    return hired


CALLED = [
    # path, fields, calls made, what is held of tokens, what the calls cost, the calls of the event
    (CHAT, {"web_search_options": {}}, [], 20_020, "0.01", {"web_search": 1}),
    (RESPONSES, {"tools": [SEARCH], "max_tool_calls": 3}, ["web_search"] * 2, 40_020, "0.02", {"web_search": 2}),
    (RESPONSES, {"tools": [SEARCH, FILES], "max_tool_calls": 3}, ["web_search", "file_search"], 40_020, "0.0125",
     {"web_search": 1, "file_search": 1}),
    (RESPONSES, {"tools": [SEARCH], "max_tool_calls": 3}, [], 40_020, "0", None),
    (MESSAGES, {"tools": [{**CLAUDES, "max_uses": 5}]}, ["web_search"] * 3, 60_020, "0.06", {"web_search": 3}),
]  # fmt: skip


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(("path", "fields", "made", "held", "extra", "calls"), CALLED)
async def test_calls_are_held_for_charged_and_in_the_event(
    house: House,
    hire: Any,
    streamed: bool,
    path: str,
    fields: dict[str, Any],
    made: list[str],
    held: int,
    extra: str,
    calls: dict[str, int] | None,
) -> None:
    """The provider's own bill: its tokens and so much for each call."""
    caller = await hire("metered")
    house.upstream.script(Script(hosted_calls=made))
    answer = await caller.post(path, stream=streamed, **fields)
    assert answer.status == 200, answer.body
    [event] = await house.gate.events(1, customer_id=caller.id)
    assert event["raw_usage"].get("calls") == calls
    cost = event["input_tokens"] * Decimal("0.000001") + event["output_tokens"] * Decimal("0.000002")
    assert Decimal(event["cost_usd"]) == cost + Decimal(extra)
    assert (event["usage_source"], event["billable"]) == ("provider", True)
    assert event["held"][0]["amount"] == held
    left = await nothing_held(house.gate, caller.id)
    assert left["tokens"]["used"] == event["input_tokens"] + event["output_tokens"]
    assert Decimal(left["cost_usd"]["used"]) == cost + Decimal(extra)


DENIED = [
    # plan, path, fields, status, code, param
    ("plain", CHAT, {"web_search_options": {}}, 403, "feature_not_allowed", "web_search_options"),
    ("plain", CHAT, {"service_tier": "priority"}, 403, "feature_not_allowed", "service_tier"),
    ("plain", CHAT, {"messages": [{"role": "user", "content": [PICTURE]}]}, 403, "feature_not_allowed",
     "messages.0.content.0.image_url.url"),
    ("plain", RESPONSES, {"tools": [SEARCH]}, 403, "feature_not_allowed", "tools.0"),
    ("plain", MESSAGES, {"tools": [CLAUDES]}, 403, "feature_not_allowed", "tools.0"),
    ("metered", RESPONSES, {"tools": [SEARCH]}, 400, "unbounded_tool", "max_tool_calls"),
    ("counted", MESSAGES, {"tools": [CLAUDES]}, 400, "unbounded_tool", "tools.0.max_uses"),
    ("counted", MESSAGES, {"mcp_servers": [{"type": "url", "url": "https://x.test", "name": "x"}]}, 400,
     "unbounded_tool", "mcp_servers.0"),
    ("metered", CHAT, {"model": "bare", "web_search_options": {}}, 403, "model_unpriced", "web_search_options"),
    ("metered", CHAT, {"service_tier": "priority"}, 403, "model_unpriced", "service_tier"),
    ("metered", RESPONSES, {"tools": [{"type": "mcp", "server_label": "x"}], "max_tool_calls": 1}, 403,
     "model_unpriced", "tools.0"),
    ("metered", MESSAGES, {"tools": [FETCHING]}, 403, "model_unpriced", "tools.0"),
    ("narrow", RESPONSES, {"tools": [SEARCH], "max_tool_calls": 3}, 402, "insufficient_quota", None),
    ("open", CHAT, {"audio": {"voice": "x"}}, 400, "unsupported_parameter", "audio"),
    ("open", CHAT, {"model": "claude", "web_search_options": {}}, 400, "unsupported_parameter",
     "web_search_options"),
    ("open", CHAT, {"model": "claude", "service_tier": "priority"}, 400, "unsupported_parameter", "service_tier"),
    ("open", CHAT, {"model": "claude", "messages": [{"role": "user", "content": [PICTURE]}]}, 400,
     "unsupported_parameter", "messages.0.content.0.image_url.url"),
    ("open", RESPONSES, {"model": "claude", "tools": [SEARCH]}, 400, "unsupported_parameter", "tools.0.type"),
    ("open", MESSAGES, {"model": "gpt", "tools": [CLAUDES]}, 400, "unsupported_parameter", "tools.0"),
]  # fmt: skip
ANTHROPICS = {400: "invalid_request_error", 402: "billing_error", 403: "permission_error"}


@pytest.mark.parametrize(("plan", "path", "fields", "status", "code", "param"), DENIED)
async def test_what_is_not_allowed_bounded_or_priced_is_refused_by_name(
    house: House,
    hire: Any,
    plan: str,
    path: str,
    fields: dict[str, Any],
    status: int,
    code: str,
    param: str | None,
) -> None:
    """In the wire's own shape, with nothing sent upstream and nothing charged."""
    caller = await hire(plan)
    answer = await caller.post(path, **fields)
    assert answer.status == status, answer.body
    error = answer.json()["error"]
    if path == MESSAGES:
        assert (answer.json()["type"], error["type"]) == ("error", ANTHROPICS[status])
        assert param is None or f"'{param}'" in error["message"]
    else:
        assert (error["code"], error["param"]) == (code, param)
    assert house.upstream.calls == []
    left = await nothing_held(house.gate, caller.id)
    assert {Decimal(str(budget["used"])) for budget in left.values()} <= {Decimal(0), Decimal(1)}


async def test_without_a_budget_that_pays_for_turns_a_loop_needs_no_bound(house: House, hire: Any) -> None:
    """What it cost is unknown then where a call has no price; a part of it must not look like all."""
    caller = await hire("open")
    house.upstream.script(Script(hosted_calls=["web_search", "mcp"]))
    tools = [SEARCH, {"type": "mcp", "server_label": "x"}]
    assert (await caller.post(RESPONSES, tools=tools)).status == 200
    [event] = await house.gate.events(1, customer_id=caller.id)
    assert (event["cost_usd"], event["raw_usage"]["calls"]) == (None, {"web_search": 1, "mcp": 1})
    assert house.upstream.calls[0].body["tools"] == tools


async def test_what_a_plan_allows_arrives_as_it_was_sent(house: House, hire: Any) -> None:
    """Images by address count as the dearest image; a tier is the provider's own word."""
    caller = await hire("counted")
    messages = [{"role": "user", "content": [PICTURE]}]
    answer = await caller.post(CHAT, messages=messages, service_tier="priority")
    assert answer.status == 200, answer.body
    body = house.upstream.calls[0].body
    assert (body["messages"], body["service_tier"]) == (messages, "priority")
    assert (await house.gate.events(1, customer_id=caller.id))[0]["held"][0]["amount"] == 10_020


async def test_a_stream_that_breaks_off_is_charged_the_calls_it_told_of(house: House, hire: Any) -> None:
    """The provider has made them, whatever became of its answer."""
    caller = await hire("metered")
    house.upstream.script(Script(hosted_calls=["web_search"], breaks_after_bytes=2_500))
    answer = await caller.post(RESPONSES, stream=True, tools=[SEARCH], max_tool_calls=3)
    last = [json.loads(line[6:]) for line in answer.body.split(b"\n") if line.startswith(b"data: {")][-1]
    assert last["type"] == "response.failed"
    [event] = await house.gate.events(1, customer_id=caller.id)
    assert (event["status"], event["usage_source"]) == ("failed", "estimated")
    assert event["raw_usage"]["calls"] == {"web_search": 1}
    assert Decimal(event["cost_usd"]) > Decimal("0.01")


async def test_the_books_are_sound(house: House) -> None:
    await assert_sound(house.gate)
