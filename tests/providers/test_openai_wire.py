"""The native wire: what goes up is the gate's, what comes down is the provider's byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.demo.scripts import Script, words
from proxy.gateway.ports import Answer, Dispatch, UpstreamFailed
from proxy.providers.connections import Timeouts
from proxy.providers.native_wire import Address, NativeWire
from proxy.providers.openai_wire import OPENAI_SPEECHES

Dispatching = Callable[..., Dispatch]
STREAM = {"stream": True}
ASKING = {"stream": True, "stream_options": {"include_usage": True}}
KEY = "sk-test-0123456789abcdef"


@pytest.fixture
async def wire(upstream: ScriptedUpstream) -> AsyncIterator[NativeWire]:
    wire = NativeWire("up", Address(upstream.url, KEY), OPENAI_SPEECHES, Timeouts(1.0, 2.0, 1.0))
    yield wire
    await wire.close()


@asynccontextmanager
async def raw_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server that says exactly what it is told; `serve` gets each connection."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()


async def request_of(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


def answering(*writes: bytes, head: bytes = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n") -> Any:
    """Serves one request with these writes, each in a packet of its own, and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        for each in (head, *writes):
            writer.write(each)
            await writer.drain()
            await asyncio.sleep(0)

    return serve


async def all_of(answer: Answer, seen: list[bytes] | None = None) -> list[bytes]:
    events = [] if seen is None else seen
    while (event := await answer.next()) is not None:
        events.append(event)
    return events


def texts(stream: bytes) -> str:
    said = [orjson.loads(line[6:]) for line in stream.split(b"\n") if line.startswith(b"data: {")]
    return "".join(choice["delta"].get("content") or "" for chunk in said for choice in chunk["choices"])


async def test_a_plain_call_is_passed_on_byte_for_byte(upstream: ScriptedUpstream, dispatch: Dispatching) -> None:
    """Clients check signatures and field order that no model of ours knows."""
    body = b'{ "choices": [],\n "x_new": [1.50, "\\u00e9"], "usage":{"prompt_tokens":3,"completion_tokens":4} }'
    head = b"HTTP/1.1 200 OK\r\nx-request-id: abc\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with raw_server(answering(body, head=head)) as url:
        wire = NativeWire("up", Address(url, KEY), OPENAI_SPEECHES)
        answer = await wire.send(dispatch())
        assert await answer.read() == body
        assert (answer.status, answer.streamed, answer.provider_request_id) == (200, False, "abc")
        assert answer.usage is not None
        assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.source) == (3, 4, "provider")
        await wire.close()


async def test_what_goes_up_is_built_by_the_gate(
    upstream: ScriptedUpstream, wire: NativeWire, dispatch: Dispatching
) -> None:
    """The admitted limit, the catalogue's model and our key: nothing of the client's may replace them."""
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    headers = {"traceparent": trace, "x-forwarded-for": "1.2.3.4", "openai-organization": "org-x"}
    asked = dispatch(
        {"max_tokens": 90, "user": "u", "api_base": "http://evil", "seed": 5}, limit=7, headers=headers
    )
    await (await wire.send(asked)).read()
    call = upstream.calls[0]
    assert call.body == {
        "model": "m-upstream",
        "messages": [{"role": "user", "content": "three plain words"}],
        "max_completion_tokens": 7,
        "user": "u",
        "api_base": "http://evil",
        "seed": 5,
    }
    sent = {name.lower(): value for name, value in call.headers.items()}
    assert sent.pop("host") in upstream.url
    assert int(sent.pop("content-length")) > 0
    assert sent == {
        "authorization": f"Bearer {KEY}",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "accept-encoding": "identity",
        "user-agent": "faregate",
        "traceparent": trace,
    }


