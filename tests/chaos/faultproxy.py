"""A proxy between the gate and what it talks to, that hurts the connection as told (toxiproxy's vocabulary).

    async with FaultProxy("tcp:127.0.0.1:6379") as proxy:
        proxy.toxic = Toxic("latency", seconds=2)

It listens on a TCP port (`port`) and, if asked to, on a unix socket. Upstream is "tcp:host:port" or "unix:/path".
A toxic acts on every connection, those that stand as well, from the moment it is set; None heals.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

READ_BYTES = 65_536
POLL_S = 0.005

Kind = Literal["latency", "timeout", "half_open", "reset_peer", "limit_data", "slicer", "drop_reply_after_commit"]


@dataclass(frozen=True)
class Toxic:
    """latency: each piece `seconds` late, both ways. timeout: nothing passes, nothing closes (a black hole).
    half_open: what is sent arrives, no answer comes back. reset_peer: connections are reset, new ones too.
    limit_data: after `size` bytes of answer the connection is reset. slicer: pieces of 1 to `size` bytes.
    drop_reply_after_commit: what contains `needle` is passed on, its answer is not, and the connection is reset;
    with `chance` it happens only that often.
    """

    kind: Kind
    seconds: float = 0.0
    size: int = 0
    needle: bytes = b""
    chance: float = 1.0


class FaultProxy:
    def __init__(self, upstream: str, *, seed: int = 0, unix: Path | None = None) -> None:
        self.upstream = upstream
        self.toxic: Toxic | None = None
        self.port = 0
        self.hurt = 0
        self._unix = unix
        self._dice = random.Random(seed)
        self._servers: list[asyncio.Server] = []
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> FaultProxy:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._servers.append(server)
        if self._unix is not None:
            self._servers.append(await asyncio.start_unix_server(self._accept, str(self._unix)))
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Resets every connection that stands."""
        for link in list(self._links):
            link.reset()

    def strikes(self, toxic: Toxic) -> bool:
        if toxic.chance < 1 and self._dice.random() >= toxic.chance:
            return False
        self.hurt += 1
        return True

    def slice_size(self, most: int) -> int:
        return self._dice.randint(1, most)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self.toxic is not None and self.toxic.kind == "reset_peer":
            writer.transport.abort()
            return
        await self._while("timeout")
        try:
            theirs = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        link = _Link(self, (reader, writer), theirs)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        kind, _, where = self.upstream.partition(":")
        if kind == "unix":
            return await asyncio.open_unix_connection(where)
        host, _, port = where.rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def _while(self, *kinds: Kind) -> None:
        while self.toxic is not None and self.toxic.kind in kinds:
            await asyncio.sleep(POLL_S)


class _Link:
    """One connection through the proxy."""

    def __init__(
        self,
        proxy: FaultProxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._client, self._server = client, server
        self._mute = False
        self._answered = 0

    def reset(self) -> None:
        for _, writer in (self._client, self._server):
            writer.transport.abort()

    async def run(self) -> None:
        ways = [
            asyncio.ensure_future(self._asking()),
            asyncio.ensure_future(self._answering()),
        ]
        try:
            await asyncio.gather(*ways)
        except (OSError, asyncio.IncompleteReadError):
            self.reset()
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for _, writer in (self._client, self._server):
                writer.close()

    async def _asking(self) -> None:
        reader, writer = self._client[0], self._server[1]
        while data := await reader.read(READ_BYTES):
            toxic = await self._passing(data)
            dropping = toxic is not None and toxic.kind == "drop_reply_after_commit" and toxic.needle in data
            if dropping and self._proxy.strikes(toxic):
                self._mute = True
            await self._write(writer, data, toxic)
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def _answering(self) -> None:
        reader, writer = self._server[0], self._client[1]
        while data := await reader.read(READ_BYTES):
            if self._mute:
                # The answer has come, so the deed is done; whoever asked never learns it.
                self.reset()
                return
            toxic = await self._passing(data)
            await self._proxy._while("half_open")
            if toxic and toxic.kind == "limit_data":
                left = toxic.size - self._answered
                self._answered += len(data)
                if len(data) >= left:
                    writer.write(data[: max(0, left)])
                    await writer.drain()
                    self.reset()
                    return
            await self._write(writer, data, toxic)
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def _passing(self, data: bytes) -> Toxic | None:
        """Waits out what holds everything up; the toxic that acts on this piece."""
        await self._proxy._while("timeout")
        toxic = self._proxy.toxic
        if toxic is not None and toxic.kind == "latency":
            await asyncio.sleep(toxic.seconds)
        if toxic is not None and toxic.kind == "reset_peer":
            self.reset()
            raise ConnectionResetError
        return toxic

    async def _write(self, writer: asyncio.StreamWriter, data: bytes, toxic: Toxic | None) -> None:
        if toxic is None or toxic.kind != "slicer":
            writer.write(data)
            await writer.drain()
            return
        while data:
            size = self._proxy.slice_size(toxic.size)
            writer.write(data[:size])
            data = data[size:]
            await writer.drain()
            await asyncio.sleep(0)
