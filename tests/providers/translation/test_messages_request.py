"""Messages over chat completions, upwards: each field is carried, declared without effect, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.domain.messages_requests import FIELDS, HARMLESS, read_messages
from proxy.gateway.ports import UpstreamFailed
from proxy.providers.translation.messages_request import TRANSLATED, WITHOUT_EFFECT, ChatRequest, chat_request

HELLO = {"role": "user", "content": "Hello"}
PIXEL = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0="}}
PIXEL_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0="}}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
WEATHER = {"name": "weather", "description": "Tells it.", "input_schema": SCHEMA}
WEATHER_FUNCTION = {"name": "weather", "description": "Tells it.", "parameters": SCHEMA}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Köln"}}
CALLED = {
    "id": "toolu_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Köln"}'},
}
FORMAT = {"type": "json_schema", "schema": SCHEMA}


def translated(**fields: Any) -> ChatRequest:
    body = {"model": "m", "max_tokens": 50, "messages": [HELLO], **fields}
    return chat_request(read_messages(body, {}, str.upper))


def unread(**fields: Any) -> ChatRequest:
    """As `translated`, with fields that the reader already refuses: no other layer may be relied upon."""
    ask = read_messages({"model": "m", "max_tokens": 50, "messages": [HELLO]}, {}, str.upper)
    ask.body = {**ask.body, **fields}
    return chat_request(ask)


CARRIED = [
    ("system", {"system": "Be brief."}, {"messages": [{"role": "system", "content": "Be brief."}, HELLO]}),
    (
        "system",
        {"system": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two.", "cache_control": {}}]},
        {"messages": [{"role": "system", "content": "One.\n\nTwo."}, HELLO]},
    ),
    ("temperature", {"temperature": 0.5}, {"temperature": 0.5}),
    ("top_p", {"top_p": 0.9}, {"top_p": 0.9}),
    ("top_k", {"top_k": 5}, {"top_k": 5}),
    ("stop_sequences", {"stop_sequences": ["END", "x"]}, {"stop": ["END", "x"]}),
    ("stop_sequences", {"stop_sequences": []}, {}),
    ("stream", {"stream": True}, {"stream": True}),
    ("tools", {"tools": [WEATHER]}, {"tools": [{"type": "function", "function": WEATHER_FUNCTION}]}),
    (
        "tools",
        {
            "tools": [
                {**WEATHER, "type": "custom", "strict": True, "cache_control": {"type": "ephemeral"}}
                | {"eager_input_streaming": True, "defer_loading": False, "allowed_callers": ["direct"]}
            ]
        },
        {"tools": [{"type": "function", "function": {**WEATHER_FUNCTION, "strict": True}}]},
    ),
    ("tools", {"tools": []}, {}),
    ("thinking", {"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"reasoning_effort": "low"}),
    ("thinking", {"thinking": {"type": "enabled", "budget_tokens": 4096}}, {"reasoning_effort": "low"}),
    ("thinking", {"thinking": {"type": "enabled", "budget_tokens": 4097}}, {"reasoning_effort": "medium"}),
    ("thinking", {"thinking": {"type": "enabled", "budget_tokens": 16384}}, {"reasoning_effort": "medium"}),
    ("thinking", {"thinking": {"type": "enabled", "budget_tokens": 16385}}, {"reasoning_effort": "high"}),
    ("thinking", {"thinking": {"type": "adaptive"}}, {}),
    ("thinking", {"thinking": {"type": "disabled"}}, {}),
    ("output_config", {"output_config": {"effort": "low"}}, {"reasoning_effort": "low"}),
    ("output_config", {"output_config": {"effort": "max"}}, {"reasoning_effort": "xhigh"}),
    (
        "output_config",
        {"output_config": {"effort": "medium"}, "thinking": {"type": "enabled", "budget_tokens": 31999}},
        {"reasoning_effort": "medium"},
    ),
    *(
        (
            name,
            {name: value},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
                }
            },
        )
        for name, value in (("output_config", {"format": FORMAT}), ("output_format", FORMAT))
    ),
]


@pytest.mark.parametrize(
    ("name", "fields", "expected"), CARRIED, ids=[f"{c[0]}-{n}" for n, c in enumerate(CARRIED)]
)
def test_a_field_is_carried(name: str, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """What is carried wrongly is answered as if it had been asked otherwise, and nobody notices."""
    assert translated(**fields).body == {"messages": [HELLO], **expected}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "tool", "name": "weather"},
            {"tool_choice": {"type": "function", "function": {"name": "weather"}}},
        ),
        (
            {"type": "auto", "disable_parallel_tool_use": True},
            {"tool_choice": "auto", "parallel_tool_calls": False},
        ),
        ({"type": "any", "disable_parallel_tool_use": False}, {"tool_choice": "required"}),
    ],
)
def test_the_choice_of_tools_is_carried(choice: dict[str, Any], expected: dict[str, Any]) -> None:
    """An agent that must call a tool loops for ever on an answer in prose."""
    body = translated(tools=[WEATHER], tool_choice=choice).body
    assert {name: body[name] for name in body.keys() - {"tools", "messages"}} == expected


def test_a_conversation_with_tools_is_carried_turn_by_turn() -> None:
    """Results must follow their calls at once, and a chat tool message can hold no image."""
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Look"}, PIXEL]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "secretly", "signature": "s"},
                {"type": "redacted_thinking", "data": "d"},
                {"type": "text", "text": "I will ", "citations": None},
                {"type": "text", "text": "ask."},
                {**CALL, "caller": {"type": "direct"}},
                {**CALL, "id": "toolu_2", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "content": [{"type": "text", "text": "a"}, PIXEL],
                },
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": "no such city", "is_error": True},
                {"type": "text", "text": "Go on"},
            ],
        },
        {"role": "system", "content": "Now in French."},
        {"role": "user", "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "Two"}]},
    ]
    request = translated(messages=messages)
    assert request.body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Look"}, PIXEL_PART]},
        {
            "role": "assistant",
            "content": "I will ask.",
            "tool_calls": [
                CALLED,
                {**CALLED, "id": "toolu_2", "function": {"name": "weather", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "a"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": "Error: no such city"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Images in the result of the tool call toolu_1:"},
                PIXEL_PART,
                {"type": "text", "text": "Go on"},
            ],
        },
        {"role": "system", "content": "Now in French."},
        {"role": "user", "content": "One\n\nTwo"},
    ]
    assert len(request.sources) == len(request.body["messages"])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", ""),
        ([], ""),
        ([{"type": "tool_result", "tool_use_id": "t"}], None),
        (
            [
                {
                    "type": "document",
                    "title": "Title",
                    "source": {"type": "text", "media_type": "text/plain", "data": "Text."},
                    "citations": {"enabled": False},
                }
            ],
            "Title\n\nText.",
        ),
        (
            [{"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}}],
            [{"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}],
        ),
    ],
)
def test_a_users_turn_may_be_of_many_kinds(content: Any, expected: Any) -> None:
    """An empty turn is a turn, and a result without content is one."""
    last = translated(messages=[{"role": "user", "content": content}]).body["messages"][-1]
    if expected is None:
        assert last == {"role": "tool", "tool_call_id": "t", "content": ""}
    else:
        assert last == {"role": "user", "content": expected}


def test_a_turn_of_nothing_but_thinking_is_no_message() -> None:
    """Servers refuse an assistant's message that says nothing."""
    thought = {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": "s"}]}
    assert translated(messages=[HELLO, thought, HELLO]).body["messages"] == [HELLO, HELLO]


@pytest.mark.parametrize(
    "fields",
    [
        {"cache_control": {"type": "ephemeral"}},
        {"diagnostics": {"previous_message_id": "msg_1"}},
        {"fallback_credit_token": "token"},
        {"metadata": {"user_id": "somebody"}},
        {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
        {"service_tier": "standard_only"},
        {"speed": "standard"},
        {"mcp_servers": []},
        {"fallbacks": []},
        {"container": None},
        {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Hello", "cache_control": {"ttl": "1h"}}]}
            ]
        },
    ],
)
def test_what_no_answer_hangs_on_is_accepted(fields: dict[str, Any]) -> None:
    """Claude Code sends several of these with every request."""
    assert translated(**fields).body == {"messages": [HELLO]}


def user(*blocks: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}
TEXT = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "t"}}
RESULT = {"type": "tool_result", "tool_use_id": "t"}
REFUSED = [
    ("messages.0.content.0.source", user(PDF)),
    ("messages.0.content.0.citations", user({**TEXT, "citations": {"enabled": True}})),
    ("messages.0.content.0.citations", user({"type": "text", "text": "t", "citations": [{"type": "x"}]})),
    ("messages.0.content.0", user({"type": "search_result", "source": "s", "title": "t", "content": []})),
    ("messages.0.content.0", user({"type": "container_upload", "file_id": "f"})),
    ("messages.0.content.0.source", user({"type": "image", "source": {"type": "file", "file_id": "f"}})),
    ("messages.0.content.0.transformations", user({**PIXEL, "transformations": {"oversized_image": "error"}})),
    (
        "messages.0.content.0.content.0",
        user({**RESULT, "content": [{"type": "tool_reference", "tool_name": "w"}]}),
    ),
    ("messages.0.content.0.content.0.source", user({**RESULT, "content": [PDF]})),
    ("messages.0.content.0.toolset_name", user({**RESULT, "toolset_name": "x"})),
    ("messages.1", {"messages": [HELLO, {"role": "assistant", "content": "The answer is"}]}),
    (
        "messages.1.content.0",
        {"messages": [HELLO, {"role": "assistant", "content": [{"type": "server_tool_use", "id": "s"}]}, HELLO]},
    ),
    ("messages.0.output_config", {"messages": [{**HELLO, "output_config": {"effort": "low"}}]}),
    ("messages.0.role", {"messages": [{"role": "tool", "content": "x"}]}),
    ("system.0", {"system": [PIXEL]}),
    ("tools.0", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
    ("tools.1", {"tools": [WEATHER, {"type": "bash_20250124", "name": "bash"}]}),
    ("tools.0.defer_loading", {"tools": [{**WEATHER, "defer_loading": True}]}),
    ("tools.0.input_examples", {"tools": [{**WEATHER, "input_examples": [{"n": 1}]}]}),
    ("tools.0.allowed_callers", {"tools": [{**WEATHER, "allowed_callers": ["code_execution_20260120"]}]}),
    ("tools.0.input_schema", {"tools": [{"name": "weather"}]}),
    ("tool_choice.type", {"tools": [WEATHER], "tool_choice": {"type": "some"}}),
    ("output_config.task_budget", {"output_config": {"task_budget": {"type": "tokens", "total": 9}}}),
    ("output_config.effort", {"output_config": {"effort": "extreme"}}),
    ("output_config.format.schema", {"output_config": {"format": {"type": "json_schema"}}}),
    ("thinking.type", {"thinking": {"type": "sideways"}}),
    ("thinking.budget_tokens", {"thinking": {"type": "enabled"}}),
    ("context_management.edits.0", {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}),
    ("max_tokens", {"max_tokens": 0}),
    ("container", {"container": {"skills": []}}),
    ("compaction", {"compaction": {"enabled": True}}),
    ("fallbacks", {"fallbacks": [{"model": "other"}]}),
    ("billing_policy", {"billing_policy": {"type": "billing_policy", "bill_to": "other"}}),
    ("thread", {"thread": {"id": "t"}}),
    ("inference_geo", {"inference_geo": "us"}),
    ("mcp_servers", {"mcp_servers": [{"type": "url", "url": "https://a.example"}]}),
    ("service_tier", {"service_tier": "priority"}),
    ("speed", {"speed": "fast"}),
    ("user_profile_id", {"user_profile_id": "u"}),
    ("betas", {"betas": ["context-1m-2025-08-07"]}),
]


@pytest.mark.parametrize(("param", "fields"), REFUSED, ids=[case[0] for case in REFUSED])
def test_what_cannot_be_carried_is_refused_by_its_name(param: str, fields: dict[str, Any]) -> None:
    """A field dropped in silence is an answer to another question, at full price."""
    with pytest.raises(UpstreamFailed) as raised:
        unread(**fields)
    failed = raised.value
    assert (failed.kind, failed.blame, failed.status) == ("unsent", "request", 400)
    assert (failed.code, failed.param) == ("unsupported_parameter", param)
    # Anthropic's error has no field for it, so the sentence must say it.
    assert f"'{param}'" in failed.message


def test_no_field_that_the_gate_knows_is_dropped_in_silence() -> None:
    """The reader learns a field, and the translation would let it fall: this table has to learn it too."""
    carried = {name for name, _, _ in CARRIED} | {"tool_choice", "messages", "model", "max_tokens"}
    refused = {param for param, _ in REFUSED}
    for name in FIELDS:
        ways = (name in TRANSLATED and name in carried, name in WITHOUT_EFFECT, name in refused)
        assert any(ways), name
    assert not TRANSLATED & WITHOUT_EFFECT
    assert FIELDS.keys() >= TRANSLATED | WITHOUT_EFFECT | HARMLESS.keys()


@pytest.mark.parametrize(
    ("param", "name"),
    [
        ("messages.1.content.0.image_url.url", "messages.0"),
        ("messages[1].content", "messages.0"),
        ("messages.77", "messages"),
        ("stop", "stop_sequences"),
        ("reasoning_effort", "thinking.budget_tokens"),
        ("parallel_tool_calls", "tool_choice.disable_parallel_tool_use"),
        ("response_format.json_schema.schema", "output_config.format.schema"),
        ("tools.0.function.parameters", "tools.0.input_schema"),
        ("tools[0].function.name", "tools.0.name"),
        ("top_k", "top_k"),
    ],
)
def test_a_refusal_further_on_names_the_clients_own_field(param: str, name: str) -> None:
    """Whoever has sent `stop_sequences` looks for `stop` in vain."""
    request = translated(system="s", thinking={"type": "enabled", "budget_tokens": 1024})
    failed = UpstreamFailed(
        "refused", "upstream_rejected", f"Unsupported value: '{param}'.", status=400, param=param, blame="request"
    )
    told = request.retold(failed)
    assert told.param == name
    assert f"'{name}'" in told.message


def test_thinking_is_shown_only_to_whoever_asked_for_it() -> None:
    """Code that reads `content[0].text` breaks on a block of thinking that it did not ask for."""
    assert not translated().shows_thinking
    assert not translated(thinking={"type": "disabled"}).shows_thinking
    assert not translated(thinking={"type": "adaptive", "display": "omitted"}).shows_thinking
    assert translated(thinking={"type": "adaptive"}).shows_thinking
