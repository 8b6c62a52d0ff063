"""The data plane's listener: connections in, routes behind, and an orderly end.

`serve_data_plane` binds and serves; `DataPlane.drain` stops accepting, lets what is being answered finish
and says how many calls it had to cut. A worker has one.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from proxy.domain.refusals import Refused
from proxy.gateway.ports import Clock
from proxy.web.api.call import HttpCall
from proxy.web.api.routes import Catalogue, Journey, Routes, Stored
from proxy.web.connection import Connection
from proxy.web.errors import error_response, fault_response, wire_of
from proxy.web.listener import Limits, Listener
from proxy.web.whole_requests import Payload, RequestHead

BACKLOG = 1024

Fault = Callable[[str, BaseException], None]
"""Hears of an unexpected exception: the request's id and the exception, whose text may hold content."""


class DataPlane:
    """A bound and serving data plane. `port` is the one that was really bound."""

    def __init__(
        self,
        *,
        journey: Journey,
        stored: Stored,
        catalogue: Catalogue,
        not_ready: Callable[[], str | None],
        new_request_id: Callable[[], str],
        clock: Clock,
        fault: Fault,
        limits: Limits,
        details: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self._not_ready = not_ready
        self._fault = fault
        self._new_request_id = new_request_id
        self._routes = Routes(journey, catalogue, self._missing, stored, details)
        self._listener = Listener(
            self._make_call,
            self._serve,
            new_request_id=new_request_id,
            clock=clock,
            fault=fault,
            limits=limits,
        )
        self._server: asyncio.Server | None = None
        self.port = 0

    async def bind(self, sock: socket.socket | None, host: str | None, port: int, reuse_port: bool) -> None:
        loop = asyncio.get_running_loop()
        if sock is not None:
            self._server = await loop.create_server(self._connection, sock=sock, backlog=BACKLOG)
        else:
            self._server = await loop.create_server(
                self._connection, host, port, reuse_port=reuse_port or None, backlog=BACKLOG
            )
        self.port = int(self._server.sockets[0].getsockname()[1])

    @property
    def in_flight(self) -> int:
        """How many calls are being answered at this moment."""
        return len(self._listener.busy)

    async def drain(self, drain_s: float) -> int:
        """Stop accepting, close idle connections, wait for calls in flight; returns how many were cut."""
        if self._server is not None:
            self._server.close()
        return await self._listener.drain(drain_s)

    def _missing(self) -> str | None:
        return "This worker is draining." if self._listener.draining else self._not_ready()

    def _connection(self) -> Connection:
        return Connection(self._listener)

    def _make_call(self, connection: Connection, request: RequestHead, payload: Payload) -> HttpCall:
        return HttpCall(connection, request, payload, self._new_request_id())

    async def _serve(self, call: HttpCall) -> None:
        """One call to its answer, whatever happens on the way."""
        try:
            await self._routes.serve(call)
            if not call.unfinished:
                return
            raise RuntimeError("the call was left without an answer")
        except Refused as refused:
            response = error_response(refused.refusal, call.request_id, wire_of(call.endpoint))
        except Exception as fault:
            self._fault(call.request_id, fault)
            message = "Something went wrong inside the gate. Tell its operator the request id."
            response = fault_response(500, "internal_error", message, call.request_id, wire_of(call.endpoint))
        if call.began:
            call.cut()
        else:
            await call.answer(*response)


async def serve_data_plane(
    *,
    journey: Journey,
    stored: Stored,
    catalogue: Catalogue,
    not_ready: Callable[[], str | None],
    new_request_id: Callable[[], str],
    clock: Clock,
    fault: Fault,
    sock: socket.socket | None = None,
    host: str | None = None,
    port: int = 0,
    reuse_port: bool = False,
    limits: Limits | None = None,
    details: Callable[[], dict[str, Any]] = dict,
) -> DataPlane:
    """Serves on `sock`, or on `host` and `port`; `details` stand in `/readyz`. OSError if it cannot be bound."""
    plane = DataPlane(
        journey=journey,
        stored=stored,
        catalogue=catalogue,
        not_ready=not_ready,
        new_request_id=new_request_id,
        clock=clock,
        fault=fault,
        limits=limits or Limits(),
        details=details,
    )
    await plane.bind(sock, host, port, reuse_port)
    return plane
