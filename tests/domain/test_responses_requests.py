"""Reading a Responses request: every field has a word, and no input turns out larger than its bound."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from proxy.domain.asks import Ask, Extra
from proxy.domain.refusals import Refusal, Refused
from proxy.domain.request_parts import IMAGE_TOKENS, UNBOUNDED
from proxy.domain.responses_requests import FIELDS, HARMLESS, REASONS, read_responses

LIBRARY = Path(__file__).parents[1] / "clients/.envs/openai/lib/python3.11/site-packages/openai/types/responses"
DATA_IMAGE = "data:image/png;base64," + "A" * 100_000


def read(**fields: Any) -> Ask:
    return read_responses({"model": "m", "input": "hello", **fields}, {}, lambda user: "digested")


def refusal(**fields: Any) -> Refusal:
    with pytest.raises(Refused) as caught:
        read(**fields)
    assert (caught.value.refusal.reason, caught.value.refusal.status) == ("bad_request", 400)
    return caught.value.refusal


def message(*parts: dict[str, Any], role: str = "user") -> list[dict[str, Any]]:
    return [{"type": "message", "role": role, "content": list(parts)}]


def test_a_request_is_understood() -> None:
    """What admission needs of it, in the shape of every endpoint."""
    ask = read(stream=True, max_output_tokens=50, instructions="be brief", user="a@b.example")
    assert (ask.endpoint, ask.model, ask.streamed, ask.output_limit) == ("/v1/responses", "m", True, 50)
    assert (ask.usage_asked, ask.choices, ask.generates, ask.counts_request) == (True, 1, True, True)
    assert 13 <= ask.input_bound < 100
    assert (ask.extras, ask.unknown_fields, ask.stored_items) == ((), (), {})
    assert ask.attribution.user_id == "digested"
    headers = {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}
    asked = {"model": "m", "input": "x", "metadata": {"run_id": "r", "step": "s"}, "safety_identifier": "u"}
    ask = read_responses(asked, headers, str.upper)
    assert (ask.attribution.user_id, ask.attribution.run_id, ask.attribution.step) == ("u", "r", "s")
    assert ask.forward_headers == headers


@pytest.mark.skipif(not LIBRARY.exists(), reason="the library's environment is not built")
def test_every_field_of_the_library_has_a_word() -> None:
    """A field that OpenAI's own library sends must not be unknown where costs are limited."""
    source = (LIBRARY / "response_create_params.py").read_text()
    base = source.split("class ResponseCreateParamsBase")[1].split("\nclass ")[0]
    known = set(re.findall(r"^    (\w+):", base, re.MULTILINE)) | {"stream"}
    assert len(known) > 30
    assert known - FIELDS.keys() == set()


ITEMS: list[dict[str, Any]] = [
    {"role": "user", "content": "text"},
    {"type": "message", "role": "assistant", "id": "msg_1", "content": [{"type": "output_text", "text": "text"}]},
    {"role": "developer", "content": [{"type": "input_text", "text": "text"}]},
    {"role": "assistant", "content": [{"type": "refusal", "refusal": "text"}]},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "text"},
    {"type": "function_call_output", "call_id": "c", "output": "text"},
    {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "text"}]},
    {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "text"},
    {"type": "custom_tool_call_output", "call_id": "c", "output": "text"},
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "text"},
    {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "text"}]},
    {"type": "local_shell_call_output", "id": "x", "output": "text"},
    {"type": "shell_call_output", "call_id": "x", "output": [{"stdout": "text"}]},
    {"type": "apply_patch_call", "call_id": "x", "operation": {"diff": "text"}},
    {"type": "mcp_call", "id": "x", "name": "f", "arguments": "", "server_label": "l", "output": "text"},
    {"type": "mcp_approval_response", "approval_request_id": "text", "approve": True},
    {"type": "computer_call", "call_id": "x", "action": {"type": "type", "text": "text"}},
    {"type": "additional_tools", "role": "developer", "tools": [{"type": "function", "name": "text"}]},
]


