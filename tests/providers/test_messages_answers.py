"""What comes down Anthropic's wire is the provider's byte for byte, and what it used is read as it passes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.asks import Ask
from proxy.domain.messages_requests import read_messages
from proxy.domain.usage import Usage
from proxy.gateway.ports import Answer, UpstreamFailed
from proxy.providers.connections import Head
from proxy.providers.exchanges import Exchange
from proxy.providers.messages_answers import PlainMessage, StreamedMessage

QUOTA = "upstream_quota"
KEY = "sk-ant-test-0123456789abcdef"
BODY = {"model": "m", "max_tokens": 30, "messages": [{"role": "user", "content": "three plain words"}]}
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def ask(headers: dict[str, str] | None = None, **more: Any) -> Ask:
    return read_messages({**BODY, **more}, headers or {}, str.upper)


class Written:
    """An exchange whose answer is written down: these reads, then the end, or the failure."""

    def __init__(self, reads: list[bytes], failure: UpstreamFailed | None = None) -> None:
        self.reads = reads
        self.failure = failure
        self.dropped = False

    async def some(self) -> bytes:
        if self.reads:
            return self.reads.pop(0)
        if self.failure is not None:
            raise self.failure
        return b""

    async def whole(self, most: int) -> bytes:
        return b"".join(self.reads)

    def finish(self) -> None: ...

    def drop(self) -> None:
        self.dropped = True


@dataclass(frozen=True)
class Ok:
    code: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def streamed(reads: list[bytes], failure: UpstreamFailed | None = None, **more: Any) -> StreamedMessage:
    exchange = cast(Exchange, Written(reads, failure))
    return StreamedMessage(cast(Head, Ok()), exchange, ask(stream=True, **more))


async def all_of(answer: Answer) -> bytes:
    events = b""
    while (event := await answer.next()) is not None:
        events += event
    return events


def event(said: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (said["type"].encode(), orjson.dumps(said))


def started(**usage: Any) -> bytes:
    return event({"type": "message_start", "message": {"id": "msg_1", "model": "claude-x", "usage": usage}})


def ended(stop: str | None = "end_turn", **usage: Any) -> bytes:
    return event({"type": "message_delta", "delta": {"stop_reason": stop}, "usage": usage})


def delta(said: dict[str, Any], index: int = 0) -> bytes:
    return event({"type": "content_block_delta", "index": index, "delta": said})


def says(text: str) -> bytes:
    return delta({"type": "text_delta", "text": text})


OPENED = event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
CLOSED = event({"type": "content_block_stop", "index": 0})
PING = b'event: ping\ndata: {"type": "ping"}\n\n'

CRLF = rb"""event: message_start
data: {"type": "message_start", "message": {"model": "x", "usage": {"input_tokens": 25, "output_tokens": 1}}}

: comment

event: message_delta
data: {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15}}

event: message_stop
data: {"type": "message_stop"}

