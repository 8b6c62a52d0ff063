"""Answers of a native wire, passed through byte for byte while their usage is read: what all endpoints share.

An endpoint's own answers say what its usage looks like, which events end its stream, and how it fails or is cut
short in its own words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson

from proxy.domain.asks import Ask
from proxy.domain.usage import Usage
from proxy.gateway.ports import UpstreamFailed
from proxy.providers.connections import Head
from proxy.providers.delivered import Delivered, estimated
from proxy.providers.events import WholeEvents
from proxy.providers.exchanges import Exchange
from proxy.providers.reported_calls import with_calls
from proxy.providers.upstream_errors import error_in_answer, request_id_of
from proxy.telemetry.failpoints import reach

BODY_BYTES_MAX = 32 * 1024 * 1024
MODEL_CHARACTERS_MAX = 256


class PlainAnswer:
    """One JSON body, read whole and passed on as it is."""

    streamed = False
    tail = b""
    api_key: str | None = None
    """The upstream's key, which no error may tell."""

    def __init__(self, head: Head, exchange: Exchange, ask: Ask) -> None:
        self.status = head.code
        self.content_type = "application/json"
        self.provider_request_id = request_id_of(head.headers)
        self.usage: Usage | None = None
        self.model_served: str | None = None
        self.failed = False
        self._headers = head.headers
        self._exchange = exchange
        self._ask = ask
        self._calls: Mapping[str, int] = {}
        """What was counted of the provider's own tools, beside what it reports of them."""

    def _is_error(self, said: Mapping[str, Any]) -> bool:
        """Whether the body is an error under a status of 2xx, as some aggregators send it."""
        return bool(said.get("error"))

    def _bytes_max(self) -> int:
        return BODY_BYTES_MAX

    def _said(self, body: bytes) -> dict[str, Any] | None:
        """What matters of the body; None if it is no JSON object."""
        return json_object(body)

    def _usage(self, said: Mapping[str, Any]) -> Usage | None:
        """What the body reports; None if it reports nothing."""
        raise NotImplementedError

    def _delivered_in(self, body: bytes) -> Delivered:
        """What was made, for an estimate where nothing is reported."""
        delivered = Delivered()
        delivered.add(body)
        return delivered

    async def read(self) -> bytes:
        """The body; `usage` is set then. Raises `UpstreamFailed`."""
        body = await self._exchange.whole(self._bytes_max())
        said = self._said(body)
        if said is None:
            message = "The model's provider answered with something that is no JSON object."
            raise UpstreamFailed(
                "unknown", "upstream_unreadable", message, provider_request_id=self.provider_request_id
            )
        if self._is_error(said):
            raise error_in_answer(said, self.status, self._headers, self.api_key)
        model = said.get("model")
        self.model_served = model[:MODEL_CHARACTERS_MAX] if isinstance(model, str) else None
        self.usage = self._usage(said)
        reach("usage_seen")
        if self.usage is None:
            self.usage = estimated(self._ask, self._delivered_in(body))
        self.usage = with_calls(self.usage, self._calls)
        return body

    async def next(self) -> bytes | None:
        raise TypeError("a plain answer has no events; read() it")

    async def end_by_length(self) -> bytes:
        raise TypeError("a plain answer has no events; read() it")

    def observed_output_tokens(self) -> int:
        return self.usage.output_tokens if self.usage else 0

    def error_event(self, message: str, code: str) -> bytes:
        raise TypeError("a plain answer has no events; read() it")

    def abort(self) -> None:
        self._exchange.drop()


class StreamedAnswer:
    """A stream of events, each passed on whole, the wire's own ending held back in `tail`.

    An endpoint's stream looks for what matters in `_read_events`: it sets `usage` and `failed`, calls `_finish`
    with the wire's ending when that has come, and returns what is to be forwarded before it.
    """

    streamed = True
    api_key: str | None = None
    """As `PlainAnswer`'s."""

    def __init__(self, head: Head, exchange: Exchange, ask: Ask) -> None:
        self.status = head.code
        self.content_type = "text/event-stream; charset=utf-8"
        self.provider_request_id = request_id_of(head.headers)
        self.usage: Usage | None = None
        self.tail = b""
        self.failed = False
        self._exchange = exchange
        self._ask = ask
        self._events = WholeEvents()
        self._delivered = Delivered()
        self._ended = False
        self._calls: Mapping[str, int] = {}
        """As `PlainAnswer`'s."""

    def _read_events(self, whole: bytes) -> bytes:
        """Whole events in, what is to be forwarded of them out. Called for every read: no parsing in vain."""
        raise NotImplementedError

    @property
    def model_served(self) -> str | None:
        """What the provider calls the model that really answered."""
        raise NotImplementedError

    async def read(self) -> bytes:
        raise TypeError("a streamed answer has no body; take its events by next()")

    async def next(self) -> bytes | None:
        """Whole events, ready to forward; None at the end. Raises `UpstreamFailed`, `usage` being set then too."""
        while not self._ended:
            try:
                data = await self._some()
            except BaseException:
                self._conclude()
                raise
            if data:
                whole = self._events.feed(data)
            else:
                whole = self._events.rest()
                self._ended = True
            if whole:
                whole = self._read(whole)
            if self._ended:
                self._conclude()
            if whole:
                return whole
        return None

    def observed_output_tokens(self) -> int:
        return self._delivered.tokens()

    async def end_by_length(self) -> bytes:
        raise NotImplementedError

    def error_event(self, message: str, code: str) -> bytes:
        raise NotImplementedError

    def abort(self) -> None:
        self._exchange.drop()

    async def _some(self) -> bytes:
        """What has come, waiting for it; empty at the end."""
        return await self._exchange.some()

    def _read(self, whole: bytes) -> bytes:
        unread = self._events.unread
        if unread:
            return whole[:unread] + (self._read_events(whole[unread:]) if unread < len(whole) else b"")
        return self._read_events(whole)

    def _finish(self, tail: bytes) -> None:
        """The wire's ending has come; what follows it is ignored."""
        self.tail = tail
        self._ended = True

    def _conclude(self) -> None:
        self._ended = True
        self._exchange.finish()
        if self.usage is None:
            self.usage = estimated(self._ask, self._delivered)
        self.usage = with_calls(self.usage, self._calls)


def json_object(body: bytes) -> dict[str, Any] | None:
    """A JSON object. What orjson refuses (NaN, numbers beyond a double) Python's reader may still take."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            return None
    return said if isinstance(said, dict) else None
