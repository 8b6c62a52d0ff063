"""Answers of Claude and Gemini as a client of OpenAI's library gets them, and what they are said to have used."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import orjson
import pytest

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.demo.scripts import Script
from proxy.gateway.ports import Answer, Dispatch, UpstreamFailed
from proxy.providers.litellm_provider import LiteLLMProvider

Dispatching = Callable[..., Dispatch]
Carrying = Callable[..., LiteLLMProvider]
pytestmark = pytest.mark.filterwarnings("ignore")
STREAM = {"stream": True, "stream_options": {"include_usage": True}}

CLAUDE_USAGE = {
    "input_tokens": 5,
    "cache_read_input_tokens": 1000,
    "cache_creation_input_tokens": 100,
    "output_tokens": 9,
}
GEMINI_USAGE = {
    "promptTokenCount": 30,
    "candidatesTokenCount": 4,
    "thoughtsTokenCount": 7,
    "totalTokenCount": 41,
    "cachedContentTokenCount": 10,
}


def message(content: list[dict[str, Any]], reason: str | None, usage: Any = CLAUDE_USAGE) -> dict[str, Any]:
    said = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-served", "content": content}
    said |= {"stop_reason": reason, "stop_sequence": None}
    return said if usage is None else {**said, "usage": usage}


def candidates(
    parts: list[dict[str, Any]], reason: str | None = None, usage: Any = None, at: int = 0
) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": at}
    if reason:
        candidate["finishReason"] = reason
    said = {"candidates": [candidate], "modelVersion": "gemini-served", "responseId": "resp-1"}
    return {**said, "usageMetadata": usage} if usage else said


def claude_events(blocks: list[list[dict[str, Any]]], reason: str | None, usage: Any = CLAUDE_USAGE) -> str:
    start = usage and {**usage, "output_tokens": 1}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message([], None, start)},
        {"type": "ping"},
    ]
    for at, (block, *deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": at, "content_block": block})
        events += [{"type": "content_block_delta", "index": at, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": at})
    if reason:
        ending = {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}}
        events += [{**ending, **({"usage": {"output_tokens": 9}} if usage else {})}, {"type": "message_stop"}]
    return "".join(f"event: {event['type']}\ndata: {orjson.dumps(event).decode()}\n\n" for event in events)


def gemini_events(*chunks: dict[str, Any]) -> str:
    return "".join(f"data: {orjson.dumps(chunk).decode()}\r\n\r\n" for chunk in chunks)


THINKING = [
    {"type": "thinking", "thinking": "", "signature": ""},
    {"type": "thinking_delta", "thinking": "hm"},
    {"type": "signature_delta", "signature": "SIG"},
]
SAYING = [{"type": "text", "text": ""}, {"type": "text_delta", "text": "h"}, {"type": "text_delta", "text": "i"}]
LOOKING = [
    {"type": "tool_use", "id": "tu1", "name": "look", "input": {}},
    *({"type": "input_json_delta", "partial_json": piece} for piece in ("", '{"a":', "1}")),
]
HEARING = [{"type": "tool_use", "id": "tu2", "name": "hear", "input": {}}]


class Desk:
    """Has an upstream answer, and reads what comes of it."""

    def __init__(self, upstream: ScriptedUpstream, carrier: Carrying, dispatch: Dispatching) -> None:
        self.upstream, self.carrier, self.dispatch = upstream, carrier, dispatch

    async def plain(self, provider: str, body: dict[str, Any], **asked: Any) -> tuple[dict[str, Any], Answer]:
        self.upstream.script(Script(body=orjson.dumps(body).decode()))
        answer = await self.carrier(provider).send(self.dispatch(limit=100, **asked))
        return orjson.loads(await answer.read()), answer

    async def stream(self, provider: str, events: str) -> tuple[list[dict[str, Any]], Answer]:
        self.upstream.script(Script(events=events))
        answer = await self.carrier(provider).send(self.dispatch(STREAM, limit=100))
        chunks = []
        while (event := await answer.next()) is not None:
            assert event.startswith(b"data: ")
            assert event.endswith(b"\n\n")
            chunks.append(orjson.loads(event[6:]))
        return chunks, answer


@pytest.fixture
def desk(upstream: ScriptedUpstream, carrier: Carrying, dispatch: Dispatching) -> Desk:
    return Desk(upstream, carrier, dispatch)


def used(answer: Answer) -> tuple[Any, ...]:
    usage = answer.usage
    assert usage is not None
    return (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
        usage.source,
        usage.disputed,
    )


CLAUDE_USED = (1105, 9, 1000, 100, 0, "provider", False)
GEMINI_USED = (30, 11, 10, 0, 7, "provider", False)


async def test_claude_says_and_calls(desk: Desk) -> None:
    """Cache classes are part of the input, thinking comes as reasoning, calls keep Claude's ids."""
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "SIG"},
        {"type": "text", "text": "hi"},
        {"type": "tool_use", "id": "tu1", "name": "look", "input": {"a": 1}},
        {"type": "tool_use", "id": "tu2", "name": "hear", "input": {}},
    ]
    said, answer = await desk.plain("anthropic", message(blocks, "tool_use"))
    [choice] = said["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "hi"
    assert choice["message"]["reasoning_content"] == "hm"
    assert choice["message"]["thinking_blocks"] == [{"type": "thinking", "thinking": "hm", "signature": "SIG"}]
    assert [(c["id"], c["type"], c["function"]["name"]) for c in choice["message"]["tool_calls"]] == [
        ("tu1", "function", "look"),
        ("tu2", "function", "hear"),
    ]
    assert all("index" not in c for c in choice["message"]["tool_calls"])
    assert orjson.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == {"a": 1}
    assert used(answer) == CLAUDE_USED
    assert said["usage"]["prompt_tokens_details"]["cached_tokens"] == 1000
    assert (answer.model_served, answer.provider_request_id) == ("claude-served", "req-scripted-0")


async def test_gemini_says_and_calls(desk: Desk) -> None:
    """Thoughts are output, and a call's signature travels in its id, which is all that clients send back."""
    parts = [
        {"text": "hm", "thought": True},
        {"text": "hi"},
        {"functionCall": {"name": "look", "args": {"a": 1}, "id": "fc1"}, "thoughtSignature": "U0lH"},
        {"functionCall": {"name": "hear", "args": {}}},
    ]
    said, answer = await desk.plain("gemini", candidates(parts, "STOP", GEMINI_USAGE))
    [choice] = said["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert (choice["message"]["content"], choice["message"]["reasoning_content"]) == ("hi", "hm")
    first, second = choice["message"]["tool_calls"]
    assert (first["function"]["name"], second["function"]["name"]) == ("look", "hear")
    assert first["id"] != second["id"]
    assert used(answer) == GEMINI_USED
    assert said["usage"]["completion_tokens_details"]["reasoning_tokens"] == 7
    assert answer.model_served == "gemini-served"

    turn = {"role": "assistant", "content": None, "tool_calls": [first]}
    result = {"role": "tool", "tool_call_id": first["id"], "content": "r"}
    again = desk.dispatch(
        messages=[{"role": "user", "content": "hi"}, turn, result], upstream_model="gemini-3-pro-preview"
    )
    await (await desk.carrier("gemini").send(again)).read()
    [part] = desk.upstream.calls[-1].body["contents"][1]["parts"]
    assert part["thoughtSignature"] == "U0lH"
    assert part["function_call"]["id"] == "fc1"


def calls_of(chunks: Iterable[dict[str, Any]]) -> dict[int, dict[str, str]]:
    """Put together as clients do it: by index."""
    made: dict[int, dict[str, str]] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            for call in choice["delta"].get("tool_calls") or []:
                kept = made.setdefault(call["index"], {"id": "", "name": "", "arguments": ""})
                kept["id"] += call.get("id") or ""
                kept["name"] += call["function"].get("name") or ""
                kept["arguments"] += call["function"].get("arguments") or ""
    return made


def joined(chunks: Iterable[dict[str, Any]], name: str) -> str:
    return "".join(choice["delta"].get(name) or "" for chunk in chunks for choice in chunk["choices"])


async def test_claude_streams_thinking_text_and_parallel_calls(desk: Desk) -> None:
    """Clients put calls together by index and id; one wrong index makes one call out of two."""
    chunks, answer = await desk.stream(
        "anthropic", claude_events([THINKING, SAYING, LOOKING, HEARING], "tool_use")
    )
    assert (joined(chunks, "content"), joined(chunks, "reasoning_content")) == ("hi", "hm")
    assert calls_of(chunks) == {
        0: {"id": "tu1", "name": "look", "arguments": '{"a":1}'},
        1: {"id": "tu2", "name": "hear", "arguments": calls_of(chunks)[1]["arguments"]},
    }
    assert calls_of(chunks)[1]["arguments"] in ("", "{}")
    blocks = [b for c in chunks for choice in c["choices"] for b in choice["delta"].get("thinking_blocks") or []]
    assert [block["signature"] for block in blocks] == ["SIG"]
    assert [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]] == [
        "tool_calls"
    ]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert used(answer) == CLAUDE_USED
    assert chunks[-1]["usage"]["total_tokens"] == 1114
    assert (answer.tail, answer.model_served) == (b"data: [DONE]\n\n", "claude-served")
    assert answer.provider_request_id == "req-scripted-0"


async def test_gemini_streams_thoughts_text_and_parallel_calls(desk: Desk) -> None:
    """Its calls come whole, several in a chunk or one in each."""
    chunks, answer = await desk.stream(
        "gemini",
        gemini_events(
            candidates([{"text": "hm", "thought": True}], usage={"promptTokenCount": 30, "totalTokenCount": 30}),
            candidates([{"text": "h"}]),
            candidates([{"text": "i"}]),
            candidates([{"functionCall": {"name": "look", "args": {"a": 1}}}]),
            candidates([{"functionCall": {"name": "hear", "args": {}}}], "STOP", GEMINI_USAGE),
        ),
    )
    assert (joined(chunks, "content"), joined(chunks, "reasoning_content")) == ("hi", "hm")
    made = calls_of(chunks)
    assert [(call["name"], orjson.loads(call["arguments"])) for call in made.values()] == [
        ("look", {"a": 1}),
        ("hear", {}),
    ]
    assert sorted(made) == [0, 1]
    assert [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]] == [
        "tool_calls"
    ]
    assert used(answer) == GEMINI_USED
    assert (answer.model_served, answer.tail) == ("gemini-served", b"data: [DONE]\n\n")


