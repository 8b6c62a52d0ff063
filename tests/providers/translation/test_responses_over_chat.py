"""Responses on an upstream that has chat completions only: what goes up, what is refused, what is recorded."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import orjson
import pytest
from responses_told import asking, events_of, told_by

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.demo.scripts import Script
from proxy.gateway.ports import Answer, Dispatch, UpstreamFailed
from proxy.providers.translation.responses_over_chat import ResponsesOverChat


@pytest.mark.parametrize("usage", ["absent", "null"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_usage_that_nobody_reported_is_not_shown_as_one(
    upstream: ScriptedUpstream, responses: ResponsesOverChat, usage: Any, streamed: bool
) -> None:
    """What is recorded says that it is estimated; the client would take the number for the provider's."""
    upstream.script(Script(usage=usage))
    answer = await responses.send(asking(stream=streamed))
    said = events_of(await told_by(answer))[-1]["response"] if streamed else orjson.loads(await answer.read())
    assert said["usage"] is None
    assert answer.usage is not None
    assert (answer.usage.source, answer.usage.output_tokens >= 8) == ("estimated", True)


async def test_a_refusal_is_told_of_the_clients_own_field(
    upstream: ScriptedUpstream, responses: ResponsesOverChat
) -> None:
    error = {"message": "Bad 'messages.1.content'.", "param": "messages.1.content", "code": "invalid_value"}
    upstream.script(Script(status=400, body=orjson.dumps({"error": error}).decode()))
    with pytest.raises(UpstreamFailed) as caught:
        await responses.send(asking(instructions="x", input=[{"role": "user", "content": "y"}]))
    failed = caught.value
    assert (failed.param, failed.message, failed.code) == ("input.0", "Bad 'input.0'.", "invalid_value")


async def test_what_cannot_be_translated_is_never_sent(
    upstream: ScriptedUpstream, responses: ResponsesOverChat
) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        await responses.send(asking(truncation="auto"))
    assert (caught.value.kind, caught.value.status, caught.value.param) == ("unsent", 400, "truncation")
    assert upstream.calls == []


@pytest.mark.parametrize("streamed", [True, False])
async def test_the_wrong_way_of_reading_says_so(
    upstream: ScriptedUpstream, responses: ResponsesOverChat, streamed: bool
) -> None:
    answer = await responses.send(asking(stream=streamed))
    with pytest.raises(TypeError):
        await (answer.read() if streamed else answer.next())
    if not streamed:
        with pytest.raises(TypeError):
            await answer.end_by_length()
        with pytest.raises(TypeError):
            answer.error_event("x", "y")
    answer.abort()


def test_the_clients_ask_is_left_as_it_is() -> None:
    """A fallback may be an upstream that has Responses itself."""
    dispatch = asking(stream=True)
    before = replace(dispatch.ask)

    async def chat(sent: Dispatch) -> Answer:
        assert (sent.ask.endpoint, sent.ask.usage_asked, sent.ask.query) == ("/v1/chat/completions", True, "")
        raise UpstreamFailed("unsent", "upstream_unreachable", "x")

    with pytest.raises(UpstreamFailed):
        asyncio.run(ResponsesOverChat(chat).send(dispatch))
    assert dispatch.ask == before