@pytest.mark.parametrize(
    "trace", ["00-zz", "00-" + "a" * 32 + "-" + "b" * 16 + "-01\r\nx-evil: 1", "", "x" * 5000]
)
async def test_a_traceparent_that_is_none_is_dropped(
    upstream: ScriptedUpstream, wire: NativeWire, dispatch: Dispatching, trace: str
) -> None:
    """Header injection begins with a value that nobody looked at."""
    await (await wire.send(dispatch(headers={"traceparent": trace}))).read()
    assert not {"traceparent", "x-evil"} & {name.lower() for name in upstream.calls[0].headers}


@pytest.mark.parametrize("asked", [STREAM, ASKING], ids=["usage not asked", "usage asked"])
async def test_a_stream_always_asks_for_usage_and_shows_it_only_if_asked(
    upstream: ScriptedUpstream, wire: NativeWire, dispatch: Dispatching, asked: dict[str, Any]
) -> None:
    """Code that reads `choices[0]` breaks on a usage chunk that it did not ask for."""
    answer = await wire.send(dispatch(asked))
    stream = b"".join(await all_of(answer))
    assert answer.streamed
    assert upstream.calls[0].body["stream_options"] == {"include_usage": True}
    assert (b'"choices":[]' in stream) is ("stream_options" in asked)
    assert b"[DONE]" not in stream
    assert answer.tail == b"data: [DONE]\n\n"
    assert texts(stream) == "".join(words(8))
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.source) == (3, 8, "provider")
    assert answer.provider_request_id == "req-scripted-0"
    assert not answer.failed


@pytest.mark.parametrize(
    ("usage", "expected", "source", "disputed"),
    [
        ("honest", (3, 8), "provider", False),
        ("on_choices", (3, 8), "provider", False),
        ("twice", (3, 8), "provider", False),
        ("cumulative", (3, 8), "provider", False),
        ("absent", (9, 10), "estimated", False),
        ("null", (9, 10), "estimated", False),
        ({"prompt_tokens": 0, "completion_tokens": 0}, (9, 10), "estimated", False),
        ({"prompt_tokens": -3, "completion_tokens": 8}, (0, 8), "provider", True),
        ({"prompt_tokens": 3, "completion_tokens": "8"}, (3, 0), "provider", True),
        ({"prompt_tokens": 3, "completion_tokens": 8, "total_tokens": 99}, (3, 8), "provider", True),
    ],
)
async def test_every_way_of_reporting_usage(
    upstream: ScriptedUpstream,
    wire: NativeWire,
    dispatch: Dispatching,
    usage: Any,
    expected: tuple[int, int],
    source: str,
    disputed: bool,
) -> None:
    """What is billed must be what was reported, and say so where it was not."""
    upstream.script(Script(usage=usage))
    answer = await wire.send(dispatch(STREAM))
    stream = b"".join(await all_of(answer))
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == expected
    assert (answer.usage.source, answer.usage.disputed) == (source, disputed)
    assert texts(stream) == "".join(words(8))
    assert b'"choices":[]' not in stream


async def test_a_plain_answer_without_usage_is_estimated(
    upstream: ScriptedUpstream, wire: NativeWire, dispatch: Dispatching
) -> None:
    """A silent zero would be a free call."""
    upstream.script(Script(usage="absent"))
    answer = await wire.send(dispatch())
    await answer.read()
    assert answer.usage is not None
    assert answer.usage.source == "estimated"
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens >= 8


CHUNKS = [
    '{"id":"1","model":"m-1","choices":[{"delta":{"content":"hé🎈"}}],"usage":null}',
    '{"choices":[{"delta":{"content":"say \\"usage\\":{ and [DONE]"}}]}',
    '{"choices":[],"prompt_filter_results":[]}',
    '{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":6,"total_tokens":11}}',
    "[DONE]",
]


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
async def test_a_stream_cut_at_every_byte_comes_out_the_same(dispatch: Dispatching, end: bytes) -> None:
    """The network cuts where it likes: inside a character, a line end, the usage report, `[DONE]`."""
    events = [f"data: {chunk}".encode() + end for chunk in CHUNKS]
    stream = b": a comment" + end + b"".join(events) + b"data: after the end" + end
    expected = b": a comment" + end + b"".join(events[:3])
    cut = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                await request_of(reader)
            except asyncio.IncompleteReadError:
                return
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            for piece in (stream[:cut], stream[cut:]):
                if piece:
                    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    await writer.drain()
                    await asyncio.sleep(0)
            writer.write(b"0\r\n\r\n")

    async with raw_server(serve) as url:
        wire = NativeWire("up", Address(url, KEY), OPENAI_SPEECHES)
        for cut in range(len(stream)):
            answer = await wire.send(dispatch(STREAM))
            out = await all_of(answer)
            assert b"".join(out) == expected, cut
            assert all(each.endswith(end) for each in out)
            assert answer.tail == events[4]
            assert answer.usage is not None
            assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 6)
            assert answer.model_served == "m-1"  # type: ignore[attr-defined]
        await wire.close()


