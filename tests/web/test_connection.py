"""Hostile and odd connections: each is answered in JSON or closed, and nobody else notices."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from data_plane import CHAT, SECRET, Plane, get, post

from proxy.web.listener import Limits

Serve = Callable[..., Awaitable[Plane]]
HASTY = Limits(headers_s=0.1, body_s=0.1, idle_s=0.1, linger_s=0.1, stall_s=0.1, sweep_s=0.02)
BROKEN_HEADER = b"GET /healthz HTTP/1.1\r\nHost: x\r\nAuthoriz\x00ation: Bearer " + SECRET.encode() + b"\r\n\r\n"


def chunked(body: bytes, *headers: str, version: str = "1.1") -> bytes:
    data = post(b"", "Content-Length: 0", *headers, version=version)
    return data.replace(b"Content-Length: 0\r\n", b"") + body


ONE_CHUNK = b"2\r\n{}\r\n0\r\n\r\n"

REFUSED = {
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2.0 in the request line": b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "unknown method": b"FOO /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "two equal lengths": post(b"{}", "Content-Length: 2", "Content-Length: 2"),
    "two lengths": post(b"{}", "Content-Length: 2", "Content-Length: 3"),
    "list of lengths": post(b"{}", "Content-Length: 2, 2"),
    "signed length": post(b"{}", "Content-Length: +2"),
    "negative length": post(b"{}", "Content-Length: -2"),
    "length and transfer encoding": post(ONE_CHUNK, "Transfer-Encoding: chunked"),
    "unknown transfer encoding": chunked(ONE_CHUNK, "Transfer-Encoding: xchunked"),
    "identity": chunked(b"", "Transfer-Encoding: identity"),
    "gzip, chunked": chunked(ONE_CHUNK, "Transfer-Encoding: gzip, chunked"),
    "two transfer encodings": chunked(ONE_CHUNK, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "chunked in HTTP/1.0": chunked(ONE_CHUNK, "Transfer-Encoding: chunked", version="1.0"),
    "huge chunk": chunked(b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    "chunk size no number": chunked(b"zz\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    "line feed in a chunk extension": chunked(b"2;\n\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    "two hosts": get("/healthz", "Host: other"),
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "bare line feeds": b"GET /healthz HTTP/1.1\nHost: x\n\n",
    "bare carriage return": b"GET /healthz HTTP/1.1\r\nHost: x\rfoo: y\r\n\r\n",
    "folded header": b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "space before the colon": b"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n",
    "NUL in a header": b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
    "broken header name": BROKEN_HEADER,
    "long header": get("/healthz", "A: " + "x" * 9000),
    "many headers": get("/healthz", *["A: x"] * 200),
    "long target": get("/" + "x" * 9000),
    "absolute target": get("http://gate/healthz"),
    "fragment": get("/healthz#x"),
    "asterisk": get("*", method="OPTIONS"),
    "CONNECT": get("gate:80", method="CONNECT"),
    "control character in the target": b"GET /health\x01z HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes above ASCII in the target": "GET /healthzé HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_no_proper_http_is_answered_400_in_json_and_closed(plane: Plane, name: str) -> None:
    """Two readings of one request are how smuggling begins: there is one answer, and the connection ends."""
    client = await plane.connect()
    await client.send(REFUSED[name])
    answer = await client.answer()
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert answer.headers["x-request-id"].startswith("req_")
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert await client.rest() == b""
    assert plane.calls == []


async def test_a_malformed_header_with_a_secret_is_neither_echoed_nor_logged(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    """aiohttp's own handler puts the offending line into the answer and the log, bearer secret included."""
    caplog.set_level(logging.DEBUG)
    client = await plane.connect()
    await client.send(BROKEN_HEADER)
    everything = (await client.answer()).raw_head + await client.rest()
    assert b"canary" not in everything
    assert "canary" not in caplog.text
    assert caplog.records == [] or all("canary" not in repr(record.__dict__) for record in caplog.records)


