"""LiteLLM's calls on the gate's own connections: what leaves is seen, and what comes back is read before it.

So deadlines, refusals, redirects and breaks are what they are on a native wire, and no call is made twice.
LiteLLM by itself would follow a redirect with the key, try a broken connection again, and raise errors whose
text quotes the provider. httpx comes with LiteLLM and is imported with it, never before.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import orjson

from proxy.gateway.ports import UpstreamFailed
from proxy.providers.connections import Head, Timeouts, UpstreamConnections
from proxy.providers.events import WholeEvents, data_of, split
from proxy.providers.exchanges import Exchange
from proxy.providers.litellm_reports import Reports
from proxy.providers.native_answers import BODY_BYTES_MAX, json_object
from proxy.providers.native_wire import refusal_by
from proxy.providers.upstream_errors import error_in_answer, request_id_of

_FIXED = {"accept-encoding": "identity", "user-agent": "faregate"}
_TAKEN = (
    *("content-type", "accept", "authorization", "x-api-key", "x-goog-api-key"),
    *("anthropic-version", "anthropic-beta"),
)
_VALUE = re.compile(r"[\x20-\x7e]*")

# Anthropic tells its errors by a word, Gemini by a number.
_STATUS_OF = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class Lines:
    """The connections of one upstream, by origin: its own address, or the one that LiteLLM knows."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._by_origin: dict[str, UpstreamConnections] = {}

    def to(self, url: httpx.URL) -> UpstreamConnections:
        origin = f"{url.scheme}://{url.netloc.decode('ascii')}"
        if origin not in self._by_origin:
            self._by_origin[origin] = UpstreamConnections(origin, _FIXED, self._timeouts)
        return self._by_origin[origin]

    async def close(self) -> None:
        for connections in self._by_origin.values():
            await connections.close()
        self._by_origin.clear()


class Crossing(httpx.AsyncBaseTransport):
    """One call. `failure` is what went wrong with it, whatever LiteLLM makes of that; `sent` once it has left."""

    def __init__(self, lines: Lines, reports: Reports, api_key: str | None, *, streamed: bool) -> None:
        self.reports = reports
        self.failure: UpstreamFailed | None = None
        self.sent = False
        self._lines = lines
        self._api_key = api_key
        self._streamed = streamed
        self._request_id: str | None = None
        self._headers: Mapping[str, str] = {}
        self._exchange: Exchange | None = None
        self._begun = False

    @property
    def provider_request_id(self) -> str | None:
        """By the answer's headers; where they have none (Gemini's), the answer's own id."""
        return self._request_id or self.reports.answer_id

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            if self.sent:
                raise UpstreamFailed("unknown", "upstream_reset", "The model's provider was called twice.")
            return await self._cross(request)
        except UpstreamFailed as failed:
            self.failure = self.failure or failed
            raise

    async def _cross(self, request: httpx.Request) -> httpx.Response:
        connections = self._lines.to(request.url)
        path, _, query = request.url.raw_path.decode("ascii").partition("?")
        body = await request.aread()
        try:
            head, exchange = await connections.send(
                connections.head("POST", path, query), body, _lines_of(request)
            )
        except UpstreamFailed as failed:
            self.sent = failed.kind != "unsent"
            raise
        self.sent = True
        self._exchange = exchange
        self._headers, self._request_id = head.headers, request_id_of(head.headers)
        return await self._answered(head, exchange)

    async def _answered(self, head: Head, exchange: Exchange) -> httpx.Response:
        if not 200 <= head.code < 300:
            raise await refusal_by(head, exchange, self._api_key)
        if head.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            exchange.drop()
            raise self._unreadable("in an encoding that was not asked for")
        kind = head.headers.get("content-type", "text/event-stream" if self._streamed else "")
        if self._streamed and kind.lower().startswith("text/event-stream"):
            headers = {"content-type": "text/event-stream"}
            return httpx.Response(200, headers=headers, stream=_Overheard(self, exchange))
        said = json_object(await exchange.whole(BODY_BYTES_MAX))
        if said is None:
            raise self._unreadable("with something that is no JSON object")
        if said.get("error"):
            raise self._told(said)
        if self._streamed:
            raise self._unreadable("with no stream, though one was asked for")
        said = self.reports.plain(said)
        return httpx.Response(200, headers={"content-type": "application/json"}, content=orjson.dumps(said))

    def end(self) -> None:
        """No more is wanted of the answer; LiteLLM leaves connections to whoever collects the garbage."""
        if self._exchange is not None:
            if self.reports.ended and self.failure is None:
                self._exchange.finish()
            else:
                self._exchange.drop()

    def heard(self, whole: bytes) -> None:
        """Whole events on their way to LiteLLM."""
        for event in split(whole):
            said = json_object(data_of(event))
            if said is None:
                continue
            if said.get("error"):
                self.failure = self.failure or self._told(said)
                if self._begun:
                    self.failure.kind = "unknown"
            self._begun = True
            self.reports.event(said)

    def _told(self, said: dict[str, Any]) -> UpstreamFailed:
        error = said["error"]
        if type(error) is dict and type(error.get("code")) is not int:
            error = {**error, "code": _STATUS_OF.get(str(error.get("type")))}
        return error_in_answer({"error": error}, 200, self._headers, self._api_key)

    def _unreadable(self, how: str) -> UpstreamFailed:
        message = f"The model's provider answered {how}."
        return UpstreamFailed("unknown", "upstream_unreadable", message, provider_request_id=self._request_id)


class _Overheard(httpx.AsyncByteStream):
    """A stream's events, whole, read as they go by."""

    def __init__(self, crossing: Crossing, exchange: Exchange) -> None:
        self._crossing = crossing
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        events = WholeEvents()
        while True:
            try:
                data = await self._exchange.some()
            except UpstreamFailed as failed:
                self._crossing.failure = self._crossing.failure or failed
                raise
            whole = events.feed(data) if data else events.rest()
            if whole:
                self._crossing.heard(whole)
                yield whole
            if not data:
                return

    async def aclose(self) -> None:
        self._exchange.drop()


def _lines_of(request: httpx.Request) -> bytes:
    taken = [(name, request.headers[name]) for name in _TAKEN if name in request.headers]
    return "".join(f"{name}: {value}\r\n" for name, value in taken if _VALUE.fullmatch(value)).encode("ascii")
