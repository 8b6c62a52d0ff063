"""What a server knows of all its connections: limits, one sweep per second, and the drain at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Protocol

from proxy.gateway.ports import Clock
from proxy.web.whole_requests import Payload, RequestHead


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may take of us. Seconds are absolute deadlines; a byte does not renew them."""

    headers_s: float = 10.0
    body_s: float = 30.0
    idle_s: float = 75.0
    stall_s: float = 60.0
    linger_s: float = 5.0
    sweep_s: float = 1.0
    body_bytes: int = 20 * 1024 * 1024
    connections: int = 4096


class Exchange(Protocol):
    """What a connection must know of the call that it is answering."""

    request_id: str

    @property
    def keeps(self) -> bool:
        """Whether the connection may serve another request after this one."""
        ...

    def leave(self) -> None:
        """The client has left."""
        ...


class Member(Protocol):
    """What the listener asks of a connection."""

    def check(self, now: float) -> None:
        """The sweep's visit at `now` (loop time)."""
        ...

    def retire(self) -> None:
        """Close as soon as nothing is being answered."""
        ...

    def abort(self) -> None:
        """Drop it at once."""
        ...


class Listener:
    """All connections of one server: knows them, counts them, sweeps their deadlines once per second.

    `serve` answers one call and never raises. `fault` hears of what did go wrong in the transport's own code
    (a request id and an exception, never content).
    """

    def __init__(
        self,
        make_call: Callable[[Any, RequestHead, Payload], Exchange],
        serve: Callable[[Any], Awaitable[None]],
        *,
        new_request_id: Callable[[], str],
        clock: Clock,
        fault: Callable[[str, BaseException], None],
        limits: Limits,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.make_call = make_call
        self.serve = serve
        self.new_request_id = new_request_id
        self.fault = fault
        self.limits = limits
        self.draining = False
        self.connections: set[Member] = set()
        self.busy: set[Member] = set()
        self._clock = clock
        self._emptied = asyncio.Event()
        self.date = ""
        self._sweep()

    def _sweep(self) -> None:
        now = self.loop.time()
        self.date = formatdate(self._clock.now_us() // 1_000_000, usegmt=True)
        for connection in tuple(self.connections):
            connection.check(now)
        self._timer = self.loop.call_later(self.limits.sweep_s, self._sweep)

    def left(self) -> None:
        """Something ended; wakes whoever drains once nothing is left."""
        if self.draining and not self.connections and not self.busy:
            self._emptied.set()

    async def drain(self, drain_s: float) -> int:
        """Close what is idle, wait for what is being answered; returns how many calls had to be cut."""
        self.draining = True
        for connection in tuple(self.connections):
            connection.retire()
        self.left()
        try:
            async with asyncio.timeout(drain_s):
                await self._emptied.wait()
        except TimeoutError:
            pass
        finally:
            self._timer.cancel()
        cut = len(self.busy)
        for connection in tuple(self.connections):
            connection.abort()
        return cut