async def test_a_trickled_head_is_closed_at_its_deadline_however_many_bytes_come(serve: Serve) -> None:
    """A deadline that each byte renews is none: slowloris would hold the connection for ever."""
    plane = await serve(HASTY)
    client = await plane.connect()
    trickle = asyncio.create_task(_trickle(client, get("/healthz")))
    answer = await client.answer()
    assert (answer.status, answer.code) == (408, "request_timeout")
    assert await client.rest() == b""
    trickle.cancel()


async def test_a_trickled_body_is_answered_408_at_its_deadline(serve: Serve) -> None:
    plane = await serve(HASTY)
    client = await plane.connect()
    await client.send(post(b"", "Content-Length: 10000"))
    trickle = asyncio.create_task(_trickle(client, b" " * 10000))
    answer = await client.answer()
    assert (answer.status, answer.code, answer.headers["connection"]) == (408, "request_timeout", "close")
    assert await client.rest() == b""
    trickle.cancel()


async def test_a_connection_that_sends_nothing_is_closed_in_silence(serve: Serve) -> None:
    plane = await serve(HASTY)
    client = await plane.connect()
    assert await client.rest() == b""


async def test_an_idle_kept_connection_is_closed_at_the_idle_deadline(serve: Serve) -> None:
    plane = await serve(HASTY)
    client = await plane.connect()
    await client.send(get("/healthz"))
    assert (await client.answer()).status == 200
    assert await client.rest() == b""


async def test_the_head_of_a_second_request_has_its_own_deadline(serve: Serve) -> None:
    """On a kept connection the clock starts with the first byte, not with the idle deadline."""
    plane = await serve(Limits(headers_s=0.1, idle_s=60, linger_s=0.1, sweep_s=0.02))
    client = await plane.connect()
    await client.send(get("/healthz"))
    assert (await client.answer()).status == 200
    await client.send(b"GET /hea")
    assert (await client.answer()).status == 408


async def test_three_hundred_idle_connections_do_not_disturb_another_client(plane: Plane) -> None:
    """Idle connections cost a visit per second and nothing else."""
    await asyncio.gather(*(plane.connect() for _ in range(300)))
    await plane.until(lambda: plane.connections == 300)
    async with asyncio.timeout(1.0):
        for _ in range(20):
            assert (await plane.ask(get("/healthz"))).status == 200


async def test_connections_beyond_the_limit_get_503_and_are_closed(serve: Serve) -> None:
    plane = await serve(Limits(connections=2, sweep_s=0.02))
    first = await plane.connect()
    await plane.connect()
    await plane.until(lambda: plane.connections == 2)
    extra = await plane.connect()
    answer = await extra.answer()
    assert (answer.status, answer.code) == (503, "too_many_connections")
    assert await extra.rest() == b""
    await first.send(get("/healthz"))
    assert (await first.answer()).status == 200


async def test_pipelined_requests_are_answered_one_each_and_in_order(plane: Plane) -> None:
    """More than the parse-ahead queue holds, so that pausing and resuming is part of it."""
    client = await plane.connect()
    await client.send(b"".join(post({"n": n}) for n in range(100)))
    assert [(await client.answer()).json()["n"] for _ in range(100)] == list(range(100))
    assert len(plane.calls) == 100


async def test_rubbish_behind_a_request_is_answered_after_it(plane: Plane) -> None:
    """The first answer must not be overtaken or lost, and the rubbish reaches no handler."""
    release = asyncio.Event()

    async def journey(call: Any) -> None:
        await release.wait()
        await call.answer(200, {}, b"{}")

    plane.journey = journey
    client = await plane.connect()
    await client.send(post({}))
    await plane.until(lambda: len(plane.calls) == 1)
    await client.send(b"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n")
    await plane.until(lambda: plane.calls[0]._connection._ending)
    release.set()
    assert [(await client.answer()).status for _ in range(2)] == [200, 400]
    assert await client.rest() == b""


async def test_a_body_that_breaks_off_its_framing_is_one_400(plane: Plane) -> None:
    """The handler that waits for the body learns of it; aiohttp's would wait until its timeout."""
    client = await plane.connect()
    await client.send(chunked(b"1\r\n{\r\n", "Transfer-Encoding: chunked"))
    await plane.until(lambda: len(plane.calls) == 1)
    await client.send(b"rubbish\r\n")
    answer = await client.answer()
    assert (answer.status, answer.code) == (400, "bad_http")
    assert await client.rest() == b""


