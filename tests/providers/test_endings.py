"""A stream that the gate ends itself: it must read like one that has reached its output limit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.demo.scripts import Script
from proxy.domain.usage import Usage
from proxy.gateway.ports import Answer, Dispatch, Provider
from proxy.providers.connections import Timeouts
from proxy.providers.delivered import Delivered
from proxy.providers.endings import common_of, evidence
from proxy.providers.litellm_provider import LiteLLMProvider
from proxy.providers.native_wire import Address, NativeWire
from proxy.providers.openai_wire import OPENAI_SPEECHES

# LiteLLM asks pydantic for what it will not have in version 3.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211")

Dispatching = Callable[..., Dispatch]
KEY = "sk-test-0123456789abcdef"
STREAM = {"stream": True}
ASKING = {"stream": True, "stream_options": {"include_usage": True}}
SLOW = Script(output_tokens=500, chunk_delay_s=0.002)


@pytest.fixture(params=["openai", "litellm"])
async def provider(request: Any, upstream: ScriptedUpstream) -> AsyncIterator[Provider]:
    timeouts = Timeouts(1.0, 5.0, 5.0)
    provider: Provider = (
        NativeWire("up", Address(upstream.url, KEY), OPENAI_SPEECHES, timeouts)
        if request.param == "openai"
        else LiteLLMProvider("up", "openai", KEY, upstream.url, timeouts)
    )
    yield provider
    await provider.close()


def parsed(events: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(event.removeprefix(b"data: ")) for event in events.split(b"\n\n") if event]


async def some_of(answer: Answer, tokens: int) -> bytes:
    """Reads until that many tokens were observed."""
    seen = b""
    while answer.observed_output_tokens() < tokens:
        event = await answer.next()
        assert event is not None
        seen += event
    return seen


@pytest.mark.parametrize("asked", [STREAM, ASKING], ids=["usage not asked", "usage asked"])
async def test_every_choice_ends_by_length_and_the_upstream_is_dropped(
    upstream: ScriptedUpstream, provider: Provider, dispatch: Dispatching, asked: dict[str, Any]
) -> None:
    """What comes of it must fit the chunks before: a client's library puts them together by id and index."""
    upstream.script(SLOW)
    answer = await provider.send(dispatch(asked, n=2, limit=500))
    seen = await some_of(answer, 20)
    ending = parsed(await answer.end_by_length())
    assert await answer.next() is None
    assert answer.tail == b"data: [DONE]\n\n"
    chunk = parsed(seen)[-1]
    assert all(each[name] == chunk[name] for each in ending for name in ("id", "object", "created", "model"))
    finishes = [(c["index"], c["delta"], c["finish_reason"]) for each in ending for c in each["choices"]]
    assert finishes == [(0, {}, "length"), (1, {}, "length")]
    assert answer.usage is not None
    assert (answer.usage.source, answer.usage.output_tokens) == ("estimated", answer.observed_output_tokens())
    if asked is ASKING:
        assert ending[-1]["choices"] == []
        assert ending[-1]["usage"]["completion_tokens"] == answer.usage.output_tokens
        assert all(each["usage"] is None for each in ending[:-1])
    else:
        assert all("usage" not in each for each in ending)
    assert upstream.calls[0].output_tokens < 1000


async def test_what_has_ended_by_itself_is_not_ended_again(
    upstream: ScriptedUpstream, provider: Provider, dispatch: Dispatching
) -> None:
    """Its usage report is on the way, and better than any estimate."""
    upstream.script(Script(output_tokens=5, chunk_delay_s=0.01))
    answer = await provider.send(dispatch(ASKING, limit=500))
    seen = b""
    while b'"finish_reason":"stop"' not in seen:
        seen += await answer.next() or b""
    assert await answer.end_by_length() == b""
    while (event := await answer.next()) is not None:
        seen += event
    assert answer.usage is not None
    assert (answer.usage.source, answer.usage.output_tokens) == ("provider", 5)
    assert await answer.end_by_length() == b""


async def test_a_choice_that_has_ended_is_left_as_it_is(dispatch: Dispatching, upstream: ScriptedUpstream) -> None:
    """Two endings of one choice are one too many."""
    head = b'{"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    events = [
        head + b'[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}',
        head + b'[{"index":0,"delta":{},"finish_reason":"stop"}]}',
        head + b'[{"index":1,"delta":{"content":"b"},"finish_reason":null}]}',
        head + b'[{"index":1,"delta":{"content":"' + b"c" * 2000 + b'"},"finish_reason":null}]}',
    ]
    text = b"".join(b"data: %b\n\n" % event for event in events).decode()
    upstream.script(Script(events=text))
    wire = NativeWire("up", Address(upstream.url, KEY), OPENAI_SPEECHES)
    answer = await wire.send(dispatch(STREAM, n=2))
    await some_of(answer, 3)
    ending = parsed(await answer.end_by_length())
    assert [c["index"] for each in ending for c in each["choices"]] == [1]
    await wire.close()


async def test_no_clean_end_is_forged_over_an_error(upstream: ScriptedUpstream, dispatch: Dispatching) -> None:
    """The stream has said that it failed."""
    upstream.script(Script(error_after=3))
    wire = NativeWire("up", Address(upstream.url, KEY), OPENAI_SPEECHES)
    answer = await wire.send(dispatch(STREAM))
    while not answer.failed:
        assert await answer.next() is not None
    assert await answer.end_by_length() == b""
    assert await answer.next() is None
    assert answer.tail == b""
    await wire.close()


async def test_no_event_is_cut_in_the_middle(upstream: ScriptedUpstream, dispatch: Dispatching) -> None:
    """An event too large to be kept whole is passed on in parts: what would follow a part of it is garbage."""
    event = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * 3_000_000 + b'"}}]}\n\n'
    upstream.script(Script(events=event.decode()))
    wire = NativeWire("up", Address(upstream.url, KEY), OPENAI_SPEECHES)
    answer = await wire.send(dispatch(STREAM))
    first = await answer.next()
    assert first is not None
    assert not first.endswith(b"\n\n")
    assert await answer.end_by_length() == b""
    while await answer.next() is not None:
        pass
    await wire.close()


@pytest.mark.parametrize(
    ("reported", "delivered", "tokens", "source"),
    [
        (None, 3, 3, "estimated"),
        (Usage(7, 3), 3, 3, "provider"),
        (Usage(7, 9, reasoning_tokens=6), 3, 9, "provider"),
        (Usage(7, 1), 3, 3, "estimated"),
    ],
)
def test_a_usage_is_never_less_than_was_delivered(
    dispatch: Dispatching, reported: Usage | None, delivered: int, tokens: int, source: str
) -> None:
    """Some providers report running totals from the first event on."""
    counted = Delivered()
    for _ in range(delivered):
        counted.add(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n')
    usage = evidence(reported, dispatch(STREAM).ask, counted)
    assert (usage.output_tokens, usage.source) == (tokens, source)
    assert usage.input_tokens == (7 if reported else dispatch(STREAM).ask.input_estimate)


def test_a_stream_of_comments_and_garbage_still_has_an_ending() -> None:
    """There may be no chunk to take the id from."""
    assert common_of(b": waiting\n\ndata: {nonsense\n\ndata: 7\n\n") == {"object": "chat.completion.chunk"}
