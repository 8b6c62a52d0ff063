"""The short way for answers that come whole in one read must read nothing that the parser would read otherwise."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.gateway.ports import UpstreamFailed
from proxy.providers.connections import Timeouts, UpstreamConnections
from proxy.providers.upstream_protocol import whole_answer

PLAIN = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Request-ID:  req-1 \r\nContent-Length: 2\r\n\r\n{}"
)

ODD = {
    "another status": PLAIN.replace(b"200 OK", b"204 No Content"),
    "HTTP/1.0": PLAIN.replace(b"1.1", b"1.0"),
    "part of the body": PLAIN[:-1],
    "more than the body": PLAIN + b"H",
    "part of the head": PLAIN[:60],
    "no length": PLAIN.replace(b"Content-Length: 2\r\n", b""),
    "two lengths": PLAIN.replace(b"Content-Length", b"Content-Length: 2\r\nContent-Length"),
    "a signed length": PLAIN.replace(b": 2", b": +2"),
    "an endless length": PLAIN.replace(b": 2", b": " + b"0" * 20 + b"2"),
    "chunked": PLAIN.replace(b"Content-Type", b"Transfer-Encoding"),
    "to be closed": PLAIN.replace(b"Content-Type: application/json", b"Connection: close"),
    "a folded line": PLAIN.replace(b"X-Request-ID", b" X-Request-ID"),
    "a space before the colon": PLAIN.replace(b"X-Request-ID:", b"X-Request-ID :"),
    "a line without a colon": PLAIN.replace(b"X-Request-ID:", b"X-Request-ID"),
    "a bare line feed": PLAIN.replace(b"req-1 ", b"req\nx: 1"),
    "a bare carriage return": PLAIN.replace(b"req-1 ", b"req\rx: 1"),
    "a NUL": PLAIN.replace(b"req-1", b"req\0"),
    "nothing": b"",
}


@pytest.mark.parametrize("data", ODD.values(), ids=ODD)
def test_whatever_is_out_of_the_ordinary_is_left_to_the_parser(data: bytes) -> None:
    """Two readers that take one answer for two different ones are how answers get mixed up."""
    assert whole_answer(data) is None


def test_an_ordinary_answer_is_read_in_full() -> None:
    """Its request id and its encoding are looked for by names in lower case."""
    answer = whole_answer(PLAIN)
    assert answer is not None
    assert (answer.code, answer.headers.get("x-request-id"), answer.headers.get("retry-after")) == (
        200,
        "req-1",
        None,
    )
    assert dict(answer.headers) == {
        "content-type": "application/json",
        "x-request-id": "req-1",
        "content-length": "2",
    }
    assert len(answer.headers) == 3
    with pytest.raises(KeyError):
        answer.headers["request-id"]


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=20))
def test_no_bytes_whatever_break_it(status: bytes, lines: bytes, body: bytes) -> None:
    """A hostile upstream gets an answer that can be read or the parser, never a fault."""
    for data in (status + lines + body, PLAIN[:17] + lines + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body):
        answer = whole_answer(data)
        assert answer is None or list(answer.headers) is not None


@contextlib.asynccontextmanager
async def serving(*answers: bytes | None, **timeouts: Any) -> AsyncIterator[tuple[UpstreamConnections, list[int]]]:
    """Connections to a server that gives an answer to each request (None: it closes), and how many it saw."""
    opened: list[int] = []
    waiting = list(answers)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(1)
        while await reader.read(65536):
            answer = waiting.pop(0)
            if answer is None:
                break
            writer.write(answer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(client, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connections = UpstreamConnections(f"http://127.0.0.1:{port}", {}, Timeouts(**timeouts))
    yield connections, opened
    await connections.close()
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others)


async def body(connections: UpstreamConnections, most: int = 100) -> bytes:
    _, exchange = await connections.send(connections.head("POST", "/x"), b"{}")
    return await exchange.whole(most)


async def test_a_connection_serves_both_ways_in_turn() -> None:
    """A pool that forgets half of its connections, or a parser that stays behind, would show here."""
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n"
    answers = [PLAIN, chunked, PLAIN, PLAIN, chunked, chunked, PLAIN]
    async with serving(*answers) as (connections, opened):
        assert [await body(connections) for _ in answers] == [b"{}" if a is PLAIN else b"[]" for a in answers]
        assert len(opened) == 1


async def test_what_a_server_says_unasked_is_nobodys_answer() -> None:
    """Bytes on an idle connection would otherwise be taken for the next customer's answer."""
    async with serving(PLAIN, PLAIN) as (connections, opened):
        assert await body(connections) == b"{}"
        idle = connections._idle._connections[0][0].protocol
        assert idle is not None
        idle.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstray")
        assert await body(connections) == b"{}"
        assert len(opened) == 2


@pytest.mark.parametrize(("said", "fault"), [(None, "upstream_reset"), (b"HTTP/1.1 2", "upstream_timeout")])
async def test_a_server_that_breaks_off_leaves_an_unknown_end(said: bytes | None, fault: str) -> None:
    """The wait for the short way must end as any other wait does."""
    async with serving(said, first_byte_s=0.1) as (connections, _):
        with pytest.raises(UpstreamFailed) as failed:
            await body(connections)
        assert (failed.value.kind, failed.value.error_type) == ("unknown", fault)


async def test_a_body_beyond_the_bound_is_refused_on_the_short_way_too() -> None:
    async with serving(PLAIN) as (connections, _):
        with pytest.raises(UpstreamFailed):
            await body(connections, most=1)


async def test_idle_connections_are_closed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody uses must not be kept for ever: a provider closes it some day, under a request."""
    monkeypatch.setattr("proxy.providers.exchanges.KEEPALIVE_S", 0.05)
    async with serving(PLAIN, PLAIN) as (connections, opened):
        await body(connections)
        idle = connections._idle._connections
        async with asyncio.timeout(5):
            while idle:
                await asyncio.sleep(0.01)
        await body(connections)
        assert len(opened) == 2
