"""A Responses request over chat: each field is translated, declared to be of no effect, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.domain.responses_requests import FIELDS
from proxy.gateway.ports import UpstreamFailed
from proxy.providers.translation.responses_request import TRANSLATED, WITHOUT_EFFECT, chat_request

PIXEL = "data:image/png;base64,iVBORw0KGgo="
TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}
CHAT_TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object"}, "strict": True},
}
OTHER = {"type": "function", "name": "tide", "description": "High or low", "parameters": None, "strict": None}
CHAT_OTHER = {"type": "function", "function": {"name": "tide", "description": "High or low"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


def asking(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "input": "Hello", **fields}


def call(id: str, name: str = "weather", arguments: str = "{}") -> dict[str, Any]:
    return {"type": "function_call", "id": f"fc_{id}", "call_id": id, "name": name, "arguments": arguments}


def chat_call(id: str, name: str = "weather", arguments: str = "{}") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def output(id: str, text: Any = "sun") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": id, "output": text}


def said(*texts: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []} for text in texts]
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}


THOUGHT = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "Hm."}],
}

CONVERSATIONS: list[tuple[Any, list[dict[str, Any]]]] = [
    ("Hello", [{"role": "user", "content": "Hello"}]),
    ([{"role": "user", "content": "Hello"}], [{"role": "user", "content": "Hello"}]),
    (
        [{"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]}],
        [{"role": "system", "content": "Be brief."}],
    ),
    (
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        ],
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    ),
    (
        [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is this?"},
                    {"type": "input_image", "image_url": PIXEL, "detail": "low", "file_id": None},
                    {"type": "input_image", "image_url": PIXEL},
                ],
            }
        ],
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": PIXEL}},
                ],
            }
        ],
    ),
    (
        [said("One. ", "Two."), {"role": "user", "content": "More"}],
        [
            {
                "role": "assistant",
                "content": [{"type": "text", "text": "One. "}, {"type": "text", "text": "Two."}],
            },
            {"role": "user", "content": "More"},
        ],
    ),
    (
        [{"role": "assistant", "phase": "commentary", "content": [{"type": "refusal", "refusal": "No."}]}],
        [{"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}],
    ),
    (
        [
            {"role": "user", "content": "Go"},
            THOUGHT,
            call("a"),
            THOUGHT,
            call("b", "tide"),
            output("a"),
            output("b"),
        ],
        [
            {"role": "user", "content": "Go"},
            {"role": "assistant", "content": None, "tool_calls": [chat_call("a"), chat_call("b", "tide")]},
            {"role": "tool", "tool_call_id": "a", "content": "sun"},
            {"role": "tool", "tool_call_id": "b", "content": "sun"},
        ],
    ),
    (
        [said("Let me see."), call("a"), output("a", [{"type": "input_text", "text": "rain"}]), said("Rain.")],
        [
            {"role": "assistant", "content": "Let me see.", "tool_calls": [chat_call("a")]},
            {"role": "tool", "tool_call_id": "a", "content": "rain"},
            {"role": "assistant", "content": "Rain."},
        ],
    ),
    (
        [call("a"), said("I have asked."), output("a", ""), call("b"), output("b")],
        [
            {"role": "assistant", "content": "I have asked.", "tool_calls": [chat_call("a")]},
            {"role": "tool", "tool_call_id": "a", "content": ""},
            {"role": "assistant", "content": None, "tool_calls": [chat_call("b")]},
            {"role": "tool", "tool_call_id": "b", "content": "sun"},
        ],
    ),
]


@pytest.mark.parametrize(("given", "expected"), CONVERSATIONS)
def test_a_conversation_keeps_its_order_and_its_turns(given: Any, expected: list[dict[str, Any]]) -> None:
    """A result that does not follow the message with its call is refused by every chat upstream."""
    assert chat_request(asking(input=given)).body == {"messages": expected}


def test_instructions_come_first() -> None:
    assert chat_request(asking(instructions="Be brief.")).body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
    ]


TRANSLATIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"temperature": 0.5, "top_p": 1}, {"temperature": 0.5, "top_p": 1}),
    ({"user": "u", "safety_identifier": "s"}, {"user": "u", "safety_identifier": "s"}),
    ({"prompt_cache_key": "k", "service_tier": "flex"}, {"prompt_cache_key": "k", "service_tier": "flex"}),
    ({"tools": [TOOL, OTHER]}, {"tools": [CHAT_TOOL, CHAT_OTHER]}),
    ({"tools": [{**OTHER, "async": False, "allowed_callers": ["direct"]}]}, {"tools": [CHAT_OTHER]}),
    ({"tools": [], "tool_choice": "auto", "parallel_tool_calls": True}, {}),
    ({"tool_choice": "none"}, {}),
    (
        {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
        {"tools": [CHAT_TOOL], "tool_choice": "required", "parallel_tool_calls": False},
    ),
    (
        {"tool_choice": {"type": "function", "name": "weather"}, "tools": [TOOL]},
        {"tools": [CHAT_TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
    ),
    (
        {
            "tools": [TOOL, OTHER],
            "tool_choice": {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "tide"}],
            },
        },
        {"tools": [CHAT_OTHER], "tool_choice": "required"},
    ),
    ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}, {}),
    ({"text": {"format": {"type": "text"}}}, {}),
    ({"text": {"verbosity": "low"}}, {"verbosity": "low"}),
    ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
    (
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": SCHEMA, "strict": True},
            }
        },
    ),
    (
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "description": "d"}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "n", "description": "d", "schema": SCHEMA},
            }
        },
    ),
    ({"reasoning": {"effort": "high", "summary": "auto"}}, {"reasoning_effort": "high"}),
    ({"reasoning": {"generate_summary": "concise", "context": "auto", "mode": "standard"}}, {}),
    ({"include": ["reasoning.encrypted_content"]}, {}),
    ({"include": ["message.output_text.logprobs"]}, {"logprobs": True}),
    ({"top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
    ({"top_logprobs": 0}, {}),
    ({"stream": True, "stream_options": {"include_obfuscation": False}}, {"stream": True}),
    ({"stream": False}, {}),
    ({"background": False, "truncation": "disabled", "context_management": []}, {}),
    ({"max_output_tokens": 9, "max_tool_calls": 3, "metadata": {"a": "b"}, "store": True}, {}),
    ({"client_metadata": {"a": "b"}, "previous_response_id": None, "tools": None, "text": None}, {}),
]


@pytest.mark.parametrize(("fields", "expected"), TRANSLATIONS)
def test_what_a_field_becomes(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """The model must get what the client meant, and nothing that an upstream would stumble over."""
    body = chat_request(asking(**fields)).body
    assert body.pop("messages") == [{"role": "user", "content": "Hello"}]
    assert body == expected


def message(*parts: Any, role: str = "user") -> dict[str, Any]:
    return {"input": [{"role": "user", "content": "x"}, {"role": role, "content": list(parts)}]}


TEXT = {"type": "input_text", "text": "x"}

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"prompt": {"id": "p"}}, "prompt"),
    ({"background": True}, "background"),
    ({"truncation": "auto"}, "truncation"),
    ({"moderation": {"model": "x"}}, "moderation"),
    ({"image": {"context_compression": "auto"}}, "image"),
    ({"prompt_cache_retention": "24h"}, "prompt_cache_retention"),
    ({"prompt_cache_options": {"mode": "explicit"}}, "prompt_cache_options"),
    ({"context_management": [{"type": "compaction"}]}, "context_management"),
    ({"frobnicate": 1}, "frobnicate"),
    ({"frob" * 100: 1}, "frob" * 16),
    ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
    ({"stream": True, "stream_options": {"include_usage": True}}, "stream_options.include_usage"),
    ({"include": ["reasoning.encrypted_content", "file_search_call.results"]}, "include.1"),
    ({"include": "all"}, "include"),
    ({"top_logprobs": "3"}, "top_logprobs"),
    ({"reasoning": {"effort": 3}}, "reasoning.effort"),
    ({"reasoning": {"context": "all_turns"}}, "reasoning.context"),
    ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
    ({"reasoning": {"budget": 5}}, "reasoning.budget"),
    ({"text": "brief"}, "text"),
    ({"text": {"tone": "warm"}}, "text.tone"),
    ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
    ({"text": {"format": {"type": "json_object", "schema": {}}}}, "text.format.schema"),
    ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
    ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
    ({"text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": 1}}}, "text.format.strict"),
    ({"tools": {}}, "tools"),
    ({"tools": ["x"]}, "tools.0"),
    ({"tools": [TOOL, {"type": "custom", "name": "patch"}]}, "tools.1.type"),
    ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
    ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools.0.type"),
    ({"tools": [{"type": "namespace", "name": "x", "tools": [TOOL]}]}, "tools.0.type"),
    ({"tools": [{**TOOL, "name": 3}]}, "tools.0.name"),
    ({"tools": [{**TOOL, "parameters": "x"}]}, "tools.0.parameters"),
    ({"tools": [{**TOOL, "strict": "yes"}]}, "tools.0.strict"),
    ({"tools": [{**TOOL, "defer_loading": True}]}, "tools.0.defer_loading"),
    ({"tools": [{**TOOL, "output_schema": {}}]}, "tools.0.output_schema"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "web_search"}}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "name": 1}}, "tool_choice.name"),
    (
        {
            "tools": [TOOL],
            "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "x"}]},
        },
        "tool_choice.tools.0.name",
    ),
    (
        {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]}},
        "tool_choice.tools.0",
    ),
    ({"instructions": ["x"]}, "instructions"),
    ({"input": 3}, "input"),
    ({"input": []}, "input"),
    ({"input": [THOUGHT]}, "input"),
    ({"input": ["x"]}, "input.0"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0"),
    ({"input": [{"id": "msg_1"}]}, "input.0"),
    ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input.0.type"),
    ({"input": [{"type": "custom_tool_call", "call_id": "a", "name": "n", "input": "x"}]}, "input.0.type"),
    ({"input": [{"type": "compaction", "encrypted_content": "x"}]}, "input.0.type"),
    ({"input": [{"type": ["message"]}]}, "input.0.type"),
    ({"input": [{"role": "robot", "content": "x"}]}, "input.0.role"),
    ({"input": [{"role": "user", "content": "x", "name": "bob"}]}, "input.0.name"),
    ({"input": [{"role": "user"}]}, "input.0.content"),
    ({"input": [{**call("a"), "namespace": "crm"}]}, "input.0.namespace"),
    ({"input": [{**call("a"), "arguments": {}}]}, "input.0.arguments"),
    ({"input": [{**call("a"), "call_id": None}]}, "input.0.call_id"),
    ({"input": [{**call("a"), "caller": {"type": "program", "caller_id": "x"}}]}, "input.0.caller"),
    ({"input": [output("a", [{"type": "input_image", "image_url": PIXEL}])]}, "input.0.output.0.type"),
    ({"input": [output("a", {"x": 1})]}, "input.0.output"),
    (message({"type": "input_file", "file_data": "x"}), "input.1.content.0.type"),
    (message({"type": "input_audio", "input_audio": {}}), "input.1.content.0.type"),
    (message(TEXT, "x"), "input.1.content.1"),
    (message({"type": "input_text", "text": None}), "input.1.content.0.text"),
    (
        message({**TEXT, "prompt_cache_breakpoint": {"mode": "explicit"}}),
        "input.1.content.0.prompt_cache_breakpoint",
    ),
    (message({"type": "input_image", "file_id": "file_1"}), "input.1.content.0.file_id"),
    (message({"type": "input_image", "image_url": PIXEL, "detail": "original"}), "input.1.content.0.detail"),
    (message({"type": "input_image", "image_url": PIXEL}, role="assistant"), "input.1.content.0.type"),
    (message({"type": "input_image", "image_url": PIXEL}, role="system"), "input.1.content.0.type"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=[param for _, param in REFUSED])
def test_what_has_no_translation_is_refused_by_its_name(fields: dict[str, Any], param: str) -> None:
    """A field that is dropped in silence is found out by the agent's user, weeks later."""
    with pytest.raises(UpstreamFailed) as caught:
        chat_request(asking(**fields))
    failed = caught.value
    assert (failed.kind, failed.blame, failed.status) == ("unsent", "request", 400)
    assert (failed.code, failed.param) == ("unsupported_parameter", param)
    assert f"'{param.removesuffix('.type')}" in failed.message