@pytest.mark.parametrize("item", ITEMS)
def test_the_bound_grows_with_every_text(item: dict[str, Any]) -> None:
    """A text that is not counted is a free one: no tokenizer makes more tokens of it than it has bytes."""

    def swelled(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: swelled(each) for name, each in value.items()}
        if isinstance(value, list):
            return [swelled(each) for each in value]
        return "é" * 5_000 if value == "text" else value

    small, large = read(input=[item]), read(input=[swelled(item)])
    assert large.input_bound - small.input_bound >= 9_990
    assert large.input_estimate > small.input_estimate
    assert large.input_bound < 12_000


@pytest.mark.parametrize(
    "field",
    [
        {"instructions": "x" * 5_000},
        {"input": "x" * 5_000},
        {"tools": [{"type": "function", "name": "f", "description": "x" * 5_000}]},
        {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "custom", "name": "x" * 5_000}]}]},
        {"text": {"format": {"type": "json_schema", "name": "s", "schema": {"title": "x" * 5_000}}}},
        {"tool_choice": {"type": "function", "name": "x" * 5_000}},
        {"no_such_field": "x" * 5_000},
    ],
)
def test_fields_that_bound_the_input(field: dict[str, Any]) -> None:
    """Instructions, tools and schemas are input as well as messages are."""
    assert read(**field).input_bound >= 5_000


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        ({"type": "input_image", "image_url": DATA_IMAGE, "detail": "low"}, IMAGE_TOKENS["low"]),
        ({"type": "input_image", "image_url": DATA_IMAGE}, IMAGE_TOKENS["high"]),
        ({"type": "input_image", "image_url": DATA_IMAGE, "detail": "original"}, IMAGE_TOKENS["high"]),
        ({"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"}, UNBOUNDED),
    ],
)
def test_pictures_and_files(part: dict[str, Any], tokens: int) -> None:
    """A picture counts as the worst of any model; a file's pages are told by nothing in its bytes."""
    for items in (
        message(part),
        [{"type": "function_call_output", "call_id": "c", "output": [part]}],
    ):
        assert tokens <= read(input=items).input_bound < tokens + 1_000


def test_screenshots_are_pictures() -> None:
    output = {"type": "computer_screenshot", "image_url": DATA_IMAGE}
    ask = read(input=[{"type": "computer_call_output", "call_id": "c", "output": output}])
    assert IMAGE_TOKENS["high"] <= ask.input_bound < IMAGE_TOKENS["high"] + 1_000


def test_a_remote_picture_needs_the_plans_word() -> None:
    """The provider fetches it, from wherever the client says."""
    part = {"type": "input_image", "image_url": "https://example.test/x.png"}
    ask = read(input=message(part, part))
    assert ask.extras == (Extra("input.0.content.0.image_url", "remote_images"),)
    assert ask.input_bound >= 2 * IMAGE_TOKENS["high"]


@pytest.mark.parametrize(
    ("item", "stored"),
    [
        ({"type": "item_reference", "id": "msg_1"}, {"msg_1": True}),
        ({"id": "msg_1"}, {"msg_1": True}),
        ({"type": "reasoning", "id": "rs_1", "summary": []}, {"rs_1": True}),
        ({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "t"}]}, {"rs_1": False}),
        ({"type": "web_search_call", "id": "ws_1", "status": "completed"}, {"ws_1": False}),
        ({"type": "file_search_call", "id": "fs_1", "queries": []}, {"fs_1": False}),
        ({"type": "code_interpreter_call", "id": "ci_1", "container_id": "cntr_1"}, {"ci_1": False}),
        ({"type": "image_generation_call", "id": "ig_1", "status": "completed"}, {"ig_1": True}),
        ({"type": "image_generation_call", "id": "ig_1", "result": "AAAA"}, {}),
    ],
)
def test_what_the_provider_would_look_up_is_named(item: dict[str, Any], stored: dict[str, bool]) -> None:
    """Whose it is, and how large, is in no body: the gate's own records say."""
    assert read(input=[item]).stored_items == stored


