"""A real HTTP server that plays a model's provider: OpenAI's endpoints and Anthropic's messages.

It answers with harmless words, reports its usage honestly and keeps its own list of calls; by scripts it
delays, fails, lies about usage and breaks off. Tests and the demo use it in-process
(`async with ScriptedUpstream() as upstream`) or as a process of its own
(`python -m proxy.demo.scripted_upstream --port 9000`, with `--canned` for benchmarks), steered over HTTP:
`POST /_script` (a `Script` as JSON), `/_hold`, `/_release`, `/_forget`, and `GET /_calls`.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from proxy.demo.canned_upstream import serve_canned
from proxy.demo.scripted_completions import Completions
from proxy.demo.scripted_embeddings import Embeddings
from proxy.demo.scripted_gemini import Gemini, asked
from proxy.demo.scripted_messages import CountTokens, Messages
from proxy.demo.scripted_responses import Responses
from proxy.demo.scripted_wires import Chat, Chunk, Wire
from proxy.demo.scripts import STALL_S, Script, prompt_tokens

LIMIT_FIELDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
BODY_BYTES_MAX = 64 * 1024 * 1024


@dataclass(slots=True)
class Recorded:
    """One call as the upstream saw it. `output_tokens` are those produced and billed so far."""

    order: int
    path: str
    model: str
    streamed: bool
    output_limit: int | None
    output_limit_field: str | None
    input_tokens: int
    output_tokens: int = 0
    status: int = 0
    finished: bool = False
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)


class ScriptedUpstream:
    """Listens while it is entered. `url` is for the OpenAI wire (with /v1), `root_url` for Anthropic's.

    With an `api_key` every other key is answered 401.
    """

    def __init__(self, port: int = 0, api_key: str | None = None, host: str = "127.0.0.1") -> None:
        self.calls: list[Recorded] = []
        self._host = host
        self._port = port
        self._api_key = api_key
        self._scripts: list[tuple[Script, int]] = []
        self._opened = asyncio.Event()
        self._opened.set()
        self._arrived = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._handler: web.Server | None = None
        self._responses = Responses()
        self._gemini = Gemini()
        self._wires: dict[str, Wire] = {
            "/v1/responses": self._responses,
            "/v1/chat/completions": Chat(),
            "/v1/completions": Completions(),
            "/v1/embeddings": Embeddings(),
            "/v1/messages": Messages(),
            "/v1/messages/count_tokens": CountTokens(),
        }

    @property
    def root_url(self) -> str:
        return f"http://{self._host}:{self._port}"

    @property
    def url(self) -> str:
        return f"{self.root_url}/v1"

    def script(self, script: Script) -> None:
        """The next answers that it fits; scripts are used in the order given, before the honest default."""
        self._scripts.append((script, script.times))

    def hold(self) -> None:
        """Keep back every answer from now on, until `release`."""
        self._opened.clear()

    def release(self) -> None:
        self._opened.set()

    def forget(self) -> None:
        """As new: no calls, no scripts, nothing held back."""
        self.calls.clear()
        self._scripts.clear()
        self._opened.set()

    async def arrived(self, count: int) -> None:
        """Waits until `count` calls have come in."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.calls) >= count)

    async def __aenter__(self) -> ScriptedUpstream:
        loop = asyncio.get_running_loop()
        self._handler = web.Server(self._answer, request_factory=_request, access_log=None)
        self._server = await loop.create_server(self._handler, self._host, self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        assert self._handler is not None
        self._opened.set()
        self._server.close()
        await self._handler.shutdown(timeout=0.05)
        await self._server.wait_closed()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        in_path = asked(request.path)
        wire = self._gemini if in_path else self._wires.get(request.path)
        if request.path.startswith("/v1/responses/"):
            return await self._kept_response(request)
        if wire is None:
            return await self._control(request)
        try:
            body = {**orjson.loads(await request.read()), **(in_path or {})}
            model, streamed = body["model"], bool(body.get("stream"))
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            return _json(wire.error(400, "The body is not what this endpoint takes."), 400)
        limit_field = next((name for name in LIMIT_FIELDS if name in body), None)
        limit = body[limit_field] if limit_field else None
        call = Recorded(len(self.calls), request.path, model, streamed, limit, limit_field, prompt_tokens(body))
        call.headers, call.body = dict(request.headers), body
        self.calls.append(call)
        async with self._arrived:
            self._arrived.notify_all()
        await self._opened.wait()
        if self._api_key is not None and _key_of(request) != self._api_key:
            call.status = 401
            return _json(wire.error(401, "Incorrect API key provided."), 401)
        return await self._play(self._next_script(model), wire, call, request)

    async def _kept_response(self, request: web.BaseRequest) -> web.StreamResponse:
        call = Recorded(len(self.calls), request.path, "", False, None, None, 0)
        call.headers, call.body = dict(request.headers), {"method": request.method, "query": request.query_string}
        self.calls.append(call)
        if self._api_key is not None and _key_of(request) != self._api_key:
            call.status = 401
            return _json(self._responses.error(401, "Incorrect API key provided."), 401)
        script = self._next_script("")
        if script.status != 200:
            return await self._play(script, self._responses, call, request)
        call.status, body = self._responses.kept(request.method, request.path.rpartition("/")[2])
        return _json(body, call.status)

    def _next_script(self, model: str) -> Script:
        for at, (script, left) in enumerate(self._scripts):
            if script.model is None or script.model == model:
                if left == 1:
                    del self._scripts[at]
                else:
                    self._scripts[at] = (script, max(0, left - 1))
                return script
        return Script()

    async def _play(
        self, script: Script, wire: Wire, call: Recorded, request: web.BaseRequest
    ) -> web.StreamResponse:
        call.status = script.status
        if script.head_delay_s:
            await asyncio.sleep(script.head_delay_s)
        if script.breaks_after_bytes == 0:
            _break(request, script)
            return web.Response(status=500)
        headers = {"x-request-id": f"req-scripted-{call.order}", **script.headers}
        if script.status != 200 or script.body is not None:
            text = script.body
            body = text.encode() if text is not None else wire.error(script.status, "As the script says.")
            headers["content-type"] = script.content_type or "application/json"
            return await _send(request, script, headers, [body])
        if not call.streamed:
            answer = wire.plain(script, call.body, call.order)
            call.output_tokens, call.finished = wire.made(script, call.body), True
            headers["content-type"] = script.content_type or "application/json"
            return await _send(request, script, headers, [answer])
        headers["content-type"] = script.content_type or "text/event-stream"
        if script.events is not None:
            return await _send(request, script, headers, [script.events.encode()])
        return await _send(request, script, headers, wire.stream(script, call.body, call.order), call)

    async def _control(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = f"{request.method} {request.path}"
        if asked == "GET /_calls":
            hidden = ("headers", "body")
            rows = [{k: v for k, v in dataclasses.asdict(call).items() if k not in hidden} for call in self.calls]
            return _json(orjson.dumps(rows))
        if asked == "POST /_script":
            try:
                self.script(Script.from_json(orjson.loads(await request.read())))
            except (ValueError, TypeError) as error:
                return _json(orjson.dumps({"error": {"message": str(error)}}), 400)
        elif asked in ("POST /_hold", "POST /_release", "POST /_forget"):
            {"/_hold": self.hold, "/_release": self.release, "/_forget": self.forget}[request.path]()
        else:
            return _json(orjson.dumps({"error": {"message": f"There is no {asked} here."}}), 404)
        return _json(b'{"ok":true}')


async def _send(
    request: web.BaseRequest, script: Script, headers: dict[str, str], chunks: Any, call: Recorded | None = None
) -> web.StreamResponse:
    """Head and chunks, with the script's delays, as far as it lets them go."""
    response = web.StreamResponse(status=script.status, headers=headers)
    if isinstance(chunks, list) and script.breaks_after_bytes is None:
        response.content_length = sum(map(len, chunks))
    await response.prepare(request)
    left = script.breaks_after_bytes
    for at, chunk in enumerate(chunks):
        if script.stalls_after == at:
            await asyncio.sleep(STALL_S)
        if script.chunk_delay_s:
            await asyncio.sleep(script.chunk_delay_s)
        if left is not None and left <= len(chunk):
            await response.write(chunk[:left])
            _break(request, script)
            return response
        left = None if left is None else left - len(chunk)
        if call is not None and isinstance(chunk, Chunk):
            call.output_tokens += chunk.tokens
        await response.write(chunk)
    if call is not None:
        call.finished = True
    await response.write_eof()
    return response


def _break(request: web.BaseRequest, script: Script) -> None:
    transport = request.transport
    if transport is None:
        return
    if script.breaks == "reset":
        transport.abort()
    else:
        transport.close()


def _key_of(request: web.BaseRequest) -> str | None:
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
    return bearer or request.headers.get("x-api-key") or request.headers.get("x-goog-api-key")


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")


def _request(
    message: RawRequestMessage, payload: StreamReader, protocol: Any, writer: Any, task: asyncio.Task[None]
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=BODY_BYTES_MAX)


async def _serve(options: argparse.Namespace) -> None:
    if options.canned:
        await serve_canned(options.host, options.port, options.chunks, options.interval_ms / 1000)
        return
    async with ScriptedUpstream(options.port, host=options.host) as upstream:
        sys.stdout.write(f"The scripted upstream listens at {upstream.url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m proxy.demo.scripted_upstream", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument(
        "--canned", action="store_true", help="the same preformatted answer always, for benchmarks"
    )
    parser.add_argument("--chunks", type=int, default=20, help="chunks of a canned stream")
    parser.add_argument("--interval-ms", type=float, default=0.0, help="between chunks of a canned stream")
    try:
        asyncio.run(_serve(parser.parse_args()))
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
