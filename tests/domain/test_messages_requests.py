"""The reading of a Messages request decides what is held for it: an input bound that is too low is money."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.asks import Ask, Extra
from proxy.domain.messages_requests import FIELDS, HARMLESS, read_count_tokens, read_messages
from proxy.domain.refusals import Refusal, Refused
from proxy.domain.request_parts import IMAGE_TOKENS, UNBOUNDED
from proxy.domain.requests import read_request

HELLO = {"role": "user", "content": "hello"}
TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object"}}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 8_000}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}


def digest(value: str) -> str:
    return f"digest-{len(value)}"


def read(body: dict[str, Any] | None = None, headers: Any = None, **more: Any) -> Ask:
    asked = {"model": "m", "max_tokens": 9, "messages": [HELLO], **(body or {}), **more}
    return read_messages(asked, headers or {}, digest)


def count(body: dict[str, Any] | None = None, **more: Any) -> Ask:
    return read_count_tokens({"model": "m", "messages": [HELLO], **(body or {}), **more}, {}, digest)


def saying(*blocks: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": list(blocks)}]}


def refusal(**body: Any) -> Refusal:
    with pytest.raises(Refused) as caught:
        read(body)
    return caught.value.refusal


def test_a_plain_request_is_understood() -> None:
    """The everyday case, whole."""
    ask = read(temperature=1, stop_sequences=["x"], top_k=5)
    assert (ask.endpoint, ask.model, ask.streamed) == ("/v1/messages", "m", False)
    assert (ask.output_limit, ask.choices, ask.inputs, ask.generates, ask.counts_request) == (9, 1, 1, True, True)
    assert (ask.unknown_fields, ask.extras) == ((), ())
    assert 9 <= ask.input_bound <= 100
    assert 1 <= ask.input_estimate <= 40


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"model": None}, "model", "Missing required parameter"),
        ({"max_tokens": None}, "max_tokens", "Missing required parameter"),
        ({"max_tokens": -1}, "max_tokens", ">= 0"),
        ({"max_tokens": 1.5}, "max_tokens", "an integer"),
        ({"max_tokens": True}, "max_tokens", "an integer"),
        ({"max_tokens": 1 << 50}, "max_tokens", "<="),
        ({"stream": 1}, "stream", "a boolean"),
        ({"messages": None}, "messages", "Missing"),
        ({"messages": {}}, "messages", "an array"),
        ({"messages": []}, "messages", "at least one"),
        ({"messages": [HELLO] * 2001}, "messages", "2000"),
        ({"messages": ["hi"]}, "messages.0", "an object"),
        ({"messages": [{"content": "x"}]}, "messages.0.role", "Missing"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "Missing"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content", "an array of blocks"),
        (saying("x"), "messages.0.content.0", "an object"),
        (saying({"text": "x"}), "messages.0.content.0.type", "Missing"),
        (saying({"type": 4}), "messages.0.content.0.type", "a string"),
        (saying({"type": "text"}), "messages.0.content.0.text", "a string"),
        (saying({"type": "image"}), "messages.0.content.0.source", "Missing"),
        (saying({"type": "image", "source": {"type": "x"}}), "messages.0.content.0.source.type", "'url'"),
        (
            saying({"type": "image", "source": {"type": "file", "file_id": "file_1"}}),
            "messages.0.content.0.source.file_id",
            "whose it is",
        ),
        (
            saying({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "document", "source": 1}]}),
            "messages.0.content.0.content.0.source",
            "an object",
        ),
        (saying({"type": "container_upload", "file_id": "f"}), "messages.0.content.0.file_id", "whose it is"),
        ({"system": 7}, "system", "an array of blocks"),
        ({"tools": {}}, "tools", "an array"),
        ({"tools": [TOOL] * 513}, "tools", "512"),
        ({"tools": ["x"]}, "tools.0", "an object"),
        ({"tools": [{"type": "custom"}]}, "tools.0.name", "Missing"),
        ({"tools": [{"type": "advisor_20260301", "name": "advisor"}]}, "tools.0.type", "web_search"),
        ({"tools": [{"type": "web_search_20260318", "max_uses": 0}]}, "tools.0.max_uses", ">= 1"),
        ({"tool_choice": "auto"}, "tool_choice", "an object"),
        ({"mcp_servers": {}}, "mcp_servers", "an array"),
        ({"container": "container_1"}, "container", "whose it is"),
        ({"container": {"id": "container_1"}}, "container.id", "whose it is"),
        ({"thread": {"type": "create"}}, "thread", "whose it is"),
        ({"fallbacks": "default"}, "fallbacks", "policy"),
        ({"compaction": {"type": "summarize"}}, "compaction", "usage"),
        (
            {"context_management": {"edits": [{"type": "compact_20260112"}]}},
            "context_management.edits.0.type",
            "usage",
        ),
        ({"speed": "fast"}, "speed", '"standard"'),
        ({"inference_geo": "us"}, "inference_geo", '"global"'),
        ({"billing_policy": {"type": "billing_policy", "bill_to": "user_profile"}}, "billing_policy", "self"),
        ({"service_tier": 7}, "service_tier", "a string"),
        ({"metadata": "x"}, "metadata", "an object"),
        ({"metadata": {"user_id": 7}}, "metadata.user_id", "a string"),
    ],
)
def test_a_fault_is_a_400_that_names_its_field(body: dict[str, Any], param: str, says: str) -> None:
    """Whoever reads the error must know which field to change, and into what."""
    refused = refusal(**body)
    assert (refused.reason, refused.status, refused.param) == ("bad_request", 400, param)
    assert says in refused.message


@pytest.mark.parametrize("name", sorted(FIELDS.keys() - {"model", "messages", "max_tokens"}))
def test_null_counts_as_absent(name: str) -> None:
    """Clients send null for what they were not given."""
    assert read({name: None}).extras == ()


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in HARMLESS.items() for value in values]
)
def test_the_harmless_values_of_a_field_that_costs_extra_pass(name: str, value: Any) -> None:
    ask = read({name: value})
    assert (ask.extras, ask.unknown_fields) == ((), ())


def test_what_fills_the_cache_and_writes_nothing_is_allowed() -> None:
    """Anthropic documents `max_tokens` 0 for that."""
    assert read(max_tokens=0).output_limit == 0


@pytest.mark.parametrize(
    ("body", "extra"),
    [
        (
            {"tools": [{"type": "web_search_20260318", "name": "web_search"}]},
            Extra("tools.0", "web_search", None, "tools.0.max_uses"),
        ),
        (
            {"tools": [TOOL, {"type": "web_search_20250305", "max_uses": 5}]},
            Extra("tools.1", "web_search", 5, "tools.1.max_uses"),
        ),
        (
            {"tools": [{"type": "web_fetch_20250910", "max_uses": 2}]},
            Extra("tools.0", "web_fetch", 2, "tools.0.max_uses"),
        ),
        ({"tools": [{"type": "code_execution_20250825"}]}, Extra("tools.0", "code_interpreter")),
        ({"tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}]}, Extra("tools.0", "mcp")),
        ({"mcp_servers": [{"type": "url", "url": "https://x"}]}, Extra("mcp_servers.0", "mcp")),
        ({"container": {"skills": [{"type": "anthropic"}]}}, Extra("container", "code_interpreter")),
        ({"service_tier": "priority"}, Extra("service_tier", "priority_tier")),
        (
            saying({"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}),
            Extra("messages.0.content.0.source", "remote_images"),
        ),
        (
            saying({"type": "tool_result", "content": [{"type": "document", "source": {"type": "url"}}]}),
            Extra("messages.0.content.0.content.0.source", "remote_images"),
        ),
        (
            saying(
                {
                    "type": "tool_addition",
                    "tool": {"type": "tool_definition", "definition": {"type": "web_search_20260318"}},
                },
                role="system",
            ),
            Extra(
                "messages.0.content.0.tool.definition",
                "web_search",
                limited_by="messages.0.content.0.tool.definition.max_uses",
            ),
        ),
    ],
)
def test_what_may_cost_extra_is_named_with_its_feature(body: dict[str, Any], extra: Extra) -> None:
    """Admission asks the plan for the feature; what nobody has named is paid by the operator."""
    assert extra in read(body).extras


@pytest.mark.parametrize("block", [PDF, {"type": "from_next_year", "x": 1}])
def test_what_no_body_tells_the_size_of_is_bounded_by_the_context(block: dict[str, Any]) -> None:
    assert read(saying(block)).input_bound >= UNBOUNDED
    assert read(saying({"type": "tool_result", "content": [block]})).input_bound >= UNBOUNDED


def test_a_kind_of_block_that_came_later_is_unknown_and_not_refused() -> None:
    """Clients are newer than this table; only a cost budget cannot have them."""
    assert read(saying({"type": "from_next_year"}), next_field=1).unknown_fields == (
        "next_field",
        "messages.0.content.0",
    )
    edit = {"type": "clear_something_20270101"}
    assert read(context_management={"edits": [edit]}).unknown_fields == ("context_management.edits.0",)


def test_claude_codes_context_management_passes() -> None:
    edits = [{"type": "clear_thinking_20251015", "keep": "all"}, {"type": "clear_tool_uses_20250919"}]
    ask = read(context_management={"edits": edits})
    assert (ask.extras, ask.unknown_fields) == ((), ())


TEXT = "éä🙂 a longer text "

HOLDERS = [
    {"system": TEXT},
    {"system": [{"type": "text", "text": TEXT, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
    {"messages": [{"role": "user", "content": TEXT}]},
    {"messages": [{"role": TEXT, "content": "x"}]},
    saying({"type": "text", "text": TEXT}),
    saying({"type": "text", "text": "", "citations": [{"cited_text": TEXT}]}),
    saying({"type": "thinking", "thinking": TEXT, "signature": "s"}, role="assistant"),
    saying({"type": "redacted_thinking", "data": TEXT}, role="assistant"),
    saying({"type": "tool_use", "id": "t", "name": "f", "input": {"deep": [{"type": "image", "a": TEXT}]}}),
    saying({"type": "tool_result", "tool_use_id": "t", "content": TEXT}),
    saying({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": TEXT}]}),
    saying({"type": "mcp_tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": TEXT}]}),
    saying({"type": "search_result", "title": "t", "source": "s", "content": [{"type": "text", "text": TEXT}]}),
    saying({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": TEXT}}),
    saying({"type": "document", "source": {"type": "content", "content": TEXT}}),
    saying({"type": "document", "title": TEXT, "source": {"type": "text", "data": ""}}),
    saying({"type": "web_search_tool_result", "content": [{"encrypted_content": TEXT}]}),
    saying(
        {
            "type": "web_fetch_tool_result",
            "content": {
                "type": "web_fetch_result",
                "content": {"type": "document", "source": {"type": "text", "data": TEXT}},
            },
        }
    ),
    saying({"type": "compaction", "content": TEXT}),
    saying(
        {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": {**TOOL, "description": TEXT}}}
    ),
    {"tools": [{**TOOL, "description": TEXT}]},
    {"tools": [{**TOOL, "input_schema": {"properties": {TEXT: {}}}}]},
    {"tool_choice": {"type": "tool", "name": TEXT}},
    {"output_config": {"format": {"type": "json_schema", "schema": {"title": TEXT}}}},
    {"output_format": {"type": "json_schema", "schema": {"title": TEXT}}},
    {"next_field": TEXT},
]


@pytest.mark.parametrize("body", HOLDERS, ids=str)
def test_all_that_the_model_reads_counts_at_least_its_bytes(body: dict[str, Any]) -> None:
    """Whatever a request hides its text in, a token is at least one byte of it."""
    size = 400 * len(TEXT.encode())

    def longer(value: Any) -> Any:
        if isinstance(value, dict):
            return {longer(key): longer(each) for key, each in value.items()}
        if isinstance(value, list):
            return [longer(each) for each in value]
        return 401 * TEXT if value == TEXT else value

    assert read(longer(body)).input_bound - read(body).input_bound >= size


def test_an_image_counts_as_the_dearest_anywhere_it_may_stand() -> None:
    """Its base64 says nothing: the same picture costs most on the model that cuts it into the most tiles."""
    once = read(saying(IMAGE)).input_bound
    assert once - read(saying({"type": "text", "text": ""})).input_bound == IMAGE_TOKENS["auto"]
    nested = read(saying({"type": "tool_result", "tool_use_id": "t", "content": [IMAGE, IMAGE]}))
    paged = read(saying({"type": "document", "source": {"type": "content", "content": [IMAGE, IMAGE]}}))
    assert nested.input_bound > 2 * IMAGE_TOKENS["auto"] < paged.input_bound


@pytest.mark.parametrize(
    ("kind", "documented"),
    [
        ("bash_20250124", 245),
        ("text_editor_20250728", 700),
        ("computer_20251124", 735 + 499),
        ("memory_20250818", 1_000),
        ("computer_toolset_20260801", 4_000),
        ("browser_toolset_20260801", 8_000),
    ],
)
def test_a_tool_that_the_provider_defines_counts_what_it_writes_about_it(kind: str, documented: int) -> None:
    """Twenty bytes of body become a page of prompt."""
    ask = read(tools=[{"type": kind, "name": "x"}])
    assert ask.extras == ()
    assert ask.input_bound - read().input_bound >= documented + 346


def test_counting_tokens_buys_nothing_and_may_name_every_tool() -> None:
    """It holds nothing of any budget, and is charged nothing."""
    ask = count(tools=[TOOL, {"type": "web_search_20260318"}], system="s", next_field=1)
    assert ask.endpoint == "/v1/messages/count_tokens"
    assert (ask.input_bound, ask.output_limit, ask.input_estimate) == (0, 0, 0)
    assert (ask.generates, ask.counts_request, ask.streamed) == (False, False, False)
    assert (ask.extras, ask.unknown_fields) == ((), ())
    assert count(saying({"type": "image", "source": {"type": "url"}})).extras[0].feature == "remote_images"
    with pytest.raises(Refused):
        count(messages=[])


SESSION = "6a1c2d3e-0000-4000-8000-123456789abc"
DEVICE = "a" * 64


@pytest.mark.parametrize(
    ("metadata", "user_id", "run_id"),
    [
        ({"user_id": "u-1"}, "u-1", None),
        ({"user_id": "u-1", "run_id": "r", "step": "s"}, "u-1", "r"),
        ({"user_id": ""}, None, None),
        ({"user_id": None}, None, None),
        ({"user_id": "ann@example.com"}, "digest-15", None),
        ({"user_id": "u" * 257}, "digest-257", None),
        ({"user_id": "a\nb"}, "digest-3", None),
        ({"user_id": f"user_{DEVICE}_account__session_{SESSION}"}, f"user_{DEVICE}_account_", SESSION),
        ({"user_id": f"user_{DEVICE}_account_{SESSION}_session_x-1"}, f"user_{DEVICE}_account_{SESSION}", "x-1"),
        (
            {"user_id": f'{{"device_id":"{DEVICE}","account_uuid":"","session_id":"{SESSION}"}}'},
            DEVICE,
            SESSION,
        ),
        (
            {
                "user_id": f'{{"device_id":"{DEVICE}","account_uuid": "acc-1","session_id":"{SESSION}"}}',
                "run_id": "r",
            },
            "acc-1",
            "r",
        ),
        ({"user_id": "{" + "x" * 300}, "digest-301", None),
    ],
)
def test_who_it_is_for_stands_in_the_metadata(metadata: Any, user_id: str | None, run_id: str | None) -> None:
    """Claude Code puts its session beside its user, and a user of every session would be nobody's budget."""
    said = read(metadata=metadata).attribution
    assert (said.user_id, said.run_id) == (user_id, run_id)


def test_a_header_says_it_better_than_the_body() -> None:
    said = read({"faregate": 1}, {"faregate-user-id": "h"}, metadata={"user_id": "b"}).attribution
    assert said.user_id == "h"


@pytest.mark.parametrize(("query", "goes_up"), [("beta=true", "beta=true"), ("beta=true&x=1", ""), ("", "")])
def test_the_beta_query_goes_up_and_no_other(query: str, goes_up: str) -> None:
    body = {"model": "m", "max_tokens": 9, "messages": [HELLO]}
    assert read_request("/v1/messages", query, body, {}, digest).query == goes_up


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["type", "text", "source", "content", "role", "tool", "definition", "name", "tools", "edits", "data", "id"]
    ) | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), json_values, max_size=5), json_values)
def test_no_body_is_anything_but_understood_or_refused(fields: dict[str, Any], content: Any) -> None:
    """A crash is a 500 for whoever has a typo."""
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": content}], **fields}
    for reader in (read_messages, read_count_tokens):
        with contextlib.suppress(Refused):
            assert reader(body, {}, digest).input_bound >= 0