async def test_several_candidates_of_gemini(desk: Desk) -> None:
    """`n` is paid for as often as it says; every choice must come."""
    body = candidates([{"text": "A"}], "STOP", GEMINI_USAGE)
    body["candidates"] += candidates([{"text": "B"}], "STOP", at=1)["candidates"]
    said, answer = await desk.plain("gemini", body, n=2)
    assert [(c["index"], c["message"]["content"]) for c in said["choices"]] == [(0, "A"), (1, "B")]
    assert used(answer) == GEMINI_USED


@pytest.mark.parametrize(
    ("provider", "reason", "finish"),
    [
        ("anthropic", "end_turn", "stop"),
        ("anthropic", "stop_sequence", "stop"),
        ("anthropic", "max_tokens", "length"),
        ("anthropic", "model_context_window_exceeded", "length"),
        ("anthropic", "refusal", "content_filter"),
        ("gemini", "STOP", "stop"),
        ("gemini", "MAX_TOKENS", "length"),
        ("gemini", "SAFETY", "content_filter"),
        ("gemini", "RECITATION", "content_filter"),
    ],
)
async def test_why_an_answer_ended(desk: Desk, provider: str, reason: str, finish: str) -> None:
    """Agents go on after a length and give up after a filter."""
    if provider == "anthropic":
        said, answer = await desk.plain(provider, message([{"type": "text", "text": "hi"}], reason))
        chunks, streamed = await desk.stream(provider, claude_events([SAYING], reason))
    else:
        said, answer = await desk.plain(provider, candidates([{"text": "hi"}], reason, GEMINI_USAGE))
        last = candidates([{"text": "i"}], reason, GEMINI_USAGE)
        chunks, streamed = await desk.stream(provider, gemini_events(candidates([{"text": "h"}]), last))
    expected = CLAUDE_USED if provider == "anthropic" else GEMINI_USED
    assert said["choices"][0]["finish_reason"] == finish
    assert [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]] == [finish]
    assert (used(answer), used(streamed)) == (expected, expected)


