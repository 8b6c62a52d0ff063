"""The yardstick: a pass-through as anybody would write it with aiohttp, which checks and records nothing.

Run as `python -m bench.passthrough UPSTREAM_URL PORT`. It reads the body, posts it on, and gives the answer back;
a stream it passes on as it comes. It runs on uvloop and writes no access log, as the gate does.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import aiohttp
import uvloop
from aiohttp import web

UPSTREAM_KEY = "sk-benchmark"


class PassThrough:
    def __init__(self, upstream_url: str) -> None:
        self._url = upstream_url + "/chat/completions"

    async def session(self, app: web.Application) -> AsyncIterator[None]:
        """One client session for all requests, closed when the server ends."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as self._session:
            yield

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {"content-type": "application/json", "authorization": f"Bearer {UPSTREAM_KEY}"}
        async with self._session.post(self._url, data=body, headers=headers) as upstream:
            if upstream.content_type != "text/event-stream":
                return web.Response(
                    status=upstream.status, body=await upstream.read(), content_type=upstream.content_type
                )
            response = web.StreamResponse(status=upstream.status, headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            async for chunk in upstream.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response


def main(upstream_url: str, port: str) -> None:
    through = PassThrough(upstream_url)
    app = web.Application()
    app.cleanup_ctx.append(through.session)
    app.router.add_post("/v1/chat/completions", through.chat)
    web.run_app(app, host="127.0.0.1", port=int(port), access_log=None, print=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    main(*sys.argv[1:])