def test_a_compaction_is_as_large_as_the_context() -> None:
    """Its ciphertext is shorter than what it stands for."""
    assert read(input=[{"type": "compaction", "encrypted_content": "x"}]).input_bound >= UNBOUNDED


TOOLS = [
    ({"type": "web_search"}, "web_search"),
    ({"type": "web_search_preview_2025_03_11"}, "web_search"),
    ({"type": "file_search", "vector_store_ids": ["vs_1"]}, "file_search"),
    ({"type": "code_interpreter", "container": {"type": "auto"}}, "code_interpreter"),
    ({"type": "mcp", "server_label": "l", "server_url": "https://example.test"}, "mcp"),
    ({"type": "image_generation"}, "image_generation"),
    ({"type": "computer_use_preview"}, "computer_use"),
    ({"type": "computer"}, "computer_use"),
    ({"type": "shell"}, "code_interpreter"),
    ({"type": "shell", "environment": {"type": "container_auto"}}, "code_interpreter"),
]


@pytest.mark.parametrize(("tool", "feature"), TOOLS)
def test_tools_that_the_provider_runs_need_the_plans_word(tool: dict[str, Any], feature: str) -> None:
    """They cost what no token count tells; so do those that come among the items."""
    own = {"type": "function", "name": "f"}
    assert read(tools=[own, tool], max_tool_calls=3).extras == (Extra("tools.1", feature, 3, "max_tool_calls"),)
    for kind in ("additional_tools", "tool_search_output"):
        items = [{"type": kind, "role": "developer", "tools": [tool]}]
        assert read(input=items).extras == (Extra("input.0.tools.0", feature, None, "max_tool_calls"),)


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "function", "name": "f"},
        {"type": "custom", "name": "f"},
        {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f"}]},
        {"type": "local_shell"},
        {"type": "shell", "environment": {"type": "local"}},
        {"type": "apply_patch"},
        {"type": "tool_search", "execution": "client"},
    ],
)
def test_tools_of_the_client_are_free(tool: dict[str, Any]) -> None:
    assert read(tools=[tool]).extras == ()


def test_a_dearer_tier_needs_the_plans_word() -> None:
    for tier in ("priority", "fast", "ultrafast"):
        assert read(service_tier=tier).extras == (Extra("service_tier", "priority_tier"),)
    for tier in (None, "auto", "default", "flex"):
        assert read(service_tier=tier).extras == ()


