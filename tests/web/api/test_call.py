"""The way in and the way back of one call: faults of bodies, secrets, streams, slow and gone clients."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from data_plane import SECRET, Plane, post

from proxy.domain.refusals import Refusal, Refused
from proxy.web.listener import Limits

Serve = Callable[..., Awaitable[Plane]]


async def stream(call: Any) -> None:
    """Two chunks and a tail, whatever was asked."""
    await call.begin(200, {"content-type": "text/event-stream"})
    await call.write(b"data: 1\n\n")
    await call.write(b"")
    await call.write(b"data: 2\n\n")
    await call.end(b"data: [DONE]\n\n")


async def test_a_body_is_understood_and_answered_on_a_kept_connection(plane: Plane) -> None:
    client = await plane.connect()
    for _ in range(3):
        await client.send(post({"model": "a", "n": 1.5, "emoji": "😀"}))
        answer = await client.answer()
        assert (answer.status, answer.json()) == (200, {"model": "a", "n": 1.5, "emoji": "😀"})
        assert "connection" not in answer.headers
        assert answer.headers["date"] == "Fri, 20 Nov 2026 12:00:00 GMT"
    assert len({call.request_id for call in plane.calls}) == 3


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        (["Content-Encoding: gzip"], 415, "unsupported_content_encoding"),
        (["Content-Encoding: identity"], 415, "unsupported_content_encoding"),
        (["Content-Type: application/x-www-form-urlencoded"], 415, "unsupported_content_type"),
        (["Content-Type: text/plain"], 415, "unsupported_content_type"),
        (["Content-Type: multipart/form-data; boundary=x"], 415, "unsupported_content_type"),
        (["Content-Type: application/json; charset=utf-8"], 200, None),
        (["Content-Type: Application/JSON"], 200, None),
        (["Content-Type: application/vnd.api+json"], 200, None),
        (["Content-Type: "], 200, None),
    ],
)
async def test_how_the_body_is_declared(plane: Plane, headers: list[str], status: int, code: str | None) -> None:
    """Only plain JSON is read; curl without -H says form, and is told what to set."""
    answer = await plane.ask(post({}, *headers))
    assert answer.status == status
    assert code is None or (answer.code == code and answer.json()["error"]["type"] == "invalid_request_error")


async def test_thirty_megabytes_are_refused_at_once_and_not_read(plane: Plane) -> None:
    """The declared size decides: nobody waits for 30 MB in order to refuse them."""
    client = await plane.connect()
    started = time.perf_counter()
    await client.send(post(b"{", "Content-Length: 30000000"))
    answer = await client.answer()
    assert (answer.status, answer.code, answer.headers["connection"]) == (413, "body_too_large", "close")
    assert time.perf_counter() - started < 0.05


async def test_an_undeclared_length_is_refused_once_it_is_too_much(serve: Serve) -> None:
    plane = await serve(Limits(body_bytes=10_000, sweep_s=0.02))
    client = await plane.connect()
    request = post(b"", "Transfer-Encoding: chunked", "Content-Length: 0")
    await client.send(request.replace(b"Content-Length: 0\r\n", b""))
    await client.send(b"2000\r\n" + b" " * 0x2000 + b"\r\n")
    await client.send(b"2000\r\n" + b" " * 0x2000 + b"\r\n")
    assert (await client.answer()).status == 413


async def test_a_body_of_nearly_the_limit_passes(serve: Serve) -> None:
    plane = await serve(Limits(body_bytes=4_000_000, sweep_s=0.02))
    body = b'{"a":"' + b"x" * 3_900_000 + b'"}'
    answer = await plane.ask(post(body))
    assert (answer.status, len(answer.body)) == (200, len(body) + 1)


async def test_a_body_that_is_read_late_is_held_back_and_then_read_whole(plane: Plane) -> None:
    """Until the caller is known, its 20 MB wait in the sender's memory and not in ours."""

    async def journey(call: Any) -> None:
        await plane.until(lambda: call._connection._reading_paused)
        assert call._payload.total_bytes < 2_000_000
        await call.answer(200, {}, b"%d" % len((await call.json())["a"]))

    plane.journey = journey
    client = await plane.connect()
    for _ in range(2):
        client.writer.write(post(b'{"a":"' + b"x" * 10_000_000 + b'"}'))
        assert (await client.answer()).body == b"10000000"


