"""An upstream spoken to natively: the request re-serialised from the parsed body, the answer byte for byte.

In: a `Dispatch`. Out: an `Answer`. URL, headers and key are the gate's alone; of a client's headers only those
go upstream that the endpoint's reader has taken and checked. How an endpoint is spoken stands in a table of
`Speech`, one per wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlencode

import orjson

from proxy.domain.asks import Ask, Endpoint
from proxy.domain.attribution import OWN_METADATA
from proxy.gateway.ports import Answer, Dispatch, UpstreamFailed
from proxy.providers.connections import Head, Timeouts, UpstreamConnections
from proxy.providers.exchanges import Exchange
from proxy.providers.native_answers import BODY_BYTES_MAX, PlainAnswer, StreamedAnswer, json_object
from proxy.providers.upstream_errors import ERROR_BODY_BYTES_MAX, refusal_of

ERROR_BODY_S = 10.0

FETCH_S = 30.0


@dataclass(frozen=True, slots=True)
class Speech:
    """How one endpoint is spoken: its path below the base URL, what is sent, and its answers."""

    path: str
    body: Callable[[Dispatch], dict[str, Any]]
    plain: type[PlainAnswer]
    streamed: type[StreamedAnswer] | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """Where an upstream is and how it wants to be asked.

    `base_url` may have a query. `auth_header` carries the key: bare, but in `authorization`, where "Bearer"
    stands before it. `query` and `headers` are the operator's own, sent with every request.
    """

    base_url: str
    api_key: str | None
    auth_header: str = "authorization"
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


class NativeWire:
    """An upstream that speaks the client's wire at each endpoint of `speeches`.

    Without a key it is not `configured`, unless it needs none (`keyless`: a server of one's own).
    """

    def __init__(
        self,
        name: str,
        address: Address,
        speeches: Mapping[Endpoint, Speech],
        timeouts: Timeouts | None = None,
        *,
        keyless: bool = False,
    ) -> None:
        self.name = name
        self.configured = keyless or bool(address.api_key)
        self._api_key = address.api_key
        self._speeches = speeches
        self._connections = UpstreamConnections(address.base_url, _headers(address), timeouts or Timeouts())
        self._query = urlencode(address.query)
        self._heads = {endpoint: self._head("POST", each.path) for endpoint, each in speeches.items()}

    def serves(self, endpoint: Endpoint) -> bool:
        return endpoint in self._speeches

    async def send(self, dispatch: Dispatch) -> Answer:
        """Send and wait for the answer's head; raises `UpstreamFailed`."""
        ask = dispatch.ask
        speech = self._speeches[ask.endpoint]
        start = self._head("POST", speech.path, ask.query) if ask.query else self._heads[ask.endpoint]
        head, exchange = await self._connections.send(start, _serialised(speech.body(dispatch)), _lines(ask))
        if not 200 <= head.code < 300:
            raise await refusal_by(head, exchange, self._api_key)
        if head.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            exchange.drop()
            message = "The model's provider answered in an encoding that was not asked for."
            raise UpstreamFailed("unknown", "upstream_unreadable", message)
        answer = _answer_of(speech, ask, head)(head, exchange, ask)
        answer.api_key = self._api_key
        return answer

    async def fetch(self, method: Literal["GET", "DELETE"], path: str, query: str) -> bytes:
        """The body of a small JSON answer; raises `UpstreamFailed`. `path` and `query` are well-formed."""
        try:
            async with asyncio.timeout(FETCH_S):
                head, exchange = await self._connections.send(self._head(method, path, query), b"")
                if not 200 <= head.code < 300:
                    raise await refusal_by(head, exchange, self._api_key)
                body = await exchange.whole(BODY_BYTES_MAX)
        except TimeoutError:
            message = "The model's provider did not answer in time."
            raise UpstreamFailed("unknown", "upstream_timeout", message) from None
        if json_object(body) is None:
            message = "The model's provider answered with something that is no JSON object."
            raise UpstreamFailed("unknown", "upstream_unreadable", message)
        return body

    async def close(self) -> None:
        await self._connections.close()

    def _head(self, method: str, path: str, query: str = "") -> bytes:
        queries = "&".join(each for each in (self._query, query) if each)
        return self._connections.head(method, path, queries)


def _answer_of(speech: Speech, ask: Ask, head: Head) -> type[PlainAnswer] | type[StreamedAnswer]:
    """A stream was asked for and came, or else something that is read whole."""
    content_type = head.headers.get("content-type", "text/event-stream").lower()
    if ask.streamed and speech.streamed is not None and content_type.startswith("text/event-stream"):
        return speech.streamed
    return speech.plain


async def refusal_by(head: Head, exchange: Exchange, api_key: str | None) -> UpstreamFailed:
    """What an answer of a status other than 2xx means, its body read as far as that comes in time."""
    try:
        async with asyncio.timeout(ERROR_BODY_S):
            body = await exchange.whole(ERROR_BODY_BYTES_MAX)
    except (UpstreamFailed, TimeoutError):
        body = b""
    return refusal_of(head.code, head.headers, body, api_key)


def without_attribution(body: dict[str, Any]) -> dict[str, Any]:
    """The body without what only the gate reads of its `metadata`: some providers refuse unknown words."""
    metadata = body.get("metadata")
    if not isinstance(metadata, dict) or not metadata.keys() & OWN_METADATA:
        return body
    theirs = {name: value for name, value in metadata.items() if name not in OWN_METADATA}
    rest = {name: value for name, value in body.items() if name != "metadata"}
    return {**rest, "metadata": theirs} if theirs else rest


def _headers(address: Address) -> dict[str, str]:
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "accept-encoding": "identity",
        "user-agent": "faregate",
        **{name.lower(): value for name, value in address.headers.items()},
    }
    if address.api_key:
        name = address.auth_header.lower()
        headers[name] = f"Bearer {address.api_key}" if name == "authorization" else address.api_key
    return headers


def _lines(ask: Ask) -> bytes:
    """The client's headers that go upstream, as complete lines."""
    if not ask.forward_headers:
        return b""
    return "".join([f"{name}: {value}\r\n" for name, value in ask.forward_headers.items()]).encode("ascii")


def _serialised(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:
        message = "The body holds a number beyond 64 bits or text that is no Unicode, which cannot be sent on."
        raise UpstreamFailed("unsent", "unsendable", message, status=400, blame="request") from None
