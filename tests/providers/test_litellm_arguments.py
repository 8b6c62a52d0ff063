"""What really arrives at Claude and at Gemini of each thing that a chat request can say, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.gateway.ports import Dispatch, UpstreamFailed
from proxy.providers.litellm_provider import LiteLLMProvider

Dispatching = Callable[..., Dispatch]
Carrying = Callable[..., LiteLLMProvider]
pytestmark = pytest.mark.filterwarnings("ignore")

CLAUDE, ADAPTIVE, UNKNOWN_CLAUDE = "claude-sonnet-4-5", "claude-opus-4-6", "claude-of-tomorrow"
FLASH, GEMINI_3, UNKNOWN_GEMINI = "gemini-2.5-flash", "gemini-3-pro-preview", "gemini-of-tomorrow"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "strict": {"type": "string", "pattern": "^x"},
        "additionalProperties": {"type": "boolean"},
        "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "other": {"$ref": "#/$defs/Other"},
    },
    "required": ["strict"],
    "$defs": {"Other": {"type": "object", "properties": {"least": {"type": "integer", "minimum": 3}}}},
    "additionalProperties": False,
}
LOOK = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": SCHEMA}}
STRICT = {"type": "function", "function": {"name": "look", "parameters": SCHEMA, "strict": True}}
NAMED = {"type": "function", "function": {"name": "look"}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "found", "schema": SCHEMA, "strict": True}}
CLAUDE_LOOK = {"type": "custom", "name": "look", "description": "Looks.", "input_schema": SCHEMA}
CLAUDE_STRICT = {"type": "custom", "name": "look", "input_schema": SCHEMA, "strict": True}
GEMINI_LOOK = {"name": "look", "description": "Looks.", "parametersJsonSchema": SCHEMA}
NOT_ASKED = {"presence_penalty": 0, "frequency_penalty": 0.0, "logprobs": False, "logit_bias": {}}
JSON = "application/json"

ARRIVES_AT_CLAUDE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (CLAUDE, {}, {"max_tokens": 8, "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}),
    (CLAUDE, {"temperature": 0.5, "top_k": 3}, {"temperature": 0.5, "top_k": 3}),
    (CLAUDE, {"top_p": 0.5}, {"top_p": 0.5}),
    (CLAUDE, {"stop": "x"}, {"stop_sequences": ["x"]}),
    (CLAUDE, {"stop": ["a", "b", "c", "d"]}, {"stop_sequences": ["a", "b", "c", "d"]}),
    (CLAUDE, {"user": "u-1"}, {"metadata": {"user_id": "u-1"}}),
    (CLAUDE, {"user": "somebody@example.com"}, {"metadata": ...}),
    (CLAUDE, {"tools": [LOOK]}, {"tools": [CLAUDE_LOOK], "tool_choice": ...}),
    (CLAUDE, {"tools": [LOOK], "tool_choice": "auto"}, {"tool_choice": {"type": "auto"}}),
    (CLAUDE, {"tools": [LOOK], "tool_choice": "none"}, {"tool_choice": {"type": "none"}}),
    (CLAUDE, {"tools": [LOOK], "tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
    (CLAUDE, {"tools": [LOOK], "tool_choice": NAMED}, {"tool_choice": {"type": "tool", "name": "look"}}),
    (
        CLAUDE,
        {"tools": [LOOK], "parallel_tool_calls": False},
        {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
    ),
    (
        CLAUDE,
        {"tools": [LOOK], "parallel_tool_calls": False, "tool_choice": "required"},
        {"tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
    ),
    (CLAUDE, {"parallel_tool_calls": False, "tool_choice": "auto"}, {"tool_choice": ..., "tools": ...}),
    (CLAUDE, {"tools": [STRICT]}, {"tools": [CLAUDE_STRICT]}),
    (CLAUDE, {"response_format": {"type": "text"}}, {"output_format": ..., "tools": ...}),
    (CLAUDE, {"reasoning_effort": "high"}, {"thinking": {"type": "enabled", "budget_tokens": 4096}}),
    (CLAUDE, {"reasoning_effort": "none"}, {"thinking": ...}),
    (ADAPTIVE, {"reasoning_effort": "low"}, {"output_config": {"effort": "low"}}),
    (CLAUDE, NOT_ASKED, {"logprobs": ..., "presence_penalty": ...}),
    (CLAUDE, {"stop": [], "n": 1, "top_logprobs": 0, "parallel_tool_calls": True}, {"stop_sequences": ...}),
]  # fmt: skip


def _config(**fields: Any) -> dict[str, Any]:
    return {"generationConfig": fields}


def _thinking(told: bool, **how: Any) -> dict[str, Any]:
    return {**how, "includeThoughts": told}


def _calling(**fields: Any) -> dict[str, Any]:
    return {"toolConfig": {"functionCallingConfig": fields}}


ARRIVES_AT_GEMINI: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (FLASH, {}, {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], **_config(max_output_tokens=8)}),
    (FLASH, {"temperature": 0.5, "top_k": 3, "top_p": 0.1}, _config(temperature=0.5, top_k=3, top_p=0.1)),
    (FLASH, {"seed": 7, "presence_penalty": 0.5}, _config(seed=7, presence_penalty=0.5)),
    (FLASH, {"frequency_penalty": 0.5}, _config(frequency_penalty=0.5)),
    (FLASH, {"stop": ["a", "b"]}, _config(stop_sequences=["a", "b"])),
    (FLASH, {"logprobs": True}, _config(responseLogprobs=True)),
    (FLASH, {"n": 2}, _config(candidate_count=2)),
    (FLASH, {"user": "u-1"}, {"user": ...}),
    (FLASH, {"reasoning_effort": "none"}, _config(thinkingConfig=_thinking(False, thinkingBudget=0))),
    (GEMINI_3, {"reasoning_effort": "low"}, _config(thinkingConfig=_thinking(True, thinkingLevel="low"))),
    (
        FLASH,
        {"tools": [LOOK]},
        {"tools": [{"functionDeclarations": [GEMINI_LOOK]}]},
    ),
    (FLASH, {"tools": [LOOK]}, _calling(mode="AUTO")),
    (FLASH, {"tools": [STRICT]}, _calling(mode="VALIDATED")),
    (FLASH, {"tools": [LOOK], "tool_choice": "none"}, _calling(mode="NONE")),
    (FLASH, {"tools": [LOOK], "tool_choice": "required"}, _calling(mode="ANY")),
    (FLASH, {"tools": [LOOK], "tool_choice": NAMED}, _calling(mode="ANY", allowedFunctionNames=["look"])),
    (FLASH, {"tool_choice": "auto"}, {"toolConfig": ...}),
    (FLASH, {"response_format": {"type": "json_object"}}, _config(responseMimeType=JSON)),
    (UNKNOWN_GEMINI, {"response_format": FORMAT}, _config(responseMimeType=JSON, responseJsonSchema=SCHEMA)),
    (GEMINI_3, {"response_format": FORMAT, "tools": [LOOK]}, _config(responseJsonSchema=SCHEMA)),
]  # fmt: skip


def holds(sent: Any, expected: Any, where: str = "") -> None:
    """`expected` is in `sent`; `...` is in nothing. Lists and schemas are compared whole."""
    if expected is ...:
        raise AssertionError(f"{where} was sent: {sent}")
    if isinstance(expected, dict) and isinstance(sent, dict) and not where.endswith("Schema"):
        for name, value in expected.items():
            if value is ...:
                assert name not in sent, f"{where}.{name} was sent"
            else:
                assert name in sent, f"{where}.{name} did not arrive"
                holds(sent[name], value, f"{where}.{name}")
    else:
        assert sent == expected, where


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("provider", "model", "asked", "expected"),
    [("anthropic", *row) for row in ARRIVES_AT_CLAUDE] + [("gemini", *row) for row in ARRIVES_AT_GEMINI],
)
async def test_what_is_carried_arrives(
    upstream: ScriptedUpstream,
    carrier: Carrying,
    dispatch: Dispatching,
    provider: str,
    model: str,
    asked: dict[str, Any],
    expected: dict[str, Any],
    stream: bool,
) -> None:
    """LiteLLM drops and rewrites in silence; only what the upstream has seen counts."""
    if stream and "n" in asked:
        pytest.skip("several streamed candidates are refused")
    messages = [{"role": "user", "content": "hi"}]
    answer = await carrier(provider).send(
        dispatch(asked, messages=messages, upstream_model=model, **({"stream": True} if stream else {}))
    )
    if stream:
        while await answer.next() is not None:
            pass
    sent = upstream.calls[0].body
    assert (upstream.calls[0].model, upstream.calls[0].streamed) == (model, stream)
    holds(sent, expected)


@pytest.mark.parametrize("model", [CLAUDE, UNKNOWN_CLAUDE])
async def test_claude_is_asked_for_a_format_in_its_own_words(
    upstream: ScriptedUpstream, carrier: Carrying, dispatch: Dispatching, model: str
) -> None:
    """For a model that it does not know LiteLLM would force a tool, in the place of the client's own."""
    body = {"response_format": FORMAT, "tools": [LOOK], "tool_choice": "auto"}
    await (await carrier("anthropic").send(dispatch(body, upstream_model=model))).read()
    sent = upstream.calls[0].body
    assert sent["output_format"]["type"] == "json_schema"
    properties = sent["output_format"]["schema"]["properties"]
    assert list(properties) == list(SCHEMA["properties"])
    assert "minimum value: 3" in properties["other"]["properties"]["least"]["description"]
    assert (sent["tools"], sent["tool_choice"]) == ([CLAUDE_LOOK], {"type": "auto"})
    assert "structured-outputs" in upstream.calls[0].headers["anthropic-beta"]


