"""The listener under clients that speak badly."""

from __future__ import annotations

import asyncio
import logging

import pytest

from proxy.web.admin import listener
from tests.doubles.admin import TOKEN, AdminPlane

CANARY = "fg_live_canary_0123456789"


async def exchange(plane: AdminPlane, sent: bytes, most: int = -1) -> bytes:
    """What comes back until the connection is closed, or the first of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", plane.port)
    writer.write(sent)
    try:
        async with asyncio.timeout(5):
            return await reader.read(most)
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "sent",
    [
        f"GET /{CANARY} NONSENSE\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: a\r\nAuthorization\x00: {CANARY}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: a\r\n{CANARY}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: a\r\nX: {CANARY}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
)
async def test_what_cannot_be_parsed_is_400_in_json_and_is_neither_echoed_nor_logged(
    plane: AdminPlane, sent: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A client with a bug puts its token into a broken header; the log is read by many."""
    caplog.set_level(logging.DEBUG)

    answer = await exchange(plane, sent.encode())

    assert answer[8:13] == b" 400 "
    assert b'"code":"bad_request"' in answer
    assert CANARY.encode() not in answer
    assert CANARY not in caplog.text


async def test_a_connection_that_asks_for_nothing_is_closed(
    plane: AdminPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Idle connections would pile up in the keeper."""
    monkeypatch.setattr(listener, "HEADERS_WAIT_S", 0.05)

    assert await exchange(plane, b"GET /healthz HT") == b""


async def test_a_body_that_trickles_is_408(plane: AdminPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every wait has a deadline."""
    monkeypatch.setattr("proxy.web.admin.reading.BODY_WAIT_S", 0.05)
    head = f"POST /admin/v1/customers HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n"

    sent = f"{head}Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{{"
    answer = await exchange(plane, sent.encode(), 4096)

    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_compressed_body_is_refused_before_it_is_unpacked(plane: AdminPlane) -> None:
    """A few kilobytes of gzip are gigabytes of JSON."""
    head = f"POST /admin/v1/customers HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n"
    kind = "Content-Type: application/json\r\nContent-Encoding: gzip\r\nConnection: close\r\n"

    answer = await exchange(plane, f"{head}{kind}Content-Length: 2\r\n\r\n{{}}".encode())

    assert answer.startswith(b"HTTP/1.1 415 ")
