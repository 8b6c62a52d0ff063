"""Connections to one upstream, and one exchange over one of them.

aiohttp's client session costs three times its connector and its parser (57 against 19 µs of CPU a call), for
cookies, redirects and middlewares that a gate must not have. So this goes one floor below it: connections,
TLS, DNS and pooling are the connector's; what is written and read is ours. All of aiohttp that is used below
its documented surface is in this file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import aiohttp
from aiohttp import ClientTimeout, TCPConnector
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader
from yarl import URL

from proxy.gateway.ports import UpstreamFailed
from proxy.telemetry.failpoints import reach

NEVER = float("inf")
KEEPALIVE_S = 15.0
# How long a connection waits for the end of an answer that has said [DONE], to be used again.
LINGER_S = 1.0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Deadlines of one upstream: to connect, to the first byte of the answer, and between two reads of it."""

    connect_s: float = 5.0
    first_byte_s: float = 600.0
    idle_s: float = 120.0


class Head(Protocol):
    """An answer's status and headers."""

    code: int
    headers: Mapping[str, str]


class UpstreamConnections:
    """The connections to one upstream. `headers` are sent with every request, before the exchange's own.

    `base_url` may have a query, which then follows every path.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str], timeouts: Timeouts) -> None:
        self._url = _checked(base_url)
        self._timeouts = timeouts
        self._connect_timeout = ClientTimeout(total=None, connect=timeouts.connect_s)
        self._fixed = _fixed_lines(self._url, headers)
        self._connector: TCPConnector | None = None
        self._target: ClientRequest | None = None
        self._lingering: set[_Lingering] = set()

    def head(self, method: str, path: str, query: str = "") -> bytes:
        """The request line for `path` (below the base URL, well-formed) and the fixed header lines."""
        queries = "&".join(each for each in (self._url.raw_query_string, query) if each)
        target = self._url.raw_path.rstrip("/") + path + (f"?{queries}" if queries else "")
        return f"{method} {target} HTTP/1.1\r\n".encode("ascii") + self._fixed

    async def send(self, head: bytes, body: bytes, headers: bytes = b"") -> tuple[Head, Exchange]:
        """Send and wait for the answer's head. `headers` are complete lines. Raises `UpstreamFailed`."""
        connection = await self._connect()
        try:
            protocol = connection.protocol
            assert protocol is not None
            assert protocol.transport is not None
            protocol.set_response_params(
                read_until_eof=True, auto_decompress=False, read_timeout=self._timeouts.first_byte_s
            )
            protocol.start_timeout()
            protocol.transport.write(b"%b%bcontent-length: %d\r\n\r\n%b" % (head, headers, len(body), body))
            reach("request_sent")
            answer, payload = await protocol.read()
            while 100 <= answer.code < 200 and answer.code != 101:
                answer, payload = await protocol.read()
        except asyncio.CancelledError:
            connection.close()
            raise
        except Exception as error:
            connection.close()
            raise failure_in_transit(error) from None
        return cast(Head, answer), Exchange(connection, payload, self._timeouts.idle_s, self._lingering)

    async def _connect(self) -> Connection:
        if self._connector is None:
            self._connector = TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S)
            self._connector._factory = cast(Any, partial(_Protocol, asyncio.get_running_loop()))
            self._target = ClientRequest("POST", self._url, loop=asyncio.get_running_loop())
        assert self._target is not None
        try:
            return await self._connector.connect(self._target, [], self._connect_timeout)
        except TimeoutError:
            raise UpstreamFailed(
                "unsent", "upstream_connect_timeout", "The model's provider could not be reached in time."
            ) from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise UpstreamFailed(
                "unsent", "upstream_unreachable", "The model's provider could not be reached."
            ) from None

    async def close(self) -> None:
        for each in list(self._lingering):
            each.give_up()
        if self._connector is not None:
            await self._connector.close()
            self._connector = self._target = None


class _Protocol(ResponseHandler):
    """aiohttp's client protocol without what it does anew for every read.

    It makes a timer for each, and asks for reading to be resumed that was never paused (which parses nothing
    once more). Here one timer looks, when it runs out, at what is due by then; and only a pause is resumed.
    """

    _due = NEVER
    _rings_at = NEVER

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def _reschedule_timeout(self) -> None:
        if not self._read_timeout:
            self._due = NEVER
            return
        self._due = due = self._loop.time() + self._read_timeout
        if due < self._rings_at:
            self._ring(due)

    def _drop_timeout(self) -> None:
        self._due = NEVER

    def _ring(self, at: float) -> None:
        if self._read_timeout_handle is not None:
            self._read_timeout_handle.cancel()
        self._rings_at = at
        self._read_timeout_handle = self._loop.call_at(at, self._on_read_timeout)

    def _on_read_timeout(self) -> None:
        self._read_timeout_handle, self._rings_at = None, NEVER
        if self._due <= self._loop.time():
            super()._on_read_timeout()
        elif self._due is not NEVER:
            self._ring(self._due)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self._read_timeout_handle is not None:
            self._read_timeout_handle.cancel()
            self._read_timeout_handle = None


