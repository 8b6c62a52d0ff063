"""Conversations as they arrive at Claude and at Gemini: every turn, and nothing that nobody has said."""

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

BOTH = pytest.mark.parametrize("provider", ["anthropic", "gemini"])
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PICTURE: dict[str, Any] = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
HI = {"role": "user", "content": "hi"}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def call(id: str, arguments: str = '{"a":1}', name: str = "look") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


class Post:
    """Sends conversations and shows what arrived."""

    def __init__(self, upstream: ScriptedUpstream, carrier: Carrying, dispatch: Dispatching) -> None:
        self.upstream, self.carrier, self.dispatch = upstream, carrier, dispatch

    async def to(self, provider: str, *messages: dict[str, Any], **more: Any) -> dict[str, Any]:
        model = "claude-sonnet-4-5" if provider == "anthropic" else "gemini-3-pro-preview"
        asked = self.dispatch(messages=list(messages), upstream_model=model, **more)
        await (await self.carrier(provider).send(asked)).read()
        return dict(self.upstream.calls[-1].body)

    async def refused(self, provider: str, *messages: dict[str, Any]) -> UpstreamFailed:
        with pytest.raises(UpstreamFailed) as caught:
            await self.to(provider, *messages)
        assert (caught.value.kind, caught.value.status, caught.value.blame) == ("unsent", 400, "request")
        assert not self.upstream.calls
        return caught.value


@pytest.fixture
def post(upstream: ScriptedUpstream, carrier: Carrying, dispatch: Dispatching) -> Post:
    return Post(upstream, carrier, dispatch)


TURNS = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [text("Look"), text(""), PICTURE]},
    {"role": "assistant", "content": "", "tool_calls": [call("c1"), call("c2", "", "hear")]},
    {"role": "tool", "tool_call_id": "c2", "name": "hear", "content": "nothing"},
    {"role": "tool", "tool_call_id": "c1", "content": [text("seen"), PICTURE]},
    {"role": "assistant", "content": "Seen.", "reasoning_content": "hm", "annotations": [], "refusal": None},
    {"role": "developer", "content": [text("Be"), text("briefer.")]},
    {"role": "user", "content": "And now?"},
)


async def test_many_turns_arrive_at_claude(post: Post) -> None:
    """Agents live on long conversations with calls and pictures; rebuilding must lose nothing of them."""
    sent = await post.to("anthropic", *TURNS)
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    assert sent["system"] == [text("Be brief.")]
    asked, called, answered, said, more = sent["messages"]
    assert asked == {"role": "user", "content": [text("Look"), picture]}
    assert called["content"] == [
        {"type": "tool_use", "id": "c1", "name": "look", "input": {"a": 1}},
        {"type": "tool_use", "id": "c2", "name": "hear", "input": {}},
    ]
    assert answered["content"] == [
        {"type": "tool_result", "tool_use_id": "c2", "content": "nothing"},
        {"type": "tool_result", "tool_use_id": "c1", "content": [text("seen"), picture]},
    ]
    assert said == {"role": "assistant", "content": [text("Seen.")]}
    assert [part["text"] for part in more["content"]][-3:] == ["Be", "briefer.", "And now?"]
    assert [tool["name"] for tool in sent["tools"]] == ["look", "hear"]
    assert sent["tool_choice"] == {"type": "none"}


async def test_many_turns_arrive_at_gemini(post: Post) -> None:
    """As at Claude; a system's words in the middle go to its only place for them."""
    sent = await post.to("gemini", *TURNS)
    picture = {"inline_data": {"data": PNG, "mime_type": "image/png"}}
    assert sent["system_instruction"] == {"parts": [{"text": "Be brief."}, {"text": "Bebriefer."}]}
    asked, called, answered, said, more = sent["contents"]
    assert asked == {"role": "user", "parts": [{"text": "Look"}, picture]}
    assert [part["function_call"] for part in called["parts"]] == [
        {"name": "look", "args": {"a": 1}, "id": "c1"},
        {"name": "hear", "args": {}, "id": "c2"},
    ]
    heard, seen = (part["function_response"] for part in answered["parts"])
    assert (heard["name"], heard["id"], heard["response"]) == ("hear", "c2", {"content": "nothing"})
    assert (seen["name"], seen["id"], seen["response"]) == ("look", "c1", {"content": "seen"})
    assert seen["parts"] == [picture]
    assert said["parts"] == [{"text": "Seen."}]
    assert more["parts"] == [{"text": "And now?"}]


@BOTH
async def test_litellm_puts_no_words_into_anybodys_mouth(post: Post, provider: str) -> None:
    """Where a text is empty LiteLLM writes a sentence of its own, which the model then reads."""
    turns = (
        HI,
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": None, "refusal": "I will not."},
        {"role": "user", "content": [text(""), text("why")]},
        {"role": "assistant", "content": [text("")], "tool_calls": [call("c1")]},
        {"role": "tool", "tool_call_id": "c1", "content": ""},
    )
    sent = await post.to(provider, *turns)
    said = str(sent.get("messages") or sent.get("contents"))
    assert "anitised" not in said
    assert "I will not." in said
    assert "dummy" not in str(sent)


