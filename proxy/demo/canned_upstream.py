"""The same answer always, preformatted: an upstream that costs a benchmark next to nothing."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

from proxy.demo.scripted_wires import Chat
from proxy.demo.scripts import Script

_PLAIN_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req-canned\r\n"
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-request-id: req-canned\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


class Canned:
    """The preformatted bytes: a plain answer, and a stream of `chunks` words, each a chunk of its own."""

    def __init__(self, chunks: int) -> None:
        body = {"model": "canned", "messages": [{"role": "user", "content": "word " * 19}], "stream": True}
        body["stream_options"] = {"include_usage": True}
        script = Script(output_tokens=chunks)
        answer = Chat().plain(script, body, 0)
        self.plain = _PLAIN_HEAD + b"content-length: %d\r\n\r\n" % len(answer) + answer
        events = [bytes(event) for event in Chat().stream(script, body, 0)]
        framed = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
        framed[-1] += b"0\r\n\r\n"
        self.stream = [_STREAM_HEAD + framed[0], *framed[1:]]


class _Connection(asyncio.Protocol):
    """Keep-alive HTTP/1.1 with a content-length, as the gate sends it; nothing else is understood."""

    def __init__(self, canned: Canned, interval_s: float) -> None:
        self._canned = canned
        self._interval_s = interval_s
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n") + 4) > 3:
            head = self._read[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 : head.find(b"\r\n", at)]) if at >= 0 else 0
            if len(self._read) < end + length:
                return
            body, self._read = self._read[end : end + length], self._read[end + length :]
            if b'"stream":true' in body or b'"stream": true' in body:
                self._stream(0)
            else:
                self._transport.write(self._canned.plain)

    def _stream(self, at: int) -> None:
        """One chunk a loop tick (or interval), so that the reader gets them one by one."""
        if self._transport.is_closing():
            return
        self._transport.write(self._canned.stream[at])
        if at + 1 < len(self._canned.stream):
            loop = asyncio.get_running_loop()
            if self._interval_s:
                loop.call_later(self._interval_s, self._stream, at + 1)
            else:
                loop.call_soon(self._stream, at + 1)


async def listen_canned(host: str, port: int, chunks: int, interval_s: float = 0.0) -> asyncio.Server:
    canned = Canned(chunks)
    return await asyncio.get_running_loop().create_server(lambda: _Connection(canned, interval_s), host, port)


async def serve_canned(host: str, port: int, chunks: int, interval_s: float) -> None:
    server = await listen_canned(host, port, chunks, interval_s)
    sys.stdout.write(f"The canned upstream listens at http://{host}:{server.sockets[0].getsockname()[1]}/v1\n")
    sys.stdout.flush()
    await server.serve_forever()