""".replace(b"\n", b"\r\n")

# As Anthropic's API writes them: spaces after colons or none, pings between, several kinds of blocks.
RECORDED = [
    started(input_tokens=25, cache_creation_input_tokens=0, cache_read_input_tokens=0, output_tokens=1)
    + OPENED + PING + says("Hello") + says("!") + CLOSED + ended(output_tokens=15) + STOP,
    started(input_tokens=9, output_tokens=1)
    + event({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}})
    + delta({"type": "thinking_delta", "thinking": 'Hm "é"'})
    + delta({"type": "signature_delta", "signature": "Eq=="})
    + CLOSED
    + event({"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "input": {}}})
    + delta({"type": "input_json_delta", "partial_json": '{"type":"message_stop","error":{"a":1}}'}, 1)
    + event({"type": "content_block_stop", "index": 1})
    + ended("tool_use", input_tokens=25, output_tokens=15)
    + STOP,
    CRLF,
]  # fmt: skip


async def relayed(stream: bytes, cuts: list[int]) -> tuple[bytes, bytes, Usage]:
    edges = [0, *sorted(set(cuts)), len(stream)]
    answer = streamed([stream[a:b] for a, b in pairwise(edges) if a < b])
    passed = await all_of(answer)
    assert answer.usage is not None
    return passed, answer.tail, answer.usage


@pytest.mark.parametrize("stream", RECORDED, ids=["plain", "tools", "crlf"])
async def test_a_recorded_stream_passes_byte_for_byte_wherever_it_is_cut(stream: bytes) -> None:
    """Only its last event is held back, until what was used is settled."""
    for at in range(1, len(stream)):
        passed, tail, usage = await relayed(stream, [at])
        assert passed + tail == stream
        assert b"message_stop" in tail
        assert (usage.input_tokens, usage.output_tokens, usage.source) == (25, 15, "provider")
    passed, tail, usage = await relayed(stream, list(range(len(stream))))
    assert (passed + tail, usage.output_tokens) == (stream, 15)


texts = st.text(max_size=12) | st.sampled_from(
    ['"message_stop"', '{"type":"error"}', "\n\n", "data: [DONE]", "\r"]
)


@given(
    said=st.lists(texts, max_size=6),
    line_end=st.sampled_from([b"\n", b"\r\n"]),
    spaced=st.booleans(),
    data=st.data(),
)
def test_a_random_stream_passes_byte_for_byte(
    said: list[str], line_end: bytes, spaced: bool, data: st.DataObject
) -> None:
    """Whatever a model says, and however the network cuts it up."""
    separators = (", ", ": ") if spaced else (",", ":")
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 7, "output_tokens": 1}}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": t}} for t in said),
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 40}},
        {"type": "message_stop"},
    ]
    stream = b"".join(
        b"event: %b%b" % (str(each["type"]).encode(), line_end)
        + b"data: %b%b%b" % (json.dumps(each, separators=separators).encode(), line_end, line_end)
        for each in events
    )
    cuts = data.draw(st.lists(st.integers(1, len(stream) - 1), max_size=8))
    passed, tail, usage = asyncio.run(relayed(stream, cuts))
    assert passed + tail == stream
    assert (usage.input_tokens, usage.output_tokens, usage.source) == (7, 40, "provider")


async def test_the_last_report_wins_and_is_never_added() -> None:
    """Reports are cumulative; the split of the cache writes comes only at the start."""
    split = {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 400}
    start = started(input_tokens=10, output_tokens=1, cache_creation_input_tokens=500, cache_creation=split)
    answer = streamed(
        [start, ended(None, output_tokens=4), ended(output_tokens=9, cache_read_input_tokens=90), STOP]
    )
    await all_of(answer)
    assert answer.usage == Usage(600, 9, 90, 500, cache_write_1h_tokens=400)
    assert answer.usage.raw == {
        "input_tokens": 10,
        "output_tokens": 9,
        "cache_creation_input_tokens": 500,
        "cache_read_input_tokens": 90,
        "cache_creation": split,
    }
    assert answer.model_served == "claude-x"


async def test_a_stream_without_usage_is_estimated() -> None:
    """Some who speak the wire report nothing."""
    start = event({"type": "message_start", "message": {}})
    end = event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}})
    answer = streamed([start, OPENED, says("four words or so"), CLOSED, end, STOP])
    assert (await all_of(answer)) == start + OPENED + says("four words or so") + CLOSED + end
    assert answer.usage is not None
    assert (answer.usage.source, answer.usage.output_tokens) == ("estimated", 4)
    assert answer.usage.input_tokens == ask().input_estimate


RESET = UpstreamFailed("unknown", "upstream_reset", "It broke off.")


@pytest.mark.parametrize("failure", [RESET, None], ids=["reset", "closed as if it were the end"])
async def test_what_is_known_of_a_stream_that_is_cut_off(failure: UpstreamFailed | None) -> None:
    """The input is the provider's word by then; of the output nobody has said more than what came."""
    answer = streamed([started(input_tokens=25, output_tokens=1) + OPENED, *[says(" word")] * 6], failure)
    with pytest.raises(UpstreamFailed) as caught:
        await all_of(answer)
    assert caught.value.error_type == "upstream_reset"
    assert answer.tail == b""
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.source) == (25, 8, "estimated")


