"""A served data plane and a raw client for it, so that tests say exactly what is on the wire."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from proxy.domain.refusals import Refusal, Refused
from proxy.web.api.call import HttpCall
from proxy.web.listener import Limits
from proxy.web.server import DataPlane, serve_data_plane

WAIT_S = 5.0
CHAT = "/v1/chat/completions"
SECRET = "fg_live_canary_0123456789abcdef"


class FixedClock:
    """2026-11-20 12:00:00 UTC, always."""

    def now_us(self) -> int:
        return 1_795_176_000_000_000

    def monotonic_us(self) -> int:
        return 0


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    raw_head: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json()["error"]["code"])


class Client:
    """One connection. Reads whole answers by their framing; every read has a deadline."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, head_only: bool = False) -> Answer:
        async with asyncio.timeout(WAIT_S):
            raw = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = raw.decode("latin-1").strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            status = int(first.split()[1])
            if head_only or status == 100:
                body = b""
            elif headers.get("transfer-encoding") == "chunked":
                body = b"".join([chunk async for chunk in self.chunks()])
            elif "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            else:
                body = await self.reader.read()
            return Answer(status, headers, body, raw)

    async def chunks(self) -> Any:
        while size := int(await self.reader.readline(), 16):
            yield await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
        assert await self.reader.readexactly(2) == b"\r\n"

    async def rest(self) -> bytes:
        """Everything until the server closes; b"" also if it resets the connection."""
        async with asyncio.timeout(WAIT_S):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Closes as a killed process would, so that the server sees a reset and no orderly end."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass
class Plane:
    """A data plane on loopback whose journey is `self.journey`; what it saw and what went wrong is kept."""

    plane: DataPlane
    calls: list[HttpCall] = field(default_factory=list)
    faults: list[BaseException] = field(default_factory=list)
    missing: str | None = None
    journey: Callable[[Any], Awaitable[None]] | None = None
    clients: list[Client] = field(default_factory=list)

    @property
    def connections(self) -> int:
        return len(self.plane._listener.connections)

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.plane.port))
        self.clients.append(client)
        return client

    async def ask(self, data: bytes) -> Answer:
        client = await self.connect()
        await client.send(data)
        return await client.answer()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await asyncio.sleep(0.002)


class Shelf:
    """A catalogue of two models, one with slashes in its id, for whoever sends the canary secret."""

    async def models(self, call: Any) -> list[dict[str, Any]]:
        if call.secret != SECRET:
            raise Refused(Refusal("unauthenticated", "", 401))
        return [
            {"id": name, "object": "model", "created": 0, "owned_by": "openai"}
            for name in ("gpt-4o-mini", "acme/models/big")
        ]

    async def entitlements(self, call: Any) -> dict[str, Any]:
        return {"customer_id": "acme"}


async def echo(call: Any) -> None:
    """The plain journey of these tests: the body comes back."""
    body = await call.json()
    await call.answer(200, {"content-type": "application/json"}, json.dumps(body).encode())


async def start(limits: Limits | None = None) -> Plane:
    count = iter(range(1, 1 << 30))

    async def journey(call: Any) -> None:
        served.calls.append(call)
        await (served.journey or echo)(call)

    async def stored(call: Any, method: str, id: str) -> None:
        await call.answer(200, {"content-type": "application/json"}, f'{{"{method}":"{id}"}}'.encode())

    plane = await serve_data_plane(
        journey=journey,
        stored=stored,
        catalogue=Shelf(),
        not_ready=lambda: served.missing,
        new_request_id=lambda: f"req_{next(count):04d}",
        clock=FixedClock(),
        fault=lambda request_id, fault: served.faults.append(fault),
        host="127.0.0.1",
        limits=limits or Limits(sweep_s=0.02),
    )
    served = Plane(plane)
    return served


def post(body: bytes | dict[str, Any], *headers: str, path: str = CHAT, version: str = "1.1") -> bytes:
    """A whole POST. A header given replaces the usual one of that name."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    names = {header.partition(":")[0].lower() for header in headers}
    usual = [
        ("Host", "gate"),
        ("Authorization", f"Bearer {SECRET}"),
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(data))),
    ]
    lines = [f"{name}: {value}" for name, value in usual if name.lower() not in names]
    start = f"POST {path} HTTP/{version}"
    return "\r\n".join([start, *lines, *headers, "", ""]).encode("latin-1") + data


def get(path: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: gate", f"Authorization: Bearer {SECRET}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
