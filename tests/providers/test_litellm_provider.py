"""LiteLLM does much that a gate must not: these pin what the relay relies on, against the installed version."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.demo.scripts import Script, words
from proxy.domain.refusals import Refused
from proxy.gateway.ports import Answer, Dispatch, UpstreamFailed
from proxy.providers.litellm_arguments import TRANSLATED, UNTRANSLATED
from proxy.providers.litellm_provider import LiteLLMProvider, load

Dispatching = Callable[..., Dispatch]
Carrying = Callable[..., LiteLLMProvider]
STREAM = {"stream": True}
ASKING = {"stream": True, "stream_options": {"include_usage": True}}
KEY = "sk-ant-0123456789abcdef"
# LiteLLM's own code warns; its warnings are not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def litellm() -> Any:
    return load()


@pytest.fixture
def claude(carrier: Carrying, litellm: Any) -> LiteLLMProvider:
    return carrier("anthropic", key=KEY)


async def all_of(answer: Answer) -> list[bytes]:
    events = []
    while (event := await answer.next()) is not None:
        events.append(event)
    return events


def parsed(events: list[bytes]) -> list[dict[str, Any]]:
    assert all(each.startswith(b"data: ") and each.endswith(b"\n\n") for each in events)
    return [orjson.loads(each[6:]) for each in events]


async def test_a_chat_request_is_answered_by_another_wire(
    upstream: ScriptedUpstream, claude: LiteLLMProvider, dispatch: Dispatching
) -> None:
    """A client of OpenAI's library must not notice who answered."""
    answer = await claude.send(dispatch(temperature=0.5, stop=["x"]))
    said = orjson.loads(await answer.read())
    assert said["object"] == "chat.completion"
    assert said["choices"][0]["message"] == {"role": "assistant", "content": "".join(words(8))}
    assert said["choices"][0]["finish_reason"] == "length"
    assert said["usage"]["prompt_tokens"] == 3
    assert "cost" not in said["usage"]
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.source) == (3, 8, "provider")
    assert answer.provider_request_id == "req-scripted-0"
    call = upstream.calls[0]
    assert (call.path, call.model, call.output_limit) == ("/v1/messages", "m-upstream", 8)
    assert call.headers["x-api-key"] == KEY


@pytest.mark.parametrize("asked", [STREAM, ASKING], ids=["usage not asked", "usage asked"])
async def test_a_stream_comes_in_openais_own_shape(
    claude: LiteLLMProvider, dispatch: Dispatching, asked: dict[str, Any]
) -> None:
    """LiteLLM puts usage on a chunk with a choice; OpenAI's has none, and only if asked."""
    answer = await claude.send(dispatch(asked))
    chunks = parsed(await all_of(answer))
    text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert text == "".join(words(8))
    assert [c["choices"] for c in chunks if c.get("usage")] == ([[]] if "stream_options" in asked else [])
    assert all(chunk["choices"] for chunk in chunks if not chunk.get("usage"))
    assert answer.tail == b"data: [DONE]\n\n"
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.source) == (3, 8, "provider")


@pytest.mark.parametrize("provider", ["anthropic", "gemini", "openai"])
async def test_invented_usage_is_recognised(
    upstream: ScriptedUpstream, carrier: Carrying, dispatch: Dispatching, provider: str
) -> None:
    """LiteLLM counts tokens itself where none were reported, and says nothing of it."""
    upstream.script(Script(usage="absent"))
    answer = await carrier(provider).send(dispatch(ASKING))
    chunks = parsed(await all_of(answer))
    assert answer.usage is not None
    assert answer.usage.source == "estimated"
    assert answer.usage.output_tokens >= 8
    assert not any(chunk.get("usage") for chunk in chunks)


@pytest.mark.parametrize("provider", ["anthropic", "gemini", "openai"])
async def test_a_plain_answer_without_usage_is_estimated(
    upstream: ScriptedUpstream, carrier: Carrying, dispatch: Dispatching, provider: str
) -> None:
    """LiteLLM reports zeros there, unmarked, or fails and throws the answer away."""
    upstream.script(Script(usage="absent"))
    answer = await carrier(provider).send(dispatch())
    assert b'"usage"' not in await answer.read()
    assert answer.usage is not None
    assert (answer.usage.source, answer.usage.output_tokens >= 8) == ("estimated", True)


