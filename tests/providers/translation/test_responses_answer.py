"""A chat completion told as a Response: whole, with nothing lost on the way."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai.types.responses import Response
from responses_told import TEXT, TOOL, TWO_CALLS, USAGE, asking, told

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.demo.scripts import Script
from proxy.gateway.ports import UpstreamFailed
from proxy.providers.translation.responses_over_chat import ResponsesOverChat


async def test_a_plain_answer_is_a_whole_response(
    upstream: ScriptedUpstream, responses: ResponsesOverChat
) -> None:
    """Clients read far more of it than the text."""
    given = {"instructions": "Be brief.", "metadata": {"run": "7"}, "tools": [TOOL], "store": True}
    answer = await responses.send(asking(**given, max_output_tokens=12, temperature=0.5))
    said = orjson.loads(await answer.read())
    usage = said.pop("usage")
    assert said == {
        "id": "resp_7",
        "object": "response",
        "created_at": 1_760_000_000,
        "status": "incomplete",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"},
        "model": "m",
        "output": [
            {
                "id": "msg_7_0",
                "type": "message",
                "status": "incomplete",
                "role": "assistant",
                "content": [{"type": "output_text", "text": TEXT, "annotations": [], "logprobs": []}],
            }
        ],
        "previous_response_id": None,
        "service_tier": "default",
        "store": False,
        "background": False,
        "instructions": "Be brief.",
        "max_output_tokens": 12,
        "max_tool_calls": None,
        "metadata": {"run": "7"},
        "parallel_tool_calls": True,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "temperature": 0.5,
        "tool_choice": "auto",
        "tools": [TOOL],
        "top_logprobs": 0,
        "top_p": None,
        "truncation": "disabled",
        "user": None,
        "text": {"format": {"type": "text"}},
    }
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (5, 8, 13)
    assert usage["input_tokens_details"] == {"cached_tokens": 0, "cache_write_tokens": 0}
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.source) == (5, 8, "provider")
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert answer.provider_request_id == "req-scripted-0"
    assert upstream.calls[0].path == "/v1/chat/completions"
    assert upstream.calls[0].body["max_completion_tokens"] == 8
    assert "store" not in upstream.calls[0].body


async def test_plain_calls_are_items_of_their_own(
    upstream: ScriptedUpstream, responses: ResponsesOverChat
) -> None:
    upstream.script(Script(tool_calls=TWO_CALLS))
    said = orjson.loads(await (await responses.send(asking(tools=[TOOL]))).read())
    assert said["status"] == "completed"
    assert [item["type"] for item in said["output"]] == ["function_call"] * 2
    assert [item["call_id"] for item in said["output"]] == ["call_scripted0_0", "call_scripted0_1"]
    assert [item["arguments"] for item in said["output"]] == [call["arguments"] for call in TWO_CALLS]
    assert len({item["id"] for item in said["output"]}) == 2


PLAIN: list[tuple[dict[str, Any], str, str, list[str]]] = [
    ({"content": "a", "reasoning_content": "hm"}, "stop", "completed", ["reasoning:hm", "message:a"]),
    (
        {"content": [{"type": "text", "text": "a"}], "reasoning": "hm"},
        "stop",
        "completed",
        ["reasoning:hm", "message:a"],
    ),
    ({"content": None, "refusal": "no"}, "stop", "completed", ["message:no"]),
    ({"content": ""}, "stop", "completed", ["message:"]),
    ({"content": "a"}, "content_filter", "incomplete", ["message:a"]),
    (
        {"content": "a", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]},
        "tool_calls",
        "completed",
        ["message:a", 'function_call:{"x":1}'],
    ),
]


@pytest.mark.parametrize(("message", "finish", "status", "items"), PLAIN)
async def test_what_servers_answer_beside_a_text(
    upstream: ScriptedUpstream,
    responses: ResponsesOverChat,
    message: dict[str, Any],
    finish: str,
    status: str,
    items: list[str],
) -> None:
    """Nothing that the model has said may be lost on the way."""
    answer = {"choices": [{"message": message, "finish_reason": finish}], "usage": USAGE}
    upstream.script(Script(body=orjson.dumps(answer).decode()))
    said = orjson.loads(await (await responses.send(asking())).read())
    assert said["status"] == status
    assert [told(item) for item in said["output"]] == items


@pytest.mark.parametrize(
    "body",
    [
        '{"choices":[]}',
        '{"choices":[{"message":"x"}]}',
        '{"choices":[{"message":{"tool_calls":[{"function":{"arguments":"{}"}}]}}]}',
        '{"object":"response","output":[]}',
        '{"choices":[{"message":{"content":""},"finish_reason":"stop","error":{"code":502}}]}',
        '{"choices":[{"message":{"content":"a"},"finish_reason":"error"}]}',
    ],
)
async def test_a_plain_answer_that_is_no_chat_completion_is_a_failure(
    upstream: ScriptedUpstream, responses: ResponsesOverChat, body: str
) -> None:
    """An empty answer would be taken for the model's own."""
    upstream.script(Script(body=body))
    with pytest.raises(UpstreamFailed) as caught:
        await (await responses.send(asking())).read()
    assert caught.value.kind == "unknown"
    assert caught.value.usage is not None


async def test_openais_own_library_knows_a_plain_response(
    upstream: ScriptedUpstream, responses: ResponsesOverChat
) -> None:
    message = {"content": "a", "refusal": "no", "reasoning_content": "hm"}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    answer = {"choices": [{"message": {**message, "tool_calls": [call]}, "finish_reason": "stop"}], "usage": USAGE}
    upstream.script(Script(body=orjson.dumps(answer).decode()))
    fields = {"text": {"verbosity": "low"}, "reasoning": {"effort": "low"}, "tools": [TOOL], "tool_choice": "auto"}
    said = Response.model_validate_json(await (await responses.send(asking(**fields))).read())
    assert [item.type for item in said.output] == ["reasoning", "message", "function_call"]
    assert said.output_text == "a"