class Exchange:
    """One answer's body, read as it comes."""

    __slots__ = ("_begun", "_connection", "_idle_s", "_lingering", "_payload")

    def __init__(
        self, connection: Connection, payload: StreamReader, idle_s: float, lingering: set[_Lingering]
    ) -> None:
        self._connection: Connection | None = connection
        self._payload = payload
        self._idle_s = idle_s
        self._begun = False
        self._lingering = lingering

    async def some(self) -> bytes:
        """What has come, waiting for it; empty at the clean end. Raises `UpstreamFailed`."""
        try:
            data = await self._payload.readany()
        except asyncio.CancelledError:
            self.drop()
            raise
        except Exception as error:
            self.drop()
            raise failure_in_transit(error) from None
        if not self._begun:
            self._begun = True
            protocol = self._connection.protocol if self._connection is not None else None
            if protocol is not None and not self._payload.is_eof():
                protocol.read_timeout = self._idle_s
                protocol.start_timeout()
        if not data:
            self.finish()
        return data

    async def whole(self, most: int) -> bytes:
        """All of it; `UpstreamFailed` (unknown) above `most` bytes."""
        data = await self.some()
        if self._payload.is_eof() and len(data) <= most and self._payload.at_eof():
            self.finish()
            return data
        parts, size = [], 0
        while data:
            parts.append(data)
            size += len(data)
            if size > most:
                self.drop()
                message = f"The model's provider answered with more than {most} bytes."
                raise UpstreamFailed("unknown", "upstream_unreadable", message)
            data = await self.some()
        return b"".join(parts)

    def finish(self) -> None:
        """No more will be read. The connection is used again if the answer ends properly within a moment."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._payload.is_eof():
            connection.release()
        else:
            _Lingering(connection, self._payload, self._lingering)

    def drop(self) -> None:
        """Close the connection; whoever waits in `some` gets `UpstreamFailed`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            self._payload.set_exception(_Dropped())


class _Dropped(Exception):
    """The exchange was given up on our side."""


class _Lingering:
    """A connection whose answer was read as far as it matters, but has not ended."""

    __slots__ = ("_all", "_connection", "_timer")

    def __init__(self, connection: Connection, payload: StreamReader, everyone: set[_Lingering]) -> None:
        self._connection = connection
        self._all = everyone
        self._timer = asyncio.get_running_loop().call_later(LINGER_S, self.give_up)
        everyone.add(self)
        payload.on_eof(self._ended)

    def _ended(self) -> None:
        self._timer.cancel()
        self._all.discard(self)
        self._connection.release()

    def give_up(self) -> None:
        self._timer.cancel()
        self._all.discard(self)
        self._connection.close()


def failure_in_transit(error: Exception) -> UpstreamFailed:
    """What went wrong after the request had left: nobody knows what the provider made of it."""
    if isinstance(error, _Dropped):
        return UpstreamFailed("unknown", "aborted", "The call to the model's provider was given up.")
    if isinstance(error, TimeoutError):
        return UpstreamFailed("unknown", "upstream_timeout", "The model's provider did not answer in time.")
    if isinstance(error, aiohttp.ClientPayloadError):
        message = "The model's provider broke off in the middle of its answer."
        return UpstreamFailed("unknown", "upstream_reset", message)
    if isinstance(error, aiohttp.ClientError | OSError | RuntimeError):
        message = "The model's provider closed the connection before it answered."
        return UpstreamFailed("unknown", "upstream_reset", message)
    if isinstance(error, HttpProcessingError | ValueError):
        message = "The model's provider did not answer in HTTP that can be read."
        return UpstreamFailed("unknown", "upstream_unreadable", message)
    raise error


def _checked(url: str) -> URL:
    parsed = URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{url!r} is no upstream address: it must begin with https:// or http:// and a host")
    if parsed.user or parsed.password:
        raise ValueError("an upstream address carries no user or password; the key goes into api_key_env")
    return parsed.with_fragment(None)


def _fixed_lines(url: URL, headers: Mapping[str, str]) -> bytes:
    host = url.raw_host or ""
    host = f"[{host}]" if ":" in host else host
    port = "" if url.is_default_port() else f":{url.port}"
    lines = [f"host: {host}{port}"]
    for name, value in headers.items():
        if not value.isascii() or not value.isprintable():
            raise ValueError(f"the {name} header for {url.host} would carry characters that no header may")
        lines.append(f"{name}: {value}")
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")