async def test_an_end_without_done_stays_one(
    upstream: ScriptedUpstream, wire: NativeWire, dispatch: Dispatching
) -> None:
    """A forged `[DONE]` would make a cut answer look whole."""
    upstream.script(Script(done=False))
    answer = await wire.send(dispatch(STREAM))
    assert await all_of(answer)
    assert answer.tail == b""


async def test_an_error_in_the_stream_is_passed_on_and_marks_the_attempt(
    upstream: ScriptedUpstream, wire: NativeWire, dispatch: Dispatching
) -> None:
    """The client's library raises on it; the ledger must not call it a success."""
    upstream.script(Script(error_after=3))
    answer = await wire.send(dispatch(STREAM))
    stream = b"".join(await all_of(answer))
    assert b'data: {"error":' in stream
    assert answer.failed
    assert answer.usage is not None
    assert (answer.usage.source, answer.tail) == ("estimated", b"")


@pytest.mark.parametrize("breaks", ["close", "reset"])
async def test_a_broken_stream_fails_with_the_best_evidence(
    upstream: ScriptedUpstream, wire: NativeWire, dispatch: Dispatching, breaks: Any
) -> None:
    """The provider bills what it produced; what was seen of it is known."""
    upstream.script(Script(breaks_after_bytes=1500, breaks=breaks, chunk_delay_s=0.002))
    answer = await wire.send(dispatch(STREAM))
    seen: list[bytes] = []
    with pytest.raises(UpstreamFailed) as caught:
        await all_of(answer, seen)
    assert (caught.value.kind, caught.value.error_type) == ("unknown", "upstream_reset")
    assert all(each.endswith(b"\n\n") for each in seen)
    assert answer.usage is not None
    assert answer.usage.source == "estimated"
    assert answer.usage.output_tokens == answer.observed_output_tokens() > 0
    assert await answer.next() is None
    assert orjson.loads(answer.error_event("Broke.", "upstream_reset")[6:])["error"]["code"] == "upstream_reset"


@pytest.mark.parametrize(
    ("script", "kind", "error_type"),
    [
        (Script(breaks_after_bytes=0), "unknown", "upstream_reset"),
        (Script(breaks_after_bytes=0, breaks="reset"), "unknown", "upstream_reset"),
        (Script(breaks_after_bytes=20), "unknown", "upstream_reset"),
        (Script(body="<html>hello</html>", content_type="text/html"), "unknown", "upstream_unreadable"),
        (Script(body="[1, 2]"), "unknown", "upstream_unreadable"),
        (Script(body="{" * 3000), "unknown", "upstream_unreadable"),
        (Script(headers={"content-encoding": "gzip"}, body="{}"), "unknown", "upstream_unreadable"),
        (Script(status=302, headers={"location": "http://169.254.169.254/"}), "refused", "upstream_redirect"),
        (Script(status=500), "refused", "upstream_server_error"),
        (Script(status=429, headers={"retry-after": "7"}), "refused", "upstream_rate_limited"),
        (Script(status=503, body="<html>" * 50_000, content_type="text/html"), "refused", "upstream_server_error"),
        (Script(body='{"error":{"message":"no","code":402}}'), "refused", "upstream_quota"),
    ],
)
@pytest.mark.parametrize("body", [{}, STREAM], ids=["plain", "stream"])
async def test_what_brings_no_answer_is_a_failure_of_its_kind(
    upstream: ScriptedUpstream,
    wire: NativeWire,
    dispatch: Dispatching,
    script: Script,
    kind: str,
    error_type: str,
    body: Any,
) -> None:
    """The kind decides what is charged: refused is free, unknown is not."""
    upstream.script(script)

    async def carried() -> None:
        answer = await wire.send(dispatch(body))
        await (all_of(answer) if answer.streamed else answer.read())

    with pytest.raises(UpstreamFailed) as caught:
        await carried()
    assert (caught.value.kind, caught.value.error_type) == (kind, error_type)
    assert "html" not in caught.value.message
    assert caught.value.retry_after_s == (7 if "retry-after" in script.headers else None)
    assert len(upstream.calls) == 1


