"""What the relay relies on in LiteLLM, and what it works around: an upgrade shows here what has changed."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from proxy.providers.litellm_provider import load

pytestmark = pytest.mark.filterwarnings("ignore")


class Wire(httpx.AsyncBaseTransport):
    """Records the requests, and answers them all alike."""

    def __init__(self, answer: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.answer, self.status, self.headers = answer, status, headers or {}
        self.sent: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        return httpx.Response(self.status, json=self.answer, headers=self.headers)


CLAUDE_SAYS = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "stop_reason": "end_turn",
    "content": [{"type": "text", "text": "hi"}],
    "usage": {"input_tokens": 3, "output_tokens": 2},
}
GEMINI_SAYS = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "hi"}]}, "finishReason": "STOP", "index": 0}],
    "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5},
}
SAYS = {"anthropic/claude-sonnet-4-5": CLAUDE_SAYS, "gemini/gemini-2.5-flash": GEMINI_SAYS}


async def call(wire: Wire, model: str, **more: Any) -> Any:
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

    given = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 50, **more}
    client = AsyncHTTPHandler(transport=wire, follow_redirects=False)
    own = {"max_retries": 0, "num_retries": 0, "_skip_mcp_handler": True}
    return await load().acompletion(
        model=model, api_key="k", api_base="http://up.example", client=client, **own, **given
    )


@pytest.mark.parametrize("model", SAYS)
async def test_a_client_of_ours_is_used_for_every_call(model: str) -> None:
    """All that is known of faults and usage hangs on it."""
    wire = Wire(SAYS[model])
    answer = await call(wire, model)
    assert len(wire.sent) == 1
    assert wire.sent[0].url.host == "up.example"
    assert answer.choices[0].message.content == "hi"


@pytest.mark.parametrize("model", SAYS)
async def test_a_client_of_ours_follows_no_redirect(model: str) -> None:
    """Anthropic's and Gemini's key headers would go to wherever it points."""
    wire = Wire({}, 307, {"location": "http://elsewhere.example/"})
    with pytest.raises(Exception):  # noqa: B017, PT011
        await call(wire, model)
    assert [request.url.host for request in wire.sent] == ["up.example"]


@pytest.mark.parametrize("model", SAYS)
async def test_what_the_transport_raises_is_not_tried_again(model: str) -> None:
    """It tries httpx's own errors once more, on a client that nobody counts."""

    class Broken(Wire):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            self.sent.append(request)
            raise RuntimeError("broken")

    wire = Broken({})
    with pytest.raises(Exception):  # noqa: B017, PT011
        await call(wire, model)
    assert len(wire.sent) == 1


@pytest.mark.parametrize("model", SAYS)
async def test_an_answer_without_usage_is_an_error_to_it(model: str) -> None:
    """Why it is given zeros. Once it can do without, they can go."""
    said = {name: value for name, value in SAYS[model].items() if name not in ("usage", "usageMetadata")}
    with pytest.raises(Exception):  # noqa: B017, PT011
        await call(Wire(said), model)


async def test_it_still_drops_what_the_relay_refuses_or_says_otherwise() -> None:
    """Each of these is a rule in `litellm_carriage` or `litellm_messages` that an upgrade may make needless."""
    claude, gemini = SAYS
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}
    rows: list[tuple[str, dict[str, Any], str]] = [
        (claude, {"response_format": {"type": "json_object"}}, "json"),
        (claude, {"tools": [tool]}, "strict"),
        (claude, {"stop": list("abcde")}, '"e"'),
        (gemini, {"stop": list("abcde")}, '"e"'),
        (gemini, {"tools": [tool]}, "strict"),
        (gemini, {"tools": [tool], "parallel_tool_calls": False}, "parallel"),
        ("gemini/gemini-3-pro-preview", {"presence_penalty": 0.5}, "enalty"),
        (claude, {"messages": [{"role": "user", "content": "hi", "name": "bob"}]}, "bob"),
        (gemini, {"messages": [{"role": "user", "content": "hi", "name": "bob"}]}, "bob"),
    ]
    for model, asked, needle in rows:
        wire = Wire(GEMINI_SAYS if "gemini" in model else CLAUDE_SAYS)
        await call(wire, model, **asked)
        assert needle not in wire.sent[0].content.decode(), (model, asked)


async def test_it_still_fills_empty_texts_with_its_own() -> None:
    """Why empty texts do not get there."""
    wire = Wire(CLAUDE_SAYS)
    await call(wire, "anthropic/claude-sonnet-4-5", messages=[{"role": "user", "content": ""}])
    assert "anitised" in wire.sent[0].content.decode()


def test_the_parts_that_are_used_directly_are_there() -> None:
    """They are no interface that it promises."""
    litellm = load()
    assert litellm.VertexGeminiConfig.is_gemini_3_or_newer("gemini-3-pro-preview")
    assert not litellm.VertexGeminiConfig.is_gemini_3_or_newer("gemini-2.5-flash")
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
    format = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    made = litellm.AnthropicConfig().map_response_format_to_anthropic_output_format(format)
    assert made == {"type": "json_schema", "schema": schema}


async def test_no_client_of_its_own_follows_a_redirect() -> None:
    """Embeddings go by such a one, with the key in a header that httpx takes along to another host."""
    load()
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler, get_async_httpx_client

    own = get_async_httpx_client(llm_provider="gemini", params={"timeout": 7.5})
    for handler in (own, AsyncHTTPHandler()):
        assert handler.client.follow_redirects is False
        await handler.close()