def test_no_field_is_dropped_in_silence() -> None:
    """Whoever adds a field to the reader has to say here what becomes of it."""
    refused = {param for fields, param in REFUSED if param in FIELDS and param not in TRANSLATED}
    silent = set(FIELDS) - TRANSLATED - WITHOUT_EFFECT - refused - {"access_programs"}
    assert silent == set()
    for name in FIELDS.keys() - TRANSLATED - WITHOUT_EFFECT:
        with pytest.raises(UpstreamFailed):
            chat_request(asking(**{name: "anything"}))


def test_every_field_that_is_called_translated_changes_the_request_or_is_checked() -> None:
    """A handler that forgets its field would be a drop with a good name."""
    odd = {"a": 1}
    for name in TRANSLATED - {"stream", "parallel_tool_calls"}:
        assert became_of(name, odd) in (odd, "refused"), name


def became_of(name: str, value: Any) -> Any:
    """Of a field, in the chat request: its value there, or "refused" by its name."""
    try:
        return chat_request(asking(**{name: value})).body.get(name)
    except UpstreamFailed as failed:
        return "refused" if (failed.param or "").startswith(name) else failed.param


@pytest.mark.parametrize(
    ("param", "name"),
    [
        ("messages", "input"),
        ("messages.0.content", "instructions"),
        ("messages[1].content[0].text", "input.0"),
        ("messages.[2].tool_calls.1.id", "input.1"),
        ("messages.3", "input.3"),
        ("messages.99.role", "input"),
        ("tools.0.function.parameters", "tools.1.parameters"),
        ("tools[0].function.name", "tools.1.name"),
        ("tools.7.function", "tools"),
        ("tool_choice.function.name", "tool_choice.name"),
        ("verbosity", "text.verbosity"),
        ("reasoning_effort", "reasoning.effort"),
        ("response_format", "text.format"),
        ("response_format.json_schema.schema", "text.format.schema"),
        ("max_tokens", "max_output_tokens"),
        ("max_completion_tokens", "max_output_tokens"),
        ("logprobs", "include"),
        ("temperature", "temperature"),
    ],
)
def test_a_fault_that_the_upstream_finds_is_told_of_the_clients_own_field(param: str, name: str) -> None:
    """Nobody who calls Responses has a field `messages` to put right."""
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "tide"}]}
    items = [{"role": "user", "content": "x"}, call("a"), call("b"), output("a")]
    request = chat_request(asking(instructions="Be brief.", input=items, tools=[TOOL, OTHER], tool_choice=allowed))
    message = f"Invalid '{param}'."
    failed = request.retold(
        UpstreamFailed("refused", "upstream_rejected", message, status=400, param=param, blame="request")
    )
    assert (failed.param, failed.message) == (name, f"Invalid '{name}'.")


def test_what_is_not_the_requests_fault_is_told_as_it_is() -> None:
    failed = UpstreamFailed("refused", "upstream_server_error", "It is 'tools.0'.", status=500, param="tools.0")
    told = chat_request(asking()).retold(failed)
    assert (told.param, told.message) == ("tools.0", "It is 'tools.0'.")