@pytest.mark.parametrize("size", [1, 7, 4096])
async def test_chunked_bodies_arrive_whole(plane: Plane, size: int) -> None:
    body = b'{"text":"' + b"x" * 9000 + b'"}'
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    wire = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nTrailer: x\r\n\r\n"
    client = await plane.connect()
    await client.send(chunked(wire, "Transfer-Encoding: chunked") + get("/healthz"))
    assert (await client.answer()).json() == {"text": "x" * 9000}
    assert (await client.answer()).status == 200


async def test_expect_100_continue_is_answered_before_the_body_is_sent(plane: Plane) -> None:
    """curl waits a second for it with any body above a kilobyte."""
    client = await plane.connect()
    await client.send(post(b"", "Content-Length: 2", "Expect: 100-continue"))
    assert (await client.answer()).status == 100
    await client.send(b"{}")
    assert (await client.answer()).status == 200


async def test_expect_100_continue_with_too_large_a_body_is_refused_before_it_is_sent(plane: Plane) -> None:
    client = await plane.connect()
    await client.send(post(b"", "Content-Length: 30000000", "Expect: 100-continue"))
    answer = await client.answer()
    assert (answer.status, answer.code) == (413, "body_too_large")


async def test_http_10_is_answered_and_closed(plane: Plane) -> None:
    client = await plane.connect()
    await client.send(get("/healthz", "Connection: keep-alive", version="1.0"))
    answer = await client.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await client.rest() == b""


async def test_connection_close_is_obeyed(plane: Plane) -> None:
    client = await plane.connect()
    await client.send(get("/healthz", "Connection: close"))
    assert (await client.answer()).headers["connection"] == "close"
    assert await client.rest() == b""


@pytest.mark.parametrize("upgrade", ["websocket", "h2c"])
async def test_an_upgrade_is_ignored_and_nothing_behind_it_is_read(plane: Plane, upgrade: str) -> None:
    client = await plane.connect()
    await client.send(get("/healthz", "Connection: Upgrade", f"Upgrade: {upgrade}") + get("/healthz"))
    answer = await client.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await client.rest() == b""


async def test_an_answer_reaches_a_client_that_is_still_sending(plane: Plane) -> None:
    """Closing with unread bytes would reset the connection under the answer."""
    client = await plane.connect()

    async def journey(call: Any) -> None:
        await call.answer(402, {}, b"{}")

    plane.journey = journey
    await client.send(post(b"", "Content-Length: 5000000"))
    await client.send(b"x" * 5_000_000)
    answer = await client.answer()
    assert (answer.status, answer.headers["connection"]) == (402, "close")


async def test_a_client_that_half_closes_still_gets_its_answer(plane: Plane) -> None:
    """As `printf … | nc` does it. For the journey it has gone, as far as anyone can tell."""
    client = await plane.connect()
    await client.send(get("/healthz"))
    client.writer.write_eof()
    assert (await client.answer()).status == 200
    assert await client.rest() == b""


async def test_a_client_that_takes_nothing_of_a_closed_answer_is_dropped(serve: Serve) -> None:
    """A graceful close waits for the reader, who may never come."""
    plane = await serve(HASTY)

    async def journey(call: Any) -> None:
        await call.answer(200, {}, b"x" * 50_000_000)

    plane.journey = journey
    client = await plane.connect()
    client.reader._transport.pause_reading()  # type: ignore[attr-defined]
    await client.send(post({}, "Connection: close"))
    await plane.until(lambda: len(plane.calls) == 1)
    await plane.until(lambda: plane.connections == 0)


async def test_a_query_does_not_carry_the_secret(plane: Plane) -> None:
    """A secret in a URL ends up in every log between here and there."""
    await plane.ask(post({}, "Authorization: ", path=f"{CHAT}?api_key={SECRET}&key={SECRET}"))
    assert plane.calls[0].secret is None


async def _trickle(client: Any, data: bytes) -> None:
    for byte in data:
        client.writer.write(bytes([byte]))
        await asyncio.sleep(0.03)