async def test_thinking_that_claude_has_signed_goes_back_to_it(post: Post) -> None:
    """Without it Claude refuses the next turn of a conversation in which it thought before a call."""
    block = {"type": "thinking", "thinking": "hm", "signature": "SIG"}
    hidden = {"type": "redacted_thinking", "data": "XYZ"}
    turn = {"role": "assistant", "content": None, "tool_calls": [call("c1")], "thinking_blocks": [block, hidden]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "r"}
    sent = await post.to("anthropic", HI, turn, result, reasoning_effort="low")
    assert sent["messages"][1]["content"][:2] == [block, hidden]
    await post.to("gemini", HI, turn, result)


async def test_detail_of_a_picture_arrives_where_there_is_such_a_thing(post: Post) -> None:
    """A picture looked at closely costs more, and one that is not is not understood."""
    for detail in ("auto", "low"):
        part = {"type": "image_url", "image_url": {**PICTURE["image_url"], "detail": detail}}
        sent = await post.to("gemini", {"role": "user", "content": [text("see"), part]})
        assert ("LOW" in str(sent["contents"])) == (detail == "low")
    await post.to(
        "anthropic",
        {"role": "user", "content": [{**PICTURE, "image_url": {**PICTURE["image_url"], "detail": "auto"}}]},
    )


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


def url(address: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": address}}


CALLED = {"role": "assistant", "content": None, "tool_calls": [call("c1")]}
REFUSED: list[tuple[str, list[dict[str, Any]]]] = [
    ("messages", [{"role": "system", "content": "alone"}]),
    ("messages.0.role", [{"role": "function", "content": "x"}]),
    ("messages.0.name", [{**HI, "name": "bob"}]),
    ("messages.0.content", [{"role": "user", "content": ""}]),
    ("messages.0.content", [{"role": "user", "content": None}]),
    ("messages.0.content", [user(text(""))]),
    ("messages.0.cache_control", [{**HI, "cache_control": {"type": "ephemeral"}}]),
    ("messages.0.content.0.cache_control", [user({**text("x"), "cache_control": {"type": "ephemeral"}})]),
    ("messages.0.content.0.image_url.url", [user(url("data:image/png,https://example.com/x.png"))]),
    ("messages.0.content.0.image_url.url", [user(url("data:image/png;base64,https://example.com/x.png"))]),
    ("messages.0.content.0.image_url.url", [user(url("data:image/png;base64," + "A" * 80 + "https://e.com/x"))]),
    ("messages.1.content.1", [HI, {"role": "assistant", "content": [text("t"), PICTURE]}]),
    ("messages.0.content.0", [{"role": "system", "content": [PICTURE]}, HI]),
    ("messages.1.function_call", [HI, {"role": "assistant", "content": "x", "function_call": {"name": "f"}}]),
    ("messages.1.tool_calls.0", [HI, {"role": "assistant", "tool_calls": [{"id": "1"}]}]),
    (
        "messages.1.tool_calls.0.function.arguments",
        [HI, {"role": "assistant", "tool_calls": [call("c1", "{half")]}],
    ),
    ("messages.1.tool_calls.0.function.arguments", [HI, {"role": "assistant", "tool_calls": [call("c1", "[1]")]}]),
    ("messages.2.tool_call_id", [HI, CALLED, {"role": "tool", "content": "x"}]),
    ("messages.2.tool_call_id", [HI, CALLED, {"role": "tool", "tool_call_id": "c9", "content": "x"}]),
    ("messages.2.content", [HI, CALLED, {"role": "tool", "tool_call_id": "c1"}]),
]


@BOTH
@pytest.mark.parametrize(("param", "messages"), REFUSED)
async def test_what_cannot_be_told_is_refused_by_its_place(
    post: Post, provider: str, param: str, messages: list[dict[str, Any]]
) -> None:
    """LiteLLM drops a name, a picture or a whole turn without a word, and fetches addresses out of data."""
    failed = await post.refused(provider, *messages)
    assert failed.param == param
    assert param in failed.message or param == "messages"


async def test_what_only_claude_cannot_be_told_is_refused_there(post: Post) -> None:
    """The table is one of each provider's own."""
    part = {"type": "image_url", "image_url": {**PICTURE["image_url"], "detail": "low"}}
    failed = await post.refused("anthropic", user(text("x"), part))
    assert failed.param == "messages.0.content.1.image_url.detail"
    unsigned = {**CALLED, "thinking_blocks": [{"type": "thinking", "thinking": "hm"}]}
    failed = await post.refused("anthropic", HI, unsigned)
    assert failed.param == "messages.1.thinking_blocks.0.signature"