@pytest.mark.parametrize(
    ("headers", "secret"),
    [
        ([f"Authorization: Bearer {SECRET}"], SECRET),
        ([f"Authorization: bearer   {SECRET} "], SECRET),
        (["Authorization: ", f"x-api-key: {SECRET}"], SECRET),
        (["Authorization: Bearer ", f"Api-Key: {SECRET}"], SECRET),
        (["Authorization: Basic YTpi", f"x-goog-api-key: {SECRET}"], SECRET),
        ([f"Authorization: Bearer {SECRET}", f"x-api-key: {SECRET}"], SECRET),
        ([f"Authorization: Bearer {SECRET}", "x-api-key: other"], None),
        ([f"Authorization: Bearer {SECRET}", "Authorization: Bearer other"], None),
        ([f"Authorization: Bearer {SECRET}", "api-key: a", "x-goog-api-key: b"], None),
        ([f"Authorization: {SECRET}"], None),
        ([f"Authorization: Basic {SECRET}"], None),
        (["Authorization: ", f"Cookie: api-key={SECRET}"], None),
    ],
)
async def test_where_the_secret_comes_from(plane: Plane, headers: list[str], secret: str | None) -> None:
    """Two different secrets could be two different customers: then there is none."""
    await plane.ask(post({}, *headers))
    assert plane.calls[0].secret == secret


async def test_a_header_from_upstream_cannot_begin_another(plane: Plane) -> None:
    """Response splitting: a line break in a value would forge headers, or a whole second answer."""

    async def journey(call: Any) -> None:
        await call.answer(200, {"faregate-model": "a\r\nset-cookie: x\n\r\0b", "x": "ü\udcff€"}, b"{}")

    plane.journey = journey
    answer = await plane.ask(post({}))
    assert "set-cookie" not in answer.headers
    assert answer.headers["faregate-model"] == "a  set-cookie: x   b"
    assert answer.body == b"{}"


async def test_a_stream_is_chunks_and_its_tail_shares_a_write_with_the_end(plane: Plane) -> None:
    """Clients close right after [DONE]; a terminating chunk in a later packet would hit a closed socket."""
    client = await plane.connect()
    writes: list[bytes] = []

    async def journey(call: Any) -> None:
        if len(plane.calls) == 1:
            call._connection.transport = Recorder(call._connection.transport, writes)
        await stream(call)

    plane.journey = journey
    for _ in range(2):
        await client.send(post({}))
        answer = await client.answer()
        assert answer.body == b"data: 1\n\ndata: 2\n\ndata: [DONE]\n\n"
        assert answer.headers["x-request-id"] == plane.calls[-1].request_id
    assert writes[3] == b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
    assert len(writes) == 8


async def test_a_stream_to_http_10_ends_with_the_connection(plane: Plane) -> None:
    plane.journey = stream
    answer = await plane.ask(post({}, version="1.0"))
    assert "transfer-encoding" not in answer.headers
    assert answer.body == b"data: 1\n\ndata: 2\n\ndata: [DONE]\n\n"


async def test_a_cut_stream_has_no_clean_end(plane: Plane) -> None:
    """A terminating chunk would tell the client that the answer is complete."""

    async def journey(call: Any) -> None:
        await call.begin(200, {})
        await call.write(b"data: 1\n\n")
        call.cut()

    plane.journey = journey
    client = await plane.connect()
    await client.send(post({}))
    assert not (await client.rest()).endswith(b"0\r\n\r\n")


async def test_a_slow_reader_bounds_what_is_held_and_one_who_takes_nothing_is_gone(serve: Serve) -> None:
    """One client that does not read must not fill our memory, nor hold its reservation for ever."""
    plane = await serve(Limits(stall_s=0.2, sweep_s=0.02))
    held: list[int] = []
    told: list[bool] = []

    async def journey(call: Any) -> None:
        call.when_gone(lambda: told.append(True))
        await call.begin(200, {})
        for _ in range(200):
            await call.write(b"x" * 500_000)
            if call.gone:
                return
            held.append(call._connection.transport.get_write_buffer_size())
        await call.end(b"")

    plane.journey = journey
    client = await plane.connect()
    client.reader._transport.pause_reading()  # type: ignore[attr-defined]
    await client.send(post({}))
    await plane.until(lambda: bool(told))
    await plane.until(lambda: plane.plane.in_flight == 0)
    assert told == [True]
    assert max(held, default=0) <= 256 * 1024


