"""The connection that the scripts travel on: one per process, made for many small calls at once.

Commands of one turn of the event loop go out in one write, and so do those that come while a write is being
answered: alone a command goes out at once, in a crowd they share their system calls. Replies come in order.
redis-py opens the connection (URL, ACL user, TLS, socket, database) and hands over its transport. While Redis is
away every call is refused at once; getting it back is this object's own affair.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, cast

import hiredis
import structlog
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.exceptions import RedisError

from proxy.budgets.scripts import Argument, StoreRefused
from proxy.gateway.ports import StoreAway

DEADLINE_S = 0.2
WAITING_MAX = 10_000
RECONNECT_FIRST_S = 0.05
RECONNECT_MOST_S = 1.0

# After the deadline the loop gets this long to read what may already lie in the socket: a loop that was itself
# held up must not take that for a silent Redis.
GRACE_S = 0.02

log = structlog.get_logger(__name__)


class HotConnection(asyncio.Protocol):
    """Sends commands and answers with futures; `StoreAway` if Redis did not answer within `deadline_s`.

    A call that failed so may have been carried out all the same. `StoreRefused`, a kind of it, carries an
    error that Redis answered with. At most `waiting_max` commands wait for a reply.
    """

    def __init__(self, url: str, *, deadline_s: float = DEADLINE_S, waiting_max: int = WAITING_MAX) -> None:
        self._url = url
        self._deadline_s = deadline_s
        self._waiting_max = waiting_max
        self._transport: asyncio.Transport | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._sent_at: deque[float] = deque()
        self._unsent: list[bytes] = []
        self._turn_began = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._away = "not connected yet"
        self._closed = False
        self.generation = 0
        """How many times it has connected: another generation may be another server, or an older state of it."""

    async def start(self) -> None:
        """Connects. If Redis is away this returns all the same, and goes on trying."""
        self._loop = asyncio.get_running_loop()
        try:
            await self._connect()
        except StoreAway as away:
            self._lose(str(away))

    @property
    def connected(self) -> bool:
        return self._transport is not None

    def send(self, command: tuple[Argument, ...]) -> asyncio.Future[Any]:
        """Queues one command for the next write: the end of this turn of the loop, or the answer to the last."""
        if self._transport is None:
            raise StoreAway(self._away, sent=False)
        if len(self._waiting) >= self._waiting_max:
            raise StoreAway(f"{self._waiting_max} commands wait for Redis already", sent=False)
        packed = hiredis.pack_command(command)  # type: ignore[arg-type]
        if not self._unsent:
            self._turn_began = self._loop.time()
            if not self._waiting:
                self._loop.call_soon(self._write)
            if self._watch is None:
                self._watch = self._loop.call_at(self._turn_began + self._deadline_s, self._check_deadline)
        self._unsent.append(packed)
        reply: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(reply)
        self._sent_at.append(self._turn_began)
        return reply

    async def close(self) -> None:
        """Ends the connection; whoever still waits gets `StoreAway`."""
        self._closed = True
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            await asyncio.gather(self._reconnecting, return_exceptions=True)
        self._drop("the connection was closed")

    def _write(self) -> None:
        if self._transport is not None and self._unsent:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def data_received(self, data: bytes) -> None:
        reader, waiting, sent_at = self._reader, self._waiting, self._sent_at
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                future = waiting.popleft()
                sent_at.popleft()
                if future.done():
                    continue
                if type(reply) is hiredis.ReplyError:
                    future.set_exception(StoreRefused(str(reply)))
                else:
                    future.set_result(reply)
            if self._unsent and len(waiting) == len(self._unsent):
                # Soon, not now: whoever has just been answered may have something to add.
                self._loop.call_soon(self._write)
        except (hiredis.ProtocolError, IndexError) as fault:
            self._lose(f"Redis answered out of turn ({fault!r})")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._lose(f"Redis closed the connection ({exc})" if exc else "Redis closed the connection")

    def _check_deadline(self) -> None:
        """One timer for all that wait: the head of the queue has waited longest."""
        self._watch = None
        if not self._sent_at:
            return
        due = self._sent_at[0] + self._deadline_s
        if due > self._loop.time():
            self._watch = self._loop.call_at(due, self._check_deadline)
        else:
            self._watch = self._loop.call_later(GRACE_S, self._give_up, self._waiting[0])

    def _give_up(self, overdue: asyncio.Future[Any]) -> None:
        self._watch = None
        if self._waiting and self._waiting[0] is overdue:
            self._lose(f"Redis did not answer within {self._deadline_s * 1000:.0f} ms")
        else:
            self._check_deadline()

    def _lose(self, why: str) -> None:
        """Drops the connection, tells all who wait, and sees to it that another one is made."""
        self._drop(why)
        if not self._closed and self._reconnecting is None:
            log.warning("store_away", why=why)
            self._reconnecting = self._loop.create_task(self._reconnect())

    def _drop(self, why: str) -> None:
        self._away = why
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._unsent.clear()
        self._sent_at.clear()
        while self._waiting:
            reply = self._waiting.popleft()
            if not reply.done():
                reply.set_exception(StoreAway(why))

    async def _reconnect(self) -> None:
        pause_s = RECONNECT_FIRST_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RECONNECT_MOST_S)
            try:
                await self._connect()
            except StoreAway as away:
                self._away = str(away)
            else:
                break
        self._reconnecting = None
        log.info("store_back")

    async def _connect(self) -> None:
        """Lets redis-py connect and log in, then takes its transport over."""
        connection = self._redis_py_connection()
        try:
            async with asyncio.timeout(4 * self._deadline_s):
                await connection.connect()  # type: ignore[no-untyped-call]
        except (RedisError, OSError, TimeoutError) as fault:
            await connection.disconnect(nowait=True)
            raise StoreAway(f"Redis cannot be reached: {fault or type(fault).__name__}") from fault
        # The writer closes the transport when it is collected, so it is kept as long as the transport.
        self._writer, connection._writer, connection._reader = connection._writer, None, None
        assert self._writer is not None
        self._transport = cast(asyncio.Transport, self._writer.transport)
        self._reader = hiredis.Reader()
        self.generation += 1
        self._transport.set_protocol(self)

    def _redis_py_connection(self) -> AbstractConnection:
        options: dict[str, Any] = dict(parse_url(self._url))
        kind: type[AbstractConnection] = options.pop("connection_class", Connection)
        options |= {"socket_timeout": self._deadline_s, "socket_connect_timeout": self._deadline_s}
        # No server pushes on protocol 2, so that every message is somebody's reply.
        options |= {"protocol": 2, "driver_info": None}
        return kind(**options)
