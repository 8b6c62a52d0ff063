"""An exchange with an upstream whose head has come: its body, and what becomes of the connection."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

import aiohttp
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader

from proxy.gateway.ports import UpstreamFailed

KEEPALIVE_S = 15.0
# How long a connection waits for the end of an answer that has said [DONE], to be used again.
LINGER_S = 1.0


class Exchange(Protocol):
    """One answer's body, read as it comes."""

    async def some(self) -> bytes:
        """What has come, waiting for it; empty at the clean end. Raises `UpstreamFailed`."""
        ...

    async def whole(self, most: int) -> bytes:
        """All of it; `UpstreamFailed` (unknown) above `most` bytes."""
        ...

    def finish(self) -> None:
        """No more will be read. The connection is used again if the answer ends properly within a moment."""
        ...

    def drop(self) -> None:
        """Close the connection; whoever waits in `some` gets `UpstreamFailed`."""
        ...


class BegunExchange:
    """An `Exchange` of which the head has come."""

    __slots__ = ("_begun", "_connection", "_idle", "_idle_s", "_lingering", "_payload")

    def __init__(
        self,
        connection: Connection,
        payload: StreamReader,
        idle_s: float,
        idle: Idle,
        lingering: set[Lingering],
    ) -> None:
        self._idle = idle
        self._connection: Connection | None = connection
        self._payload = payload
        self._idle_s = idle_s
        self._begun = False
        self._lingering = lingering

    async def some(self) -> bytes:
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
                raise too_long(most)
            data = await self.some()
        return b"".join(parts)

    def finish(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._payload.is_eof():
            self._idle.put(connection)
        else:
            Lingering(connection, self._payload, self._idle, self._lingering)

    def drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            self._payload.set_exception(_Dropped())


class _Dropped(Exception):
    """The exchange was given up on our side."""


class Lingering:
    """A connection whose answer was read as far as it matters, but has not ended."""

    __slots__ = ("_all", "_connection", "_idle", "_timer")

    def __init__(
        self, connection: Connection, payload: StreamReader, idle: Idle, everyone: set[Lingering]
    ) -> None:
        self._connection = connection
        self._idle = idle
        self._all = everyone
        self._timer = asyncio.get_running_loop().call_later(LINGER_S, self.give_up)
        everyone.add(self)
        payload.on_eof(self._ended)

    def _ended(self) -> None:
        self._timer.cancel()
        self._all.discard(self)
        self._idle.put(self._connection)

    def give_up(self) -> None:
        self._timer.cancel()
        self._all.discard(self)
        self._connection.close()


def too_long(most: int) -> UpstreamFailed:
    message = f"The model's provider answered with more than {most} bytes."
    return UpstreamFailed("unknown", "upstream_unreadable", message)


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


class Idle:
    """Connections that wait to be used again, the newest first; the connector makes them and knows nothing of it,
    since its own pool costs more than all that is needed of one."""

    __slots__ = ("_connections", "_timer")

    def __init__(self) -> None:
        self._connections: deque[tuple[Connection, float]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def take(self) -> Connection | None:
        while self._connections:
            connection, _ = self._connections.pop()
            protocol = connection.protocol
            if protocol is not None and protocol.is_connected() and not protocol.should_close:
                return connection
            connection.close()
        return None

    def put(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        self._connections.append((connection, loop.time() + KEEPALIVE_S))
        if self._timer is None:
            self._timer = loop.call_later(KEEPALIVE_S, self._expire)

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._connections and self._connections[0][1] <= loop.time():
            self._connections.popleft()[0].close()
        if self._connections:
            self._timer = loop.call_at(self._connections[0][1], self._expire)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._connections:
            self._connections.pop()[0].close()