async def test_a_reader_who_takes_a_little_is_waited_for(serve: Serve) -> None:
    """Slow is not gone: the deadline is for taking nothing at all."""
    plane = await serve(Limits(stall_s=0.3, sweep_s=0.02))
    size = 60 * 500_000

    async def journey(call: Any) -> None:
        await call.begin(200, {})
        for _ in range(60):
            await call.write(b"x" * 500_000)
        await call.end(b"")

    plane.journey = journey
    client = await plane.connect()
    await client.send(post({}))
    taken = 0
    while taken < size:
        async with asyncio.timeout(2):
            data = await client.reader.read(1_000_000)
        assert data
        taken += len(data)
        await asyncio.sleep(0.005)


async def test_a_call_learns_that_its_client_has_gone(plane: Plane) -> None:
    """Handler cancellation is off: the journey must be told, or an abandoned call runs to its end."""
    told = asyncio.Event()
    done = asyncio.Event()

    async def journey(call: Any) -> None:
        call.when_gone(told.set)
        await told.wait()
        assert call.gone
        again: list[int] = []
        call.when_gone(lambda: again.append(1))
        assert again == [1]
        await call.begin(200, {})
        await call.write(b"x" * 1_000_000)
        await call.end(b"x")
        done.set()

    plane.journey = journey
    client = await plane.connect()
    await client.send(post({}))
    await plane.until(lambda: len(plane.calls) == 1)
    client.close()
    async with asyncio.timeout(2):
        await done.wait()


async def test_a_withdrawn_wish_to_know_is_respected(plane: Plane) -> None:
    told: list[int] = []
    finish = asyncio.Event()

    async def journey(call: Any) -> None:
        call.when_gone(lambda: told.append(1))
        call.when_gone(None)
        await finish.wait()
        await call.answer(200, {}, b"")

    plane.journey = journey
    client = await plane.connect()
    await client.send(post({}))
    await plane.until(lambda: len(plane.calls) == 1)
    client.close()
    await plane.until(lambda: plane.calls[0].gone)
    finish.set()
    await plane.until(lambda: plane.plane.in_flight == 0)
    assert told == []


async def test_a_client_that_leaves_in_mid_body_ends_the_wait_for_it(plane: Plane) -> None:
    seen: list[str | None] = []

    async def journey(call: Any) -> None:
        try:
            await call.json()
        except Refused as refused:
            seen.append(refused.refusal.code)
            raise

    plane.journey = journey
    client = await plane.connect()
    await client.send(post(b"{", "Content-Length: 100"))
    await plane.until(lambda: len(plane.calls) == 1)
    client.close()
    await plane.until(lambda: seen == ["client_gone"])


async def test_a_refusal_before_the_body_was_read_closes_the_connection(plane: Plane) -> None:
    """Its unread body must not be taken for the next request."""

    async def journey(call: Any) -> None:
        raise Refused(Refusal("unauthenticated", "", 401))

    plane.journey = journey
    client = await plane.connect()
    await client.send(post(b"GET ", "Content-Length: 100"))
    answer = await client.answer()
    assert (answer.status, answer.headers["connection"]) == (401, "close")
    assert json.loads(answer.body)["error"]["code"] == "invalid_api_key"


async def test_answering_twice_is_a_fault_of_ours(plane: Plane) -> None:
    """Two heads on one request would shift every later answer of the connection."""

    async def journey(call: Any) -> None:
        await call.answer(200, {}, b"1")
        await call.answer(200, {}, b"2")

    plane.journey = journey
    client = await plane.connect()
    await client.send(post({}))
    await client.rest()
    assert [type(fault) for fault in plane.faults] == [RuntimeError]
    plane.faults.clear()


class Recorder:
    """A transport that notes each write."""

    def __init__(self, transport: Any, writes: list[bytes]) -> None:
        self._transport, self._writes = transport, writes

    def write(self, data: bytes) -> None:
        self._writes.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
