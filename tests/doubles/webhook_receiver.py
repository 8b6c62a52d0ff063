"""A real HTTP server on loopback that receives webhooks, and answers as it is told to."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web
from standardwebhooks import Webhook


@dataclass
class Received:
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def type(self) -> str:
        return str(orjson.loads(self.body)["type"])

    @property
    def data(self) -> dict[str, Any]:
        return dict(orjson.loads(self.body)["data"])

    def verified(self, secret: str) -> Any:
        """As the receiver's own library sees it; raises if the signature is wrong or old."""
        return Webhook(secret).verify(self.body, self.headers)


@dataclass
class WebhookReceiver:
    """`faults` are taken one per call, else it answers 200: a status, `slow`, `garbage`, `cut` or `redirect`."""

    faults: deque[int | str] = field(default_factory=deque)
    received: list[Received] = field(default_factory=list)
    url: str = ""

    async def __aenter__(self) -> WebhookReceiver:
        self._released = asyncio.Event()
        self._arrived = asyncio.Condition()
        app = web.Application()
        app.router.add_post("/{where:.*}", self._receive)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/hooks"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._released.set()
        await self._runner.cleanup()

    async def arrived(self, count: int, within_s: float = 10) -> list[Received]:
        """Waits until that many calls were received."""
        try:
            async with asyncio.timeout(within_s), self._arrived:
                await self._arrived.wait_for(lambda: len(self.received) >= count)
        except TimeoutError:
            raise AssertionError(f"{len(self.received)} came, not {count}: {self.types()}") from None
        return self.received

    def types(self) -> list[str]:
        return [one.type for one in self.received]

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        fault = self.faults.popleft() if self.faults else 200
        async with self._arrived:
            self.received.append(Received({k.lower(): v for k, v in request.headers.items()}, body))
            self._arrived.notify_all()
        match fault:
            case "slow":
                await self._released.wait()
            case "garbage":
                assert request.transport is not None
                request.transport.write(b"this is no HTTP at all\r\n\r\n")
                request.transport.close()
            case "cut":
                assert request.transport is not None
                request.transport.close()
            case "redirect":
                raise web.HTTPTemporaryRedirect(self.url + "/elsewhere")
            case "long":
                return web.Response(body=b"x" * 10_000_000)
            case int():
                return web.Response(status=fault, text="a secret that nobody should keep")
        return web.Response()