@pytest.mark.parametrize("name", [name for name, effect in FIELDS.items() if effect == "costs extra"])
def test_a_field_that_costs_extra_is_refused_but_for_its_harmless_values(name: str) -> None:
    """What nobody can bound, and no plan can allow, is told by name."""
    for value in (None, *HARMLESS.get(name, ())):
        assert read(**{name: value}).extras == ()
    if name == "service_tier":
        return
    refused = refusal(**{name: True if name == "background" else {"id": "x"}})
    assert (refused.code, refused.param) == ("unsupported_parameter", name)
    assert name in refused.message
    assert REASONS.get(name, "") in refused.message


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"model": None}, "missing_required_parameter", "model"),
        ({"input": None}, "missing_required_parameter", "input"),
        ({"input": 5}, "invalid_type", "input"),
        ({"input": ["x"]}, "invalid_type", "input.0"),
        ({"input": [{}]}, "missing_required_parameter", "input.0.type"),
        ({"input": [{"type": 5}]}, "invalid_type", "input.0.type"),
        ({"input": [{"type": "new_thing"}]}, "unsupported_value", "input.0.type"),
        ({"input": [{"type": "compaction_trigger"}]}, "unsupported_value", "input.0.type"),
        ({"input": [{"type": "message", "content": "x"}]}, "missing_required_parameter", "input.0.role"),
        ({"input": [{"role": "user"}]}, "missing_required_parameter", "input.0.content"),
        ({"input": [{"role": "user", "content": 5}]}, "invalid_type", "input.0.content"),
        ({"input": message({"type": "input_audio"})}, "unsupported_value", "input.0.content.0.type"),
        ({"input": message({"type": "input_text"})}, "invalid_type", "input.0.content.0.text"),
        (
            {"input": message({"type": "input_image", "file_id": "file_1"})},
            "unsupported_parameter",
            "input.0.content.0.file_id",
        ),
        (
            {"input": message({"type": "input_image", "image_url": "file:///etc/passwd"})},
            "invalid_image_url",
            "input.0.content.0.image_url",
        ),
        (
            {"input": message({"type": "input_file", "file_id": "file_1"})},
            "unsupported_parameter",
            "input.0.content.0.file_id",
        ),
        (
            {"input": message({"type": "input_file", "file_url": "https://example.test"})},
            "unsupported_parameter",
            "input.0.content.0.file_url",
        ),
        (
            {"input": message({"type": "input_text", "text": "x", "prompt_cache_breakpoint": {"ttl": "12h"}})},
            "unsupported_value",
            "input.0.content.0.prompt_cache_breakpoint.ttl",
        ),
        ({"input": [{"type": "item_reference", "id": "a/b"}]}, "invalid_value", "input.0.id"),
        ({"instructions": []}, "invalid_type", "instructions"),
        ({"tools": {}}, "invalid_type", "tools"),
        ({"tools": [{"type": "function"}]}, "missing_required_parameter", "tools.0.name"),
        ({"tools": [{"type": "programmatic_tool_calling"}]}, "unsupported_value", "tools.0.type"),
        ({"tools": [{"type": "tool_search"}]}, "unsupported_value", "tools.0.type"),
        (
            {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "web_search"}]}]},
            "unsupported_value",
            "tools.0.tools.0.type",
        ),
        (
            {"tools": [{"type": "code_interpreter", "container": "cntr_1"}]},
            "unsupported_parameter",
            "tools.0.container",
        ),
        (
            {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file_1"]}}]},
            "unsupported_parameter",
            "tools.0.container.file_ids",
        ),
        ({"reasoning": {"mode": "pro"}}, "unsupported_value", "reasoning.mode"),
        ({"prompt_cache_options": {"ttl": "12h"}}, "unsupported_value", "prompt_cache_options.ttl"),
        (
            {"prompt_cache_options": {"comparison_response_id": "resp_1"}},
            "unsupported_parameter",
            "prompt_cache_options.comparison_response_id",
        ),
        ({"stream_options": {"include_obfuscation": False}}, "invalid_value", "stream_options"),
        ({"store": "yes"}, "invalid_type", "store"),
        ({"max_output_tokens": 0}, "integer_below_min_value", "max_output_tokens"),
        ({"previous_response_id": "../../models"}, "invalid_value", "previous_response_id"),
        ({"previous_response_id": 5}, "invalid_type", "previous_response_id"),
        ({"service_tier": 5}, "invalid_type", "service_tier"),
    ],
)
def test_faults_are_named(fields: dict[str, Any], code: str, param: str) -> None:
    """The person who reads it must find the place without counting brackets."""
    refused = refusal(**fields)
    assert (refused.code, refused.param) == (code, param)
    assert param in refused.message


def test_a_previous_response_may_come_without_new_input() -> None:
    ask = read(input=None, previous_response_id="resp_1")
    assert ask.previous_response_id == "resp_1"


def test_unknown_fields_are_told_to_admission() -> None:
    """They pass where no cost budget applies."""
    assert read(verbosity_of_the_future=1).unknown_fields == ("verbosity_of_the_future",)