async def test_a_stream_that_said_why_it_stopped_may_leave_its_last_event_out() -> None:
    """All that was used has been told by then."""
    answer = streamed([started(input_tokens=25, output_tokens=1), ended(output_tokens=3)])
    await all_of(answer)
    assert answer.usage == Usage(25, 3)
    assert (answer.tail, answer.failed) == (b"", False)


OVERLOADED = event({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})


async def test_an_error_in_the_stream_fails_it_and_passes() -> None:
    answer = streamed([started(input_tokens=25, output_tokens=1) + OPENED, says("word"), OVERLOADED])
    assert (await all_of(answer)).endswith(OVERLOADED)
    assert (answer.failed, answer.tail) == (True, b"")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.source) == (25, 1, "estimated")


async def test_an_error_after_the_message_began_is_no_reason_for_another() -> None:
    """Its input was read and will be charged, however fast the error came."""
    answer = streamed([started(input_tokens=25, output_tokens=1) + OVERLOADED])
    assert (await all_of(answer)).endswith(OVERLOADED)
    assert answer.usage is not None
    assert (answer.failed, answer.usage.input_tokens) == (True, 25)


async def test_an_error_before_anything_else_is_a_failure_that_another_attempt_can_mend() -> None:
    """Anthropic says 200 before it knows that it is overloaded."""
    answer = streamed([OVERLOADED])
    with pytest.raises(UpstreamFailed) as caught:
        await all_of(answer)
    assert (caught.value.kind, caught.value.status, caught.value.blame) == ("refused", 529, "upstream")


async def test_a_stream_is_ended_by_length_in_the_wires_own_words() -> None:
    """What is open is closed, so that clients can put the message together."""
    answer = streamed([started(input_tokens=25, output_tokens=1) + OPENED, says("word"), says("never seen")])
    await answer.next()
    await answer.next()
    events = [
        orjson.loads(each.split(b"data: ")[1]) for each in (await answer.end_by_length()).split(b"\n\n")[:-1]
    ]
    assert events == [
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "max_tokens", "stop_sequence": None},
            "usage": {
                "input_tokens": 25,
                "output_tokens": 1,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
            },
        },
    ]
    assert (answer.tail, await answer.next(), await answer.end_by_length()) == (STOP, None, b"")
    assert cast(Written, answer._exchange).dropped


async def test_what_has_said_its_end_is_not_ended_again() -> None:
    answer = streamed([started(input_tokens=25, output_tokens=1) + ended(output_tokens=3), STOP])
    await answer.next()
    assert await answer.end_by_length() == b""


def test_the_gate_fails_a_stream_in_anthropics_words() -> None:
    answer = streamed([])
    assert answer.error_event("Too bad.", "upstream_reset") == event(
        {"type": "error", "error": {"type": "api_error", "message": "Too bad."}}
    )
    assert b'"timeout_error"' in answer.error_event("Too late.", "upstream_timeout")


@pytest.mark.parametrize(
    ("kind", "status"), [("overloaded_error", 529), ("rate_limit_error", 429), ("api_error", 500), ("new", 502)]
)
async def test_an_error_under_a_status_of_200_is_one(kind: str, status: int) -> None:
    body = orjson.dumps({"type": "error", "error": {"type": kind, "message": "m"}})
    answer = PlainMessage(cast(Head, Ok()), cast(Exchange, Written([body])), ask())
    with pytest.raises(UpstreamFailed) as caught:
        await answer.read()
    assert caught.value.status == status
