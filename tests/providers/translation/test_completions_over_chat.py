"""Completions of a chat model: a text in, a text out, and nothing left out in silence."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.demo.scripts import Script
from proxy.domain.completions_requests import read_completions
from proxy.domain.policy import Model, Target
from proxy.gateway.ports import Answer, Dispatch, Provider, UpstreamFailed
from proxy.providers.connections import Timeouts
from proxy.providers.litellm_provider import LiteLLMProvider
from proxy.providers.native_wire import Address, NativeWire
from proxy.providers.openai_wire import OPENAI_SPEECHES
from proxy.providers.translation.completions_over_chat import CompletionsOverChat

# LiteLLM warns of its own use of pydantic, which is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore")

KEY = "sk-test-0123456789abcdef"
ASKING = {"stream": True, "stream_options": {"include_usage": True}}


def asked(limit: int = 8, **body: Any) -> Dispatch:
    ask = read_completions({"model": "m", "prompt": "three plain words", **body}, {}, str.upper)
    model = Model("m", (Target("up", "m-upstream"),), 100, 1000, "max_completion_tokens")
    return Dispatch("req_1", 0, ask, model, "m-upstream", limit)


@pytest.fixture(params=["openai", "anthropic"])
async def chat(request: Any, upstream: ScriptedUpstream) -> AsyncIterator[Provider]:
    """An upstream that has chat natively, and one that has it by LiteLLM."""
    timeouts = Timeouts(1.0, 5.0, 5.0)
    provider: Provider = (
        NativeWire("up", Address(upstream.url, KEY), OPENAI_SPEECHES, timeouts)
        if request.param == "openai"
        else LiteLLMProvider("up", "anthropic", KEY, upstream.root_url, timeouts)
    )
    yield provider
    await provider.close()


@pytest.fixture
def over(chat: Provider) -> CompletionsOverChat:
    return CompletionsOverChat(chat.send)


async def all_of(answer: Answer) -> bytes:
    events = b""
    while (event := await answer.next()) is not None:
        events += event
    return events


def chunks(events: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(line[6:]) for line in events.split(b"\n") if line.startswith(b"data: {")]


def used(answer: Answer) -> tuple[int, int, str]:
    assert answer.usage is not None
    return answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.source


async def test_a_prompt_becomes_a_message_and_its_answer_a_text(
    over: CompletionsOverChat, upstream: ScriptedUpstream
) -> None:
    answer = await over.send(asked(limit=5, temperature=0.5, stop=["END"], metadata={"run_id": "r"}, echo=False))
    said = orjson.loads(await answer.read())
    body = upstream.calls[0].body
    message = body["messages"][0]
    text = message["content"] if isinstance(message["content"], str) else message["content"][0]["text"]
    assert (message["role"], text, len(body["messages"])) == ("user", "three plain words", 1)
    assert (body.get("max_completion_tokens") or body["max_tokens"], body["temperature"]) == (5, 0.5)
    assert body.get("stop") or body["stop_sequences"] == ["END"]
    assert "prompt" not in body
    assert said["object"] == "text_completion"
    [choice] = said["choices"]
    assert (choice["text"], choice["finish_reason"], choice["index"]) == ("A gate stands where the", "length", 0)
    assert said["usage"]["completion_tokens"] == 5
    assert used(answer) == (3, 5, "provider")


@pytest.mark.parametrize("asking", [{"stream": True}, ASKING])
async def test_a_stream_is_told_as_texts(over: CompletionsOverChat, asking: dict[str, Any]) -> None:
    answer = await over.send(asked(limit=5, **asking))
    said = chunks(await all_of(answer))
    texts = [choice["text"] for each in said for choice in each["choices"]]
    assert "".join(texts) == "A gate stands where the"
    assert {each["object"] for each in said} == {"text_completion"}
    assert [c["finish_reason"] for each in said for c in each["choices"]][-1] == "length"
    assert answer.tail == b"data: [DONE]\n\n"
    assert used(answer) == (3, 5, "provider")
    reported = [each["usage"] for each in said if each.get("usage")]
    assert [each["completion_tokens"] for each in reported] == ([5] if asking is ASKING else [])


@pytest.mark.parametrize("streamed", [False, True])
async def test_without_a_report_it_is_an_estimate(
    over: CompletionsOverChat, upstream: ScriptedUpstream, streamed: bool
) -> None:
    upstream.script(Script(usage="absent"))
    answer = await over.send(asked(stream=streamed))
    await (all_of(answer) if streamed else answer.read())
    given, made, source = used(answer)
    assert (source, given > 0, made >= 8) == ("estimated", True, True)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": [1, 2, 3]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"suffix": "after"}, "suffix"),
        ({"logprobs": 0}, "logprobs"),
        ({"echo": True}, "echo"),
        ({"best_of": 2}, "best_of"),
        ({"min_p": 0.1}, "min_p"),
    ],
)
async def test_what_a_chat_cannot_do_is_refused_by_name(
    over: CompletionsOverChat, upstream: ScriptedUpstream, body: dict[str, Any], param: str
) -> None:
    """Left out in silence it would be another answer than the one that was asked for."""
    with pytest.raises(UpstreamFailed) as caught:
        await over.send(asked(**body))
    failed = caught.value
    assert (failed.kind, failed.status, failed.blame, failed.param) == ("unsent", 400, "request", param)
    assert f"'{param}'" in failed.message
    assert upstream.calls == []


@pytest.mark.parametrize("body", [{"prompt": ["one"]}, {"best_of": 1}, {"suffix": ""}, {"logprobs": None}])
async def test_what_asks_for_nothing_more_is_carried(over: CompletionsOverChat, body: dict[str, Any]) -> None:
    """Libraries write defaults into every body."""
    await (await over.send(asked(**body))).read()


async def test_a_fault_of_the_message_is_one_of_the_prompt(
    over: CompletionsOverChat, upstream: ScriptedUpstream, chat: Provider
) -> None:
    """The client has never heard of the message that its prompt became."""
    if isinstance(chat, LiteLLMProvider):
        return
    error = {"message": "too long", "type": "invalid_request_error", "param": "messages.0.content", "code": "x"}
    upstream.script(Script(status=400, body=orjson.dumps({"error": error}).decode()))
    with pytest.raises(UpstreamFailed) as caught:
        await over.send(asked())
    assert caught.value.param == "prompt"


async def test_a_stream_that_is_cut_short_ends_like_a_completion(
    over: CompletionsOverChat, upstream: ScriptedUpstream
) -> None:
    upstream.script(Script(output_tokens=500, chunk_delay_s=0.002))
    answer = await over.send(asked(limit=500, stream=True))
    while answer.observed_output_tokens() < 5:
        assert await answer.next() is not None
    [ending] = chunks(await answer.end_by_length())
    assert (ending["object"], ending["choices"][0]["text"]) == ("text_completion", "")
    assert ending["choices"][0]["finish_reason"] == "length"
    assert (answer.tail, used(answer)[2]) == (b"data: [DONE]\n\n", "estimated")
    assert await answer.next() is None


async def test_a_break_in_the_middle_is_a_failure_with_what_is_known(
    over: CompletionsOverChat, upstream: ScriptedUpstream
) -> None:
    upstream.script(Script(output_tokens=500, breaks_after_bytes=3_000, breaks="reset"))
    answer = await over.send(asked(limit=500, stream=True))
    with pytest.raises(UpstreamFailed):
        await all_of(answer)
    assert used(answer)[2] == "estimated"
    assert used(answer)[1] > 3
    assert b'"error"' in answer.error_event("It broke off.", "upstream_reset")


@pytest.mark.parametrize("body", ['{"choices": 7}', '{"id": "x"}'])
async def test_what_is_no_chat_is_unreadable(
    upstream: ScriptedUpstream, over: CompletionsOverChat, chat: Provider, body: str
) -> None:
    if isinstance(chat, LiteLLMProvider):
        return
    upstream.script(Script(body=body))
    with pytest.raises(UpstreamFailed) as caught:
        await (await over.send(asked())).read()
    assert caught.value.error_type == "upstream_unreadable"
