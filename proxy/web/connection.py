"""One client connection: aiohttp's parser and flow control below, our own hostility above.

aiohttp's stock handler has no deadline for receiving, echoes and logs malformed headers, answers HTTP/0.9
and builds four objects per request. This one keeps the parser (C) and the flow control of `BaseProtocol`
and owns the rest: deadlines by one sweep for all connections, one answer per request in order, faults
answered in JSON without a word of what was received, and the news that a client has left.
"""

from __future__ import annotations

import asyncio
from collections import deque

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser, HttpVersion10, HttpVersion11, RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from proxy.web.errors import Response, Wire, fault_response, wire_of
from proxy.web.heads import head
from proxy.web.listener import Exchange, Listener
from proxy.web.whole_requests import Payload, RequestHead, WholeRequests

NEVER = float("inf")
QUEUE_MAX = 16
"""Requests parsed ahead of the one being answered; beyond it the transport is not read."""
READ_BUFFER_BYTES = 1 << 18
LINGER_BYTES = 1 << 26


class ReceiptTimeout(Exception):
    """The body did not arrive within its deadline."""


class BodyBroken(Exception):
    """The body's framing is no HTTP."""


class ClientGone(Exception):
    """The client left before its body was complete."""


class Connection(BaseProtocol):
    """One client's connection, answering its requests one after another, in one task of its own."""

    __slots__ = (
        "_call",
        "_deadline",
        "_discarded",
        "_ending",
        "_payload",
        "_progress_at",
        "_queue",
        "_receiving",
        "_resting",
        "_task",
        "_unparsed",
        "_unsent",
        "_whole",
        "listener",
    )

    def __init__(self, listener: Listener) -> None:
        parser = HttpRequestParser(
            self,
            listener.loop,
            READ_BUFFER_BYTES,
            auto_decompress=False,
            payload_exception=BodyBroken,
            max_msg_queue_size=QUEUE_MAX,
        )
        super().__init__(listener.loop, parser)
        self.listener = listener
        self._queue: deque[tuple[RawRequestMessage, StreamReader] | Response] = deque()
        self._call: Exchange | None = None
        self._payload: Payload = EMPTY_PAYLOAD
        self._task: asyncio.Task[None] | None = None
        # What the task waits for between two requests; None: the client has left.
        self._resting: asyncio.Future[Exchange | None] | None = None
        self._deadline = NEVER
        # Bytes of a request whose headers are not complete have arrived.
        self._receiving = False
        # Nothing more will be answered after the present request; what still arrives is thrown away.
        self._ending = False
        self._discarded = 0
        # The parser has seen nothing yet, so it cannot be in the middle of a request.
        self._unparsed = True
        self._whole = WholeRequests()
        self._unsent = 0
        self._progress_at = 0.0

    # -- what the transport tells -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        listener = self.listener
        listener.connections.add(self)
        self._deadline = self._progress_at = self._loop.time()
        self._deadline += listener.limits.headers_s
        if listener.draining or len(listener.connections) > listener.limits.connections:
            message = "The gate has too many open connections. Try again in a moment."
            self._refuse(503, "too_many_connections", message, lingering=False)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._ending = True
        self._queue.clear()
        self._client_left()
        self._rouse(None)
        self.listener.connections.discard(self)
        self.listener.left()

    def eof_received(self) -> bool:
        """The client has closed its side: it has left, but an answer that is due is still written."""
        self._ending = True
        self._queue.clear()
        self._client_left()
        return self._call is not None

    def data_received(self, data: bytes) -> None:
        if self._ending:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self.abort()
            return
        parser = self._parser
        assert parser is not None
        if self._unparsed and self._call is None:
            whole = self._whole.read(data)
            if whole is not None:
                self._begin(whole, whole)
                return
        self._unparsed = False
        try:
            messages, _, _ = parser.feed_data(data)
        except Exception as fault:  # Whatever it is, its text holds what was received: it goes no further.
            self._unparsable(fault)
            return
        if messages:
            self._queue.extend(messages)
            if len(self._queue) >= QUEUE_MAX and not self._buffer_paused:
                self._pause_reading_for_buffer()
            if self._call is None:
                self._next()
        elif self._call is None and not self._receiving and data:
            self._receiving = True
            self._deadline = min(self._deadline, self._loop.time() + self.listener.limits.headers_s)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """As the base does it, but only after a pause: the stream reader calls this for every request."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    # -- requests in, one at a time -----------------------------------------------------------------------

    def _next(self) -> None:
        item = self._queue.popleft()
        if len(item) == 3:
            self._write_last(item)
            return
        assert self._parser is not None
        self._parser.message_consumed()
        request, payload = item
        fault = _fault(request)
        if fault is None:
            self._begin(request, payload)
        else:
            self._refuse(400, "bad_http", fault, wire=wire_of(request.path))

    def _begin(self, request: RequestHead, payload: Payload) -> None:
        listener = self.listener
        self._receiving = False
        self._payload = payload
        self._deadline = NEVER if payload.is_eof() else self._loop.time() + listener.limits.body_s
        self._call = call = listener.make_call(self, request, payload)
        listener.busy.add(self)
        if self._task is None:
            self._task = self._loop.create_task(self._serve(call))
        else:
            self._rouse(call)

    def _rouse(self, call: Exchange | None) -> None:
        resting, self._resting = self._resting, None
        if resting is not None and not resting.done():
            resting.set_result(call)

    async def _serve(self, call: Exchange | None) -> None:
        """Every request of the connection. A task for each would cost more than to rest between them."""
        while call is not None:
            try:
                await self.listener.serve(call)
            except Exception as fault:
                self.listener.fault(call.request_id, fault)
                self.abort()
            finally:
                self._served(call)
            call = self._call
            if call is None and self.transport is not None:
                self._resting = self._loop.create_future()
                call = await self._resting

    def _served(self, call: Exchange) -> None:
        listener = self.listener
        self._call = None
        listener.busy.discard(self)
        if self.transport is None:
            listener.left()
        elif not call.keeps:
            self._end(lingering=not self._payload.is_eof())
        elif self._queue:
            self._next()
            if self._buffer_paused and len(self._queue) <= QUEUE_MAX // 2:
                self._read_on()
        elif listener.draining or self._ending:
            self._end()
        else:
            self._payload = EMPTY_PAYLOAD
            self._deadline = self._loop.time() + listener.limits.idle_s

    def _read_on(self) -> None:
        """Parses what the full queue had left unparsed, and reads again if that did not fill it."""
        self.data_received(b"")
        if len(self._queue) < QUEUE_MAX:
            self._resume_reading_for_buffer()

    # -- faults -------------------------------------------------------------------------------------------

    def _unparsable(self, fault: Exception) -> None:
        """What arrived is no HTTP. The parser is of no use any more, so nothing after it is answered."""
        message = "The request is not valid HTTP/1.1."
        if type(fault).__name__ == "LineTooLong":
            message = "A line of the request's head is too long."
        if self._call is None:
            self._refuse(400, "bad_http", message)
            return
        self._ending = True
        broken = self._queue[-1][1] if self._queue else self._payload
        if isinstance(broken, StreamReader) and not broken.is_eof():
            broken.set_exception(BodyBroken())
        else:
            self._queue.append(fault_response(400, "bad_http", message, self.listener.new_request_id()))

    def _refuse(self, status: int, code: str, message: str, lingering: bool = True, wire: Wire = "openai") -> None:
        response = fault_response(status, code, message, self.listener.new_request_id(), wire)
        self._write_last(response, lingering)

    def _write_last(self, response: Response, lingering: bool = True) -> None:
        """Writes an answer that no call stands for, and closes."""
        status, headers, body = response
        framing = f"content-length: {len(body)}\r\nconnection: close\r\n"
        if self.transport is not None:
            self.transport.write(head(status, headers, self.listener.date, framing) + body)
        self._end(lingering)

    def _client_left(self) -> None:
        if not self._payload.is_eof():
            self._payload.set_exception(ClientGone())
        if self._call is not None:
            self._call.leave()

    # -- the end ------------------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """The sweep's visit: deadlines of receiving and of a reader who takes nothing."""
        transport = self.transport
        if transport is None:
            return
        unsent = transport.get_write_buffer_size()
        if unsent == 0 or unsent < self._unsent:
            self._progress_at = now
        self._unsent = unsent
        if (self._paused or self._ending) and now - self._progress_at > self.listener.limits.stall_s:
            self.abort()
        elif now >= self._deadline:
            self._overdue()

    def _overdue(self) -> None:
        self._deadline = NEVER
        if self._call is not None:
            if not self._payload.is_eof():
                self._payload.set_exception(ReceiptTimeout())
        elif self._receiving and not self._ending:
            self._refuse(408, "request_timeout", "The request's head did not arrive in time.")
        else:
            self.abort()

    def retire(self) -> None:
        """Close as soon as nothing is being answered."""
        if self._call is None:
            self._end()

    def _end(self, lingering: bool = False) -> None:
        """Close after what is written has gone out.

        `lingering`: the client may still be sending, and a close now would reset the connection under the
        answer it has not read; so our side is ended and its bytes are thrown away for a while.
        """
        self._ending = True
        self._queue.clear()
        transport = self.transport
        if transport is None:
            return
        self._progress_at = self._loop.time()
        if lingering and not self.listener.draining:
            self._deadline = self._loop.time() + self.listener.limits.linger_s
            self._reading_paused = self._buffer_paused = False
            self._resume_transport_reading()
            transport.write_eof()
        else:
            self._deadline = NEVER
            transport.close()

    def abort(self) -> None:
        """Drop the connection and what is still unsent."""
        if self.transport is not None:
            self.transport.abort()

    # -- what a call needs --------------------------------------------------------------------------------

    def put(self, data: bytes) -> None:
        """One write; nothing if the connection is gone."""
        if self.transport is not None:
            self.transport.write(data)

    async def drain(self) -> None:
        """Waits until the client has taken enough; returns also when it has left."""
        if self._paused and self.transport is not None:
            try:
                await self._drain_helper()
            except ConnectionError:
                return


def _fault(request: RawRequestMessage) -> str | None:
    """What is wrong with a request that the parser let through, in a sentence."""
    if request.version is not HttpVersion11 and request.version is not HttpVersion10:
        return "Faregate speaks HTTP/1.1 and HTTP/1.0."
    path = request.path
    if path[:1] != "/" or "#" in path:
        return "The request target must be a path, such as /v1/chat/completions."
    if request.chunked:
        encodings = request.headers.getall("transfer-encoding", [])
        if len(encodings) != 1 or encodings[0].lower() != "chunked" or request.version is HttpVersion10:
            return "The only transfer encoding understood is 'chunked', and only in HTTP/1.1."
    return None