async def test_nobody_listening_is_unsent(dispatch: Dispatching) -> None:
    """What never left costs nothing and may be tried elsewhere."""
    wire = NativeWire("up", Address("http://127.0.0.1:9/v1", KEY), OPENAI_SPEECHES)
    with pytest.raises(UpstreamFailed) as caught:
        await wire.send(dispatch())
    assert (caught.value.kind, caught.value.error_type) == ("unsent", "upstream_unreachable")
    await wire.close()


async def test_a_silent_upstream_times_out_by_its_three_deadlines(
    upstream: ScriptedUpstream, dispatch: Dispatching
) -> None:
    """Every wait has a deadline: for the first byte, and between two reads."""
    wire = NativeWire("up", Address(upstream.url, KEY), OPENAI_SPEECHES, Timeouts(1.0, 0.1, 0.05))
    upstream.script(Script(head_delay_s=5.0))
    with pytest.raises(UpstreamFailed) as caught:
        await wire.send(dispatch())
    assert (caught.value.kind, caught.value.error_type) == ("unknown", "upstream_timeout")
    upstream.script(Script(chunk_delay_s=0.08))
    answer = await wire.send(dispatch(STREAM))
    with pytest.raises(UpstreamFailed) as caught:
        await all_of(answer)
    assert caught.value.error_type == "upstream_timeout"
    await wire.close()


async def test_abort_wakes_whoever_waits(
    upstream: ScriptedUpstream, wire: NativeWire, dispatch: Dispatching
) -> None:
    """A drain that took too long must end at once, and settle."""
    upstream.script(Script(chunk_delay_s=0.5))
    answer = await wire.send(dispatch(STREAM))
    waiting = asyncio.ensure_future(answer.next())
    await asyncio.sleep(0)
    answer.abort()
    async with asyncio.timeout(0.4):
        with pytest.raises(UpstreamFailed) as caught:
            await waiting
    assert caught.value.error_type == "aborted"
    assert answer.usage is not None


async def test_a_cancelled_send_leaves_no_connection_open(
    upstream: ScriptedUpstream, wire: NativeWire, dispatch: Dispatching
) -> None:
    """A leaked connection per disconnect exhausts the file descriptors."""
    upstream.hold()
    sending = asyncio.ensure_future(wire.send(dispatch()))
    await upstream.arrived(1)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    connector = wire._connections._connector
    assert connector is not None
    assert not connector._acquired
    upstream.release()


async def test_connections_are_used_again(dispatch: Dispatching) -> None:
    """A handshake a call would double the latency; a stream's connection is free after its last chunk."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            try:
                await request_of(reader)
            except asyncio.IncompleteReadError:
                return
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            writer.write(b"e\r\ndata: [DONE]\n\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)
            writer.write(b"0\r\n\r\n")

    async with raw_server(serve) as url:
        wire = NativeWire("up", Address(url, KEY), OPENAI_SPEECHES)
        for _ in range(3):
            await all_of(await wire.send(dispatch(STREAM)))
            await asyncio.sleep(0.03)
        assert connections == 1
        await wire.close()


async def test_answers_beyond_the_bound_are_dropped(
    dispatch: Dispatching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hostile upstream must not be able to fill the memory."""
    monkeypatch.setattr("proxy.providers.native_answers.BODY_BYTES_MAX", 1000)
    body = b'{"a":"' + b"x" * 2000 + b'"}'
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with raw_server(answering(body, head=head)) as url:
        wire = NativeWire("up", Address(url, KEY), OPENAI_SPEECHES)
        with pytest.raises(UpstreamFailed) as caught:
            await (await wire.send(dispatch())).read()
        assert caught.value.error_type == "upstream_unreadable"
        await wire.close()