@pytest.mark.parametrize(
    ("script", "kind", "blame", "status"),
    [
        (Script(status=400), "refused", "request", 400),
        (Script(status=401), "refused", "operator", 401),
        (Script(status=403), "refused", "operator", 403),
        (Script(status=429, headers={"retry-after": "7"}), "refused", "upstream", 429),
        (Script(status=500), "refused", "upstream", 500),
        (Script(status=503), "refused", "upstream", 503),
        (Script(breaks_after_bytes=0), "unknown", "upstream", None),
        (Script(breaks_after_bytes=20), "unknown", "upstream", None),
    ],
)
@pytest.mark.parametrize("provider", ["anthropic", "gemini", "openai"])
@pytest.mark.parametrize("body", [{}, STREAM], ids=["plain", "stream"])
async def test_failures_are_told_by_status_and_happen_once(
    upstream: ScriptedUpstream,
    carrier: Carrying,
    dispatch: Dispatching,
    script: Script,
    kind: str,
    blame: str,
    status: int | None,
    provider: str,
    body: dict[str, Any],
) -> None:
    """LiteLLM retries by default, and its exception classes lie; a hidden retry is a call nobody reserved."""
    upstream.script(script)
    sender = carrier(provider)

    async def carried() -> None:
        answer = await sender.send(dispatch(body))
        await (all_of(answer) if answer.streamed else answer.read())

    with pytest.raises(UpstreamFailed) as caught:
        await carried()
    assert (caught.value.kind, caught.value.blame, caught.value.status) == (kind, blame, status)
    assert caught.value.retry_after_s == (7 if status == 429 else None)
    assert "litellm" not in caught.value.message.lower()
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("provider", ["anthropic", "gemini", "openai"])
async def test_nobody_listening_is_unsent(carrier: Carrying, dispatch: Dispatching, provider: str) -> None:
    """What never left costs nothing."""
    with pytest.raises(UpstreamFailed) as caught:
        await carrier(provider, "http://127.0.0.1:9").send(dispatch())
    assert caught.value.kind == "unsent"


@pytest.mark.parametrize(
    "script",
    [Script(error_after=3), Script(breaks_after_bytes=700, chunk_delay_s=0.002)],
    ids=["error event", "cut"],
)
@pytest.mark.parametrize("provider", ["anthropic", "gemini"])
async def test_a_broken_stream_fails_with_an_estimate(
    upstream: ScriptedUpstream, carrier: Carrying, dispatch: Dispatching, script: Script, provider: str
) -> None:
    """A clean end must not be forged over it."""
    upstream.script(script)
    answer = await carrier(provider).send(dispatch(STREAM))
    with pytest.raises(UpstreamFailed) as caught:
        await all_of(answer)
    assert caught.value.kind == "unknown"
    assert answer.tail == b""
    assert answer.usage is not None


async def test_abort_wakes_whoever_waits_and_closes(
    upstream: ScriptedUpstream, claude: LiteLLMProvider, dispatch: Dispatching
) -> None:
    """A drain that took too long must end at once."""
    upstream.script(Script(chunk_delay_s=0.2))
    answer = await claude.send(dispatch(STREAM))
    waiting = asyncio.ensure_future(all_of(answer))
    await asyncio.sleep(0)
    answer.abort()
    async with asyncio.timeout(1.0):
        with pytest.raises(UpstreamFailed) as caught:
            await waiting
    assert caught.value.error_type == "aborted"


