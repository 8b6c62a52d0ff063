"""A tap between a client and the gate: bytes pass through unchanged, and requests are noted as they pass."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass

# A JSON body has no raw line breaks, so nothing but a request line looks like this; and a body ends in none, so
# the next request of its connection begins in the middle of a line.
HEAD = re.compile(rb"(?:GET|POST|PUT|DELETE|PATCH|HEAD|OPTIONS) (/\S*) HTTP/1\.1\r\n(.*?)\r\n\r\n", re.DOTALL)
KEY_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")


@dataclass(frozen=True)
class Request:
    """A request as it came by: when (in seconds), its target, its headers' names, and which of them held a key."""

    at: float
    target: str
    headers: frozenset[str]

    @property
    def key_headers(self) -> list[str]:
        return [name for name in KEY_HEADERS if name in self.headers]


class Tap:
    """Listens while it is entered. `seen` are the requests that came by."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._server: asyncio.Server | None = None
        self.port = 0
        self.seen: list[Request] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Tap:
        self._server = await asyncio.start_server(self._between, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _between(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            gate_reader, gate_writer = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.close()
            return
        there = asyncio.create_task(self._pass(reader, gate_writer, noted=True))
        back = asyncio.create_task(self._pass(gate_reader, writer, noted=False))
        await asyncio.gather(there, back)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, noted: bool) -> None:
        """One direction. The end of one side is passed on as the end of the other."""
        unread = b""
        try:
            while data := await reader.read(65536):
                if noted:
                    unread = self._note(unread + data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    def _note(self, passed: bytes) -> bytes:
        """Notes whole heads; returns what may be the beginning of another."""
        read_to = 0
        for head in HEAD.finditer(passed):
            names = (line.partition(b":")[0].decode().lower() for line in head[2].split(b"\r\n"))
            self.seen.append(Request(time.monotonic(), head[1].decode(), frozenset(names)))
            read_to = head.end()
        return passed[read_to:]
