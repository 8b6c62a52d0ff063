"""How a Response streamed over chat ends: cleanly, by length, by failure, or not at all."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from responses_told import TOOL, USAGE, asking, chunks, events_of, events_text, names, over, piece, told, told_by

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.demo.scripts import Script, words
from proxy.domain.usage import Usage
from proxy.gateway.ports import Answer, Dispatch, UpstreamFailed
from proxy.providers.translation.responses_over_chat import ResponsesOverChat

_CALL = {"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"x":1}'}}
_FIRST = {"created": 5, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "hé"}}]}
RECORDED = (
    b": keep-alive\n\ndata: %b\r\n\r\n" % orjson.dumps(_FIRST)
    + b"data: %b\n\n" % orjson.dumps({"choices": [{"index": 0, "delta": {"tool_calls": [_CALL]}}]})
    + b': keep-alive\n\ndata: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}\n\n'
    + b'data: {"choices":[],"usage":%b}\n\ndata: [DONE]\n\n' % orjson.dumps(USAGE)
)


async def test_a_chat_stream_cut_at_every_byte_is_told_the_same() -> None:
    """The network cuts where it likes, and no event may be lost or told twice for it."""
    cut = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        while length := (await reader.readuntil(b"\r\n\r\n")).lower().partition(b"content-length:")[2]:
            await reader.readexactly(int(length.split(b"\r\n")[0]))
            writer.write(head)
            for each in (RECORDED[:cut], RECORDED[cut:]):
                if each:
                    writer.write(b"%x\r\n%b\r\n" % (len(each), each))
                    await writer.drain()
                    await asyncio.sleep(0)
            writer.write(b"0\r\n\r\n")

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with over(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1") as responses:
        expected: list[dict[str, Any]] = []
        for cut in range(len(RECORDED)):
            answer = await responses.send(asking(stream=True, tools=[TOOL]))
            events = events_of(await told_by(answer))
            expected = expected or events
            assert events == expected, cut
            assert answer.usage is not None
            assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 6)
    server.close()
    assert [told(item) for item in expected[-1]["response"]["output"]] == ["message:hé", 'function_call:{"x":1}']


async def test_an_error_in_the_stream_is_a_failed_response(
    upstream: ScriptedUpstream, responses: ResponsesOverChat
) -> None:
    """A bare error event makes Codex send the whole request again, five times."""
    upstream.script(Script(error_after=3))
    answer = await responses.send(asking(stream=True))
    stream = await told_by(answer)
    last = events_of(stream)[-1]
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
    assert last["response"]["error"]["code"] == "server_error"
    assert [told(item) for item in last["response"]["output"]] == [f"message:{''.join(words(3))}"]
    assert b"As the script says" not in stream
    assert answer.failed
    assert b"response.failed" in answer.tail
    assert answer.usage is not None
    assert answer.usage.source == "estimated"


async def test_an_upstream_that_takes_no_more_is_told_so(
    upstream: ScriptedUpstream, responses: ResponsesOverChat
) -> None:
    error = {"error": {"message": "x", "type": "rate_limit_error", "code": 429}}
    begun = {"choices": [{"index": 0, "delta": {"content": "a"}}]}
    text = "".join(f"data: {orjson.dumps(each).decode()}\n\n" for each in (begun, error, begun))
    upstream.script(Script(events=text))
    events = events_of(await told_by(await responses.send(asking(stream=True))))
    assert told(events[-1]["response"]["output"][0]) == "message:a"
    assert events[-1]["response"]["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize(
    ("events", "error_type"),
    [
        ('data: {"error":{"message":"no","code":429}}\n\n', "upstream_rate_limited"),
        ('data: {"choices":[{"delta":{},"finish_reason":"error"}]}\n\n', "upstream_server_error"),
        ("", "upstream_reset"),
        ("data: [DONE]\n\n", "upstream_reset"),
        ("data: {truncated\n\n", "upstream_unreadable"),
    ],
)
async def test_a_stream_that_fails_before_its_first_word_may_still_be_made_elsewhere(
    upstream: ScriptedUpstream, responses: ResponsesOverChat, events: str, error_type: str
) -> None:
    """Nothing has reached the client: another model may answer."""
    upstream.script(Script(events=events))
    answer = await responses.send(asking(stream=True))
    with pytest.raises(UpstreamFailed) as caught:
        await answer.next()
    assert caught.value.error_type == error_type
    assert await answer.next() is None


@pytest.mark.parametrize(
    ("rest", "error_type", "told_why"),
    [
        ("", "upstream_reset", "ended its answer in the middle"),
        ("data: {truncated\n\ndata: [DONE]\n\n", "upstream_unreadable", "cannot be read"),
        (events_text(piece(0, "{}")), "upstream_unreadable", "without a name"),
        (events_text({"content": "x" * (2 << 20)}), "upstream_unreadable", "too large"),
        (
            events_text(piece(0, "{}", id="c", name="f"), {"content": "y"}, piece(0, "{}")),
            "upstream_unreadable",
            "that was complete",
        ),
    ],
    ids=["cut", "unreadable", "a call without a name", "an event without end", "a call that goes on"],
)
async def test_no_clean_end_is_forged(
    upstream: ScriptedUpstream, responses: ResponsesOverChat, rest: str, error_type: str, told_why: str
) -> None:
    """Half an answer that says `completed` is believed."""
    upstream.script(Script(events=events_text({"content": "half"}) + rest))
    answer = await responses.send(asking(stream=True))
    seen: list[bytes] = []
    with pytest.raises(UpstreamFailed, match=error_type) as caught:
        await told_by(answer, seen)
    assert told_why in caught.value.message
    stream = b"".join(seen) + answer.error_event("Broke.", error_type)
    last = events_of(stream)[-1]
    error = {"code": error_type, "message": "Broke."}
    assert (last["type"], last["response"]["error"]) == ("response.failed", error)
    assert told(last["response"]["output"][0]) == "message:half"
    assert answer.tail == b""
    assert answer.usage is not None
    assert answer.usage.source == "estimated"
    assert answer.observed_output_tokens() > 0
    assert await answer.next() is None


class Unending:
    """A chat answer that goes on until it is given up, as far as anybody asks for more of it."""

    status, streamed, content_type, provider_request_id = 200, True, "text/event-stream", None
    tail, failed = b"", False

    def __init__(self, *events: str) -> None:
        self.usage: Usage | None = None
        self.given_up = asyncio.Event()
        self._events = [event.encode() for event in events]

    async def next(self) -> bytes | None:
        if self._events:
            return self._events.pop(0)
        async with asyncio.timeout(5):
            await self.given_up.wait()
        self.usage = Usage(1, 2, source="estimated")
        raise UpstreamFailed("unknown", "aborted", "x")

    async def read(self) -> bytes:
        raise TypeError

    def observed_output_tokens(self) -> int:
        return 2

    async def end_by_length(self) -> bytes:
        return b"data: {}\n\n"

    def error_event(self, message: str, code: str) -> bytes:
        raise TypeError

    def abort(self) -> None:
        self.given_up.set()


def told_of(chat: Answer) -> ResponsesOverChat:
    async def send(dispatch: Dispatch) -> Answer:
        return chat

    return ResponsesOverChat(send)


async def test_an_upstream_that_cannot_be_understood_is_not_listened_to_any_longer() -> None:
    """It would go on to write, and to be paid for it."""
    chat = Unending(events_text({"content": "a"}), "data: {truncated\n\n")
    answer = await told_of(chat).send(asking(stream=True))
    with pytest.raises(UpstreamFailed, match="upstream_unreadable"):
        await told_by(answer)
    assert chat.given_up.is_set()
    assert answer.usage == Usage(1, 2, source="estimated")


async def test_an_answer_that_has_said_why_it_ends_is_not_ended_by_length() -> None:
    chat = Unending('data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n')
    answer = await told_of(chat).send(asking(stream=True))
    await answer.next()
    assert await answer.end_by_length() == b""


async def test_a_broken_connection_fails_with_the_best_evidence(
    upstream: ScriptedUpstream, responses: ResponsesOverChat
) -> None:
    upstream.script(Script(breaks_after_bytes=1500, breaks="reset", chunk_delay_s=0.002))
    answer = await responses.send(asking(stream=True))
    with pytest.raises(UpstreamFailed) as caught:
        await told_by(answer)
    assert (caught.value.kind, caught.value.error_type) == ("unknown", "upstream_reset")
    assert answer.usage is not None
    assert answer.usage.output_tokens == answer.observed_output_tokens() > 0


async def test_a_stream_that_is_ended_by_length_says_so(
    upstream: ScriptedUpstream, responses: ResponsesOverChat
) -> None:
    """The budget is spent: what was made is a whole answer, cut short."""
    upstream.script(Script(chunk_delay_s=0.01, output_tokens=50))
    answer = await responses.send(asking(stream=True, limit=50))
    seen = []
    while answer.observed_output_tokens() < 3:
        seen.append(await answer.next() or b"")
    ending = await answer.end_by_length()
    assert await answer.next() is None
    events = events_of(b"".join(seen) + ending + answer.tail)
    response = events[-1]["response"]
    assert (events[-1]["type"], response["incomplete_details"]) == (
        "response.incomplete",
        {"reason": "max_output_tokens"},
    )
    assert response["output"][0]["status"] == "incomplete"
    assert answer.usage is not None
    assert response["usage"]["output_tokens"] == answer.usage.output_tokens >= 3
    assert answer.usage.source == "estimated"
    assert await answer.end_by_length() == b""


async def test_a_stream_that_has_ended_is_not_ended_again(
    upstream: ScriptedUpstream, responses: ResponsesOverChat
) -> None:
    upstream.script(chunks({"content": "a"}, "stop"))
    answer = await responses.send(asking(stream=True))
    first = await answer.next()
    assert await answer.end_by_length() == b""
    assert names(events_of((first or b"") + await told_by(answer)))[-1] == "completed"


async def test_giving_up_ends_the_wait(upstream: ScriptedUpstream, responses: ResponsesOverChat) -> None:
    """A client that left is not waited for longer than its drain."""
    upstream.script(Script(chunk_delay_s=30))
    answer = await responses.send(asking(stream=True))
    waiting = asyncio.ensure_future(answer.next())
    await asyncio.sleep(0)
    answer.abort()
    with pytest.raises(UpstreamFailed):
        await waiting
    assert answer.usage is not None