async def test_a_prompt_that_gemini_blocks_costs_its_input(desk: Desk) -> None:
    """It has no candidates at all; the client gets an answer that was filtered."""
    body = {
        "promptFeedback": {"blockReason": "SAFETY"},
        "usageMetadata": {"promptTokenCount": 3, "totalTokenCount": 3},
    }
    said, answer = await desk.plain("gemini", body)
    assert said["choices"][0]["finish_reason"] == "content_filter"
    assert used(answer)[:2] == (3, 0)
    chunks, streamed = await desk.stream("gemini", gemini_events(body))
    assert [c["finish_reason"] for chunk in chunks for c in chunk["choices"]][-1] == "content_filter"
    assert used(streamed)[:2] == (3, 0)


@pytest.mark.parametrize("provider", ["anthropic", "gemini"])
async def test_a_stream_that_just_stops_is_broken_off(desk: Desk, provider: str) -> None:
    """LiteLLM says "stop" there, and the client takes half an answer for a whole one."""
    half = gemini_events(candidates([{"text": "h"}], usage={"promptTokenCount": 30, "totalTokenCount": 30}))
    events = claude_events([SAYING], None) if provider == "anthropic" else half
    desk.upstream.script(Script(events=events))
    answer = await desk.carrier(provider).send(desk.dispatch(STREAM, limit=100))
    said: list[bytes] = []

    async def carried() -> None:
        while (event := await answer.next()) is not None:
            said.append(event)

    with pytest.raises(UpstreamFailed) as caught:
        await carried()
    assert (caught.value.kind, caught.value.error_type) == ("unknown", "upstream_reset")
    assert b'"finish_reason":"stop"' not in b"".join(said)
    assert answer.tail == b""
    assert answer.usage is not None
    assert answer.usage.input_tokens == (1105 if provider == "anthropic" else 30)
    assert answer.usage.output_tokens >= 1


async def test_a_streams_ids_and_objects_are_openais(desk: Desk) -> None:
    """Clients check them; LiteLLM's own fields would look like the gate's."""
    chunks, _ = await desk.stream("anthropic", claude_events([SAYING], "end_turn"))
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    for chunk in chunks:
        assert chunk.keys() <= {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
