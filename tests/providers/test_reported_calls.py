"""A call of a tool that the provider runs costs money of its own: every one that an answer tells of is counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pytest

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.demo.scripts import Script
from proxy.domain.asks import Ask, Endpoint
from proxy.domain.policy import Model, Target
from proxy.domain.requests import read_request
from proxy.domain.usage import Usage
from proxy.gateway.ports import Answer, Dispatch, UpstreamFailed
from proxy.providers.anthropic_wire import ANTHROPIC_SPEECHES
from proxy.providers.connections import Timeouts
from proxy.providers.native_wire import Address, NativeWire
from proxy.providers.openai_wire import OPENAI_SPEECHES
from proxy.providers.reported_calls import calls_in_blocks, calls_in_items, with_at_least, with_calls
from proxy.providers.usage_readers import read_chat_usage, read_messages_usage

HELLO = [{"role": "user", "content": "three plain words"}]
CLAUDES = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
BODIES: dict[Endpoint, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "m", "messages": HELLO, "web_search_options": {}},
    "/v1/responses": {"model": "m", "input": "three plain words", "tools": [{"type": "web_search"}]},
    "/v1/messages": {"model": "m", "max_tokens": 30, "messages": HELLO, "tools": [CLAUDES]},
}


def ask(endpoint: Endpoint, **more: Any) -> Ask:
    return read_request(endpoint, "", {**BODIES[endpoint], **more}, {}, lambda user: user)


async def answered(upstream: ScriptedUpstream, endpoint: Endpoint, **more: Any) -> Answer:
    """The answer, read to its end or to where it breaks."""
    messages = endpoint == "/v1/messages"
    speeches, url = (ANTHROPIC_SPEECHES, upstream.root_url) if messages else (OPENAI_SPEECHES, upstream.url)
    wire = NativeWire("up", Address(url, "sk-test-0123456789abcdef"), speeches, Timeouts(2, 2, 2))
    model = Model("m", (Target("up", "m"),), 4_096, 128_000, "max_tokens")
    try:
        answer = await wire.send(Dispatch("req_1", 0, ask(endpoint, **more), model, "m", 30))
        if not answer.streamed:
            await answer.read()
        try:
            while answer.streamed and await answer.next() is not None:
                pass
        except UpstreamFailed:
            assert answer.usage is not None
        return answer
    finally:
        await wire.close()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("endpoint", "made", "counted"),
    [
        ("/v1/chat/completions", [], {"web_search": 1}),
        ("/v1/responses", ["web_search", "web_search", "mcp"], {"web_search": 2, "mcp": 1}),
        ("/v1/responses", [], {}),
        ("/v1/messages", ["web_search", "web_search", "web_fetch"], {"web_search": 2, "web_fetch": 1}),
        ("/v1/messages", ["web_search", "bash_code_execution"], {"web_search": 1, "code_interpreter": 1}),
        ("/v1/messages", [], {}),
    ],
)
@pytest.mark.parametrize("usage", ["honest", "absent"])
async def test_calls_are_counted_on_every_wire(
    endpoint: Endpoint, made: Sequence[str], counted: Mapping[str, int], stream: bool, usage: Any
) -> None:
    """Also where the tokens are not reported: an estimate of those is no reason to forget the calls."""
    async with ScriptedUpstream() as upstream:
        upstream.script(Script(hosted_calls=made, usage=usage))
        answer = await answered(upstream, endpoint, stream=stream)
    assert answer.usage is not None
    assert answer.usage.calls == counted
    assert answer.usage.source == ("provider" if usage == "honest" else "estimated")


@pytest.mark.parametrize(
    ("endpoint", "made"), [("/v1/responses", 2), ("/v1/messages", 2), ("/v1/chat/completions", 1)]
)
async def test_a_stream_that_breaks_off_has_made_the_calls_that_it_told_of(endpoint: Endpoint, made: int) -> None:
    """The provider bills them whether or not the answer arrives."""
    async with ScriptedUpstream() as upstream:
        upstream.script(Script(hosted_calls=["web_search"] * 2, breaks_after_bytes=2_300))
        answer = await answered(upstream, endpoint, stream=True)
    assert answer.usage is not None
    assert answer.usage.source == "estimated"
    assert answer.usage.calls == {"web_search": made}


async def test_a_stream_that_the_gate_ends_has_made_them_too() -> None:
    async with ScriptedUpstream() as upstream:
        for endpoint in BODIES:
            upstream.script(Script(hosted_calls=["web_search"], chunk_delay_s=0.005))
            messages = endpoint == "/v1/messages"
            speeches, url = (
                (ANTHROPIC_SPEECHES, upstream.root_url) if messages else (OPENAI_SPEECHES, upstream.url)
            )
            wire = NativeWire("up", Address(url, "sk-test-0123456789abcdef"), speeches, Timeouts(2, 2, 2))
            model = Model("m", (Target("up", "m"),), 4_096, 128_000, "max_tokens")
            answer = await wire.send(Dispatch("req_1", 0, ask(endpoint, stream=True), model, "m", 30))
            while answer.observed_output_tokens() < 2:
                assert await answer.next() is not None
            assert await answer.end_by_length()
            assert answer.usage is not None
            assert answer.usage.calls == {"web_search": 1}, endpoint
            await wire.close()


def test_what_a_provider_reports_goes_before_what_was_counted() -> None:
    """A search that failed is told as a block and not billed."""
    assert with_calls(Usage(1, 1, calls={"web_search": 3}), {"web_search": 4, "mcp": 1}).calls == {
        "web_search": 3,
        "mcp": 1,
    }


def test_a_cut_answer_has_made_whatever_was_seen_of_it() -> None:
    """Running totals come late: one that was told before a call began does not have it."""
    usage = Usage(1, 1, calls={"web_search": 1, "web_fetch": 2})
    assert with_at_least(usage, {"web_search": 2, "web_fetch": 1}).calls == {"web_search": 2, "web_fetch": 2}
    assert with_at_least(usage, {}).calls == usage.calls


async def test_a_stream_cut_after_a_running_total_counts_the_later_calls() -> None:
    events = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}},
        *(
            {
                "type": "content_block_start",
                "index": at,
                "content_block": {"type": "server_tool_use", "name": "web_search"},
            }
            for at in range(2)
        ),
        {"type": "message_delta", "usage": {"output_tokens": 4, "server_tool_use": {"web_search_requests": 1}}},
    ]
    told = "".join(f"event: {each['type']}\ndata: {orjson.dumps(each).decode()}\n\n" for each in events)
    async with ScriptedUpstream() as upstream:
        upstream.script(Script(events=told))
        answer = await answered(upstream, "/v1/messages", stream=True)
    assert answer.usage is not None
    assert (answer.usage.calls, answer.usage.source) == ({"web_search": 2}, "estimated")


async def test_a_reported_none_is_none() -> None:
    blocks = [{"type": "server_tool_use", "name": "web_search"}, {"type": "mcp_tool_use", "name": "x"}]
    usage = {"input_tokens": 3, "output_tokens": 4, "server_tool_use": {"web_search_requests": 0}}
    async with ScriptedUpstream() as upstream:
        upstream.script(Script(body=orjson.dumps({"type": "message", "content": blocks, "usage": usage}).decode()))
        answer = await answered(upstream, "/v1/messages")
    assert answer.usage is not None
    assert answer.usage.calls == {"mcp": 1}


@pytest.mark.parametrize(
    "said", [7, [], {"web_search_requests": -1}, {"web_search_requests": 1 << 41}, {"web_search_requests": True}]
)
def test_a_number_of_calls_beyond_belief_disputes_the_report(said: Any) -> None:
    """What nobody can believe is charged as all that was held, and never billed."""
    for usage in (
        read_messages_usage({"input_tokens": 3, "output_tokens": 4, "server_tool_use": said}),
        read_chat_usage({"prompt_tokens": 3, "completion_tokens": 4, "server_tool_use": said}),
    ):
        assert usage is not None
        assert usage.disputed
        assert usage.calls == {}


def test_a_chat_report_of_searches_is_taken() -> None:
    """OpenRouter has Anthropic's words for it."""
    usage = read_chat_usage(
        {"prompt_tokens": 3, "completion_tokens": 4, "server_tool_use": {"web_search_requests": 2}}
    )
    assert usage is not None
    assert (usage.calls, usage.disputed) == ({"web_search": 2}, False)


def test_a_call_of_the_shell_is_the_providers_only_where_it_was_allowed_one() -> None:
    """The client's own shell costs nothing."""
    items = [{"type": "shell_call"}, {"type": "shell_call"}, {"type": 7}, "x", {}]
    own = ask("/v1/responses", tools=[{"type": "shell", "environment": {"type": "local"}}])
    hosted = ask("/v1/responses", tools=[{"type": "shell"}])
    assert (calls_in_items(items, own), calls_in_items(items, hosted)) == ({}, {"code_interpreter": 2})


@pytest.mark.parametrize(
    "garbage", [None, 7, "x", {}, [None, 7], [{"type": "server_tool_use"}], [{"type": "x", "name": "web_search"}]]
)
def test_garbage_is_no_call(garbage: Any) -> None:
    assert calls_in_blocks(garbage) == {}
    assert calls_in_items(garbage, ask("/v1/responses")) == {}
