"""The listener of the admin plane: aiohttp's, but quiet about what it could not parse.

As it comes, aiohttp answers a malformed request with the offending line and logs it too, be it a header with
a token in it; and it waits forever for the first byte.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from proxy.web.admin.errors import AdminError
from proxy.web.admin.writing import refusal

HEADERS_WAIT_S = 10.0


class AdminConnection(RequestHandler):
    """One connection: closed if its first request has not begun in time; parser errors answered in JSON."""

    __slots__ = ("_deadline",)

    _deadline: asyncio.TimerHandle | None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._deadline = self._loop.call_later(HEADERS_WAIT_S, self._close_if_idle)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        super().connection_lost(exc)

    def _close_if_idle(self) -> None:
        if self._request_count == 0:
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("An answer has begun; another cannot follow it.")
        told = "This is no request that can be understood." if status < 500 else "The gate failed at this."
        answer = refusal(AdminError(status, "bad_request" if status < 500 else "internal_error", told))
        answer.force_close()
        return answer


class AdminServer(web.Server):
    """Makes an `AdminConnection` per connection."""

    def __call__(self) -> RequestHandler:
        return AdminConnection(self, loop=self._loop, **self._kwargs)


class AdminRunner(web.AppRunner):
    """Runs the application of `admin_app`; to be used as `web.AppRunner` is."""

    def __init__(self, app: web.Application, **kwargs: Any) -> None:
        # A body is refused for being compressed, not unpacked first: gigabytes of JSON fit in a few kilobytes.
        super().__init__(app, access_log=None, auto_decompress=False, **kwargs)

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        server = AdminServer(made.request_handler, request_factory=made.request_factory, **made._kwargs)
        server.requests_count = made.requests_count
        return server