class Recorder:
    """Stands for `acompletion`, and keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        assert not args
        self.calls.append(kwargs)
        raise ConnectionError("recorded")


OURS = {"model", "messages", "api_key", "api_base", "timeout", "max_retries", "num_retries", "stream"}
OURS |= {
    "_skip_mcp_handler",
    "client",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "tools",
    "tool_choice",
    "response_format",
}


def steering(litellm: Any) -> list[str]:
    """Every name that the installed version takes a meaning from."""
    from litellm.types.utils import all_litellm_params

    names = {"extra_body", "extra_headers", "headers", "provider_specific_header", "ssl_verify", "client"}
    names |= {"no-log", "_litellm_params", "mock_response", "litellm_call_id", "prompt_id", "input_cost_per_token"}
    names |= set(all_litellm_params) | set(litellm.OPENAI_CHAT_COMPLETION_PARAMS)
    for function in (litellm.completion, litellm.acompletion, litellm.main.completion, litellm.main.acompletion):
        names |= set(inspect.signature(function).parameters)
    return sorted(names - {"args", "kwargs"})


async def test_no_argument_of_litellm_can_be_steered_by_a_client(
    litellm: Any, monkeypatch: pytest.MonkeyPatch, dispatch: Dispatching
) -> None:
    """CVE-2024-6587 leaked provider keys by a body's `api_base`; tools[] slipped past LiteLLM's own ban."""
    recorder = Recorder()
    monkeypatch.setattr(litellm, "acompletion", recorder)
    provider = LiteLLMProvider("x", "anthropic", KEY, "http://up.example")
    names = steering(litellm)
    assert len(names) > 100
    evil: Any = "http://evil.example"
    for name in names:
        bodies: list[dict[str, Any]] = [{"metadata": {name: evil}}, {"extra_body": {name: evil}}]
        tool = {"type": "function", "function": {"name": "f", name: evil}, name: evil}
        tool["function"]["name"] = "f"  # type: ignore[index]
        bodies.append(
            {
                "tools": [
                    {
                        **tool,
                        "type": "function",
                        "function": tool["function"] if name != "function" else {"name": "f"},
                    }
                ]
            }
        )
        bodies.append({"messages": [{"content": "hi", name: evil, "role": "user"}]})
        if name not in ("model", "messages", "user", "stop", "reasoning_effort"):
            bodies.append({name: evil})
        for body in bodies:
            try:
                await provider.send(dispatch(body))
            except (Refused, UpstreamFailed):
                continue
    assert recorder.calls
    for call in recorder.calls:
        assert call.keys() <= OURS | TRANSLATED
        assert (call["api_key"], call["api_base"]) == (KEY, "http://up.example")
        assert (call["max_retries"], call["num_retries"], call["model"]) == (0, 0, "anthropic/m-upstream")
        assert call["_skip_mcp_handler"] is True
        for message in call["messages"]:
            assert message.keys() <= {"role", "content", "name"}
        for tool in call.get("tools", []):
            assert tool.keys() <= {"type", "name", "description", "input_schema", "strict"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"verbosity": "low"}, "verbosity"),
        ({"api_base": "http://evil"}, "api_base"),
        ({"temperature": "hot"}, "temperature"),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]}, "messages.0.tool_calls.0"),
        ({"n": 2}, "n"),
    ],
)
async def test_what_cannot_be_translated_is_a_400_that_names_it(
    claude: LiteLLMProvider, upstream: ScriptedUpstream, dispatch: Dispatching, body: dict[str, Any], param: str
) -> None:
    """Dropping a field silently would answer another question than the one asked."""
    with pytest.raises(UpstreamFailed) as caught:
        await claude.send(dispatch(body))
    failed = caught.value
    assert (failed.kind, failed.status, failed.blame, failed.param) == ("unsent", 400, "request", param)
    assert not upstream.calls


async def test_a_tool_conversation_is_carried_over(
    upstream: ScriptedUpstream, claude: LiteLLMProvider, dispatch: Dispatching
) -> None:
    """Agents live on tool calls; rebuilding must lose nothing of them."""
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "look"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "seen"},
    ]
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    await (await claude.send(dispatch(messages=messages, tools=[tool], tool_choice="auto"))).read()
    sent = upstream.calls[0].body
    assert sent["tools"][0]["name"] == "look"
    assert sent["messages"][1]["content"][0] == {"type": "tool_use", "id": "c1", "name": "look", "input": {"a": 1}}
    assert sent["messages"][2]["content"][0]["tool_use_id"] == "c1"


async def test_litellm_is_silent(
    upstream: ScriptedUpstream,
    claude: LiteLLMProvider,
    dispatch: Dispatching,
    litellm: Any,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Its logs hold prompts and keys; nothing of a call may appear anywhere."""
    caplog.set_level(logging.INFO)
    upstream.script(Script(status=500))
    with pytest.raises(UpstreamFailed):
        await claude.send(dispatch())
    await all_of(await claude.send(dispatch(STREAM)))
    await (await claude.send(dispatch())).read()
    printed = capfd.readouterr()
    for text in (caplog.text, printed.out, printed.err):
        assert "three plain words" not in text
        assert KEY not in text
        assert "litellm" not in text.lower()
    assert litellm.callbacks == []
    assert litellm.telemetry is False


def test_every_field_is_either_translated_or_known_to_be_left_out() -> None:
    """A field in both lists would be sent twice; overlap is a mistake in the table."""
    assert not TRANSLATED & UNTRANSLATED