GARBAGE = [
    b"data: {not json\n\n",
    b'data: {"usage":{"prompt_tokens":NaN,"completion_tokens":1}}\n\n',
    b'data: {"usage":{"prompt_tokens":1e999,"completion_tokens":1}}\n\n',
    b'data: {"choices":[],"usage":"much"}\n\n',
    b'data: [{"usage":{"a":1}}]\n\n',
    b"\x00\x00\xff\xfe\n\n",
    b"\xef\xbb\xbfdata: {}\n\n",
    b"data: " + b"[" * 5000 + b'"usage":{' + b"\n\n",
    b"no colon at all\r\r\n\n",
    b'data: {"error": {"message": "x"}, "usage": {"prompt_tokens": [], "completion_tokens": {}}}\n\n',
    b"data: [DONE]\n\ndata: [DONE]\n\n",
    b"event: x\ndata: [DONE]\n\n",
    b"data: half an event",
    b"\n\n\n\n\r\n\r\n",
    b"",
]


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_never_breaks_the_gate(dispatch: Dispatching, garbage: bytes) -> None:
    """Whatever an upstream sends, the attempt ends with a usage that can be settled."""
    async with raw_server(answering(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n', garbage)) as url:
        wire = NativeWire("up", Address(url, KEY), OPENAI_SPEECHES)
        answer = await wire.send(dispatch(STREAM))
        out = b"".join(await all_of(answer))
        assert out.startswith(b'data: {"choices"')
        assert answer.usage is not None
        await wire.close()


async def test_not_http_at_all_is_a_failure(dispatch: Dispatching) -> None:
    """A wrong port answers in its own language; its bytes must not be echoed."""
    async with raw_server(answering(head=b"SSH-2.0-OpenSSH\r\n\r\n")) as url:
        wire = NativeWire("up", Address(url, KEY), OPENAI_SPEECHES)
        with pytest.raises(UpstreamFailed) as caught:
            await wire.send(dispatch())
        assert caught.value.kind == "unknown"
        assert "SSH" not in caught.value.message
        await wire.close()


async def test_what_cannot_be_serialised_is_the_requests_fault(wire: NativeWire, dispatch: Dispatching) -> None:
    """A number beyond 64 bits must be a 400 and not a crash."""
    with pytest.raises(UpstreamFailed) as caught:
        await wire.send(dispatch({"seed": 1 << 70}))
    assert (caught.value.kind, caught.value.status, caught.value.blame) == ("unsent", 400, "request")


@pytest.mark.parametrize(
    ("base_url", "key"),
    [
        ("ftp://x/v1", KEY),
        ("api.openai.com/v1", KEY),
        ("https://user:pw@x/v1", KEY),
        ("https://x/v1", "sk\r\nx: 1"),
    ],
)
def test_a_bad_address_or_key_is_refused_at_the_start(base_url: str, key: str) -> None:
    """Better at start than with the first customer."""
    with pytest.raises(ValueError, match=r"upstream|header") as caught:
        NativeWire("up", Address(base_url, key), OPENAI_SPEECHES)
    assert "pw" not in str(caught.value)


def test_without_a_key_it_is_not_configured() -> None:
    """The gate starts all the same and says so."""
    assert not NativeWire("up", Address("https://x/v1", None), OPENAI_SPEECHES).configured
    assert not NativeWire("up", Address("https://x/v1", ""), OPENAI_SPEECHES).configured
    assert NativeWire("up", Address("https://x/v1", None), OPENAI_SPEECHES, keyless=True).configured