REFUSED_BY_CLAUDE: list[tuple[dict[str, Any], str]] = [
    ({"n": 2}, "n"),
    ({"seed": 7}, "seed"),
    ({"logprobs": True}, "logprobs"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logit_bias": {"1": 2}}, "logit_bias"),
    ({"presence_penalty": 0.5}, "presence_penalty"),
    ({"frequency_penalty": 0.5}, "frequency_penalty"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
]
REFUSED_BY_GEMINI: list[tuple[dict[str, Any], str]] = [
    ({"parallel_tool_calls": False, "tools": [LOOK]}, "parallel_tool_calls"),
    ({"top_logprobs": 2, "logprobs": True}, "top_logprobs"),
    ({"logit_bias": {"1": 2}}, "logit_bias"),
    ({"presence_penalty": 0.5, "_model": GEMINI_3}, "presence_penalty"),
    ({"frequency_penalty": 0.5, "_model": GEMINI_3}, "frequency_penalty"),
    ({"reasoning_effort": "none", "_model": GEMINI_3}, "reasoning_effort"),
    ({"reasoning_effort": "xhigh"}, "reasoning_effort"),
    ({"n": 2, "stream": True}, "n"),
]
REFUSED_BY_BOTH: list[tuple[dict[str, Any], str]] = [
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({"verbosity": "low"}, "verbosity"),
    ({"service_tier": "priority"}, "service_tier"),
    ({"service_tier": "flex"}, "service_tier"),
    ({"web_search_options": {}}, "web_search_options"),
    (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.test/y"}}]}
            ]
        },
        "messages.0.content.0.image_url.url",
    ),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"function_call": "auto"}, "function_call"),
    ({"temperature": "hot"}, "temperature"),
    ({"seed": True}, "seed"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": {"type": "mcp"}, "tools": [LOOK]}, "tool_choice"),
    ({"response_format": {"type": "grammar"}}, "response_format"),
    ({"tools": [{**LOOK, "cache_control": {"type": "ephemeral"}}]}, "tools.0.cache_control"),
    ({"tools": [{"type": "function", "function": {"name": "f", "defer": 1}}]}, "tools.0.function.defer"),
    ({"tools": [{"type": "function", "function": {"name": "f", "strict": 1}}]}, "tools.0.function.strict"),
]


