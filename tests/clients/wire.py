"""A tap between a client and the gate: bytes pass through unchanged, and requests are counted as they pass."""

from __future__ import annotations

import asyncio
import re
import time

# A JSON body has no raw line breaks, so nothing but a request line looks like this; and a body ends in none, so
# the next request of its connection begins in the middle of a line.
REQUEST_LINE = re.compile(rb"(?:GET|POST|PUT|DELETE|PATCH|HEAD|OPTIONS) /\S* HTTP/1\.1\r\n")


class Tap:
    """Listens while it is entered. `arrivals` are the moments, in seconds, at which a request line came by."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._server: asyncio.Server | None = None
        self.port = 0
        self.arrivals: list[float] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def requests(self) -> int:
        return len(self.arrivals)

    async def __aenter__(self) -> Tap:
        self._server = await asyncio.start_server(self._between, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _between(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gate_reader, gate_writer = await asyncio.open_connection("127.0.0.1", self._to)
        there = asyncio.create_task(self._pass(reader, gate_writer, counted=True))
        back = asyncio.create_task(self._pass(gate_reader, writer, counted=False))
        await asyncio.gather(there, back)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool) -> None:
        """One direction. The end of one side is passed on as the end of the other."""
        passed, counted_here = b"", 0
        try:
            while data := await reader.read(65536):
                if counted:
                    passed += data
                    found = len(REQUEST_LINE.findall(passed))
                    self.arrivals += [time.monotonic()] * (found - counted_here)
                    counted_here = found
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()