@pytest.mark.parametrize(
    ("provider", "model", "body", "param"),
    [("anthropic", CLAUDE, *row) for row in REFUSED_BY_CLAUDE + REFUSED_BY_BOTH]
    + [("gemini", FLASH, *row) for row in REFUSED_BY_GEMINI + REFUSED_BY_BOTH]
    + [
        ("anthropic", UNKNOWN_CLAUDE, {"reasoning_effort": "low"}, "reasoning_effort"),
        ("anthropic", ADAPTIVE, {"reasoning_effort": "xhigh"}, "reasoning_effort"),
        ("anthropic", CLAUDE, {"reasoning_effort": "enormous"}, "reasoning_effort"),
        ("anthropic", "claude-opus-4-7", {"temperature": 0.4}, "temperature"),
    ],
)
async def test_what_is_not_carried_is_a_400_that_names_it(
    upstream: ScriptedUpstream,
    carrier: Carrying,
    dispatch: Dispatching,
    provider: str,
    model: str,
    body: dict[str, Any],
    param: str,
) -> None:
    """Dropping a field silently would answer another question than the one asked."""
    asked = {name: value for name, value in body.items() if name != "_model"}
    with pytest.raises(UpstreamFailed) as caught:
        await carrier(provider).send(dispatch(asked, upstream_model=body.get("_model", model)))
    failed = caught.value
    assert (failed.kind, failed.status, failed.blame, failed.param) == ("unsent", 400, "request", param)
    assert param in failed.message
    assert "litellm" not in failed.message.lower()
    assert not upstream.calls
