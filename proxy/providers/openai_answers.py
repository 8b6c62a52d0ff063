"""Answers on the OpenAI wire, passed through byte for byte while their usage is read."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from proxy.domain.asks import Ask
from proxy.domain.usage import Usage
from proxy.gateway.ports import UpstreamFailed
from proxy.providers.connections import Exchange, Head
from proxy.providers.delivered import Delivered, estimated
from proxy.providers.endings import DONE, common_of, evidence, length_events
from proxy.providers.events import WholeEvents, data_of, split
from proxy.providers.upstream_errors import error_in_answer, request_id_of
from proxy.providers.usage_readers import read_chat_usage
from proxy.telemetry.failpoints import reach

BODY_BYTES_MAX = 32 * 1024 * 1024
MODEL_CHARACTERS_MAX = 256

# `"usage":null` stands in every chunk of a stream that was asked for usage. Inside text the quotes are escaped.
_USAGE = re.compile(rb'"usage"\s*:\s*[^\sn]')
_MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]{1,256})"')


def error_event(message: str, code: str) -> bytes:
    """OpenAI's own way of failing a stream that has begun."""
    error = {"message": message, "type": "upstream_error", "param": None, "code": code}
    return b"data: %b\n\n" % orjson.dumps({"error": error})


class PlainAnswer:
    """One JSON body, read whole and passed on as it is."""

    streamed = False
    tail = b""

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

    async def read(self) -> bytes:
        """The body; `usage` is set then. Raises `UpstreamFailed`."""
        body = await self._exchange.whole(BODY_BYTES_MAX)
        said = _object(body)
        if said is None:
            message = "The model's provider answered with something that is no JSON object."
            raise UpstreamFailed(
                "unknown", "upstream_unreadable", message, provider_request_id=self.provider_request_id
            )
        if said.get("error") and not said.get("choices"):
            raise error_in_answer(said, self.status, self._headers)
        model = said.get("model")
        self.model_served = model[:MODEL_CHARACTERS_MAX] if isinstance(model, str) else None
        self.usage = read_chat_usage(said.get("usage"))
        reach("usage_seen")
        if self.usage is None:
            delivered = Delivered()
            delivered.add(body)
            self.usage = estimated(self._ask, delivered)
        return body

    async def next(self) -> bytes | None:
        raise TypeError("a plain answer has no events; read() it")

    async def end_by_length(self) -> bytes:
        raise TypeError("a plain answer has no events; read() it")

    def observed_output_tokens(self) -> int:
        return self.usage.output_tokens if self.usage else 0

    def error_event(self, message: str, code: str) -> bytes:
        return error_event(message, code)

    def abort(self) -> None:
        self._exchange.drop()


class StreamedAnswer:
    """A stream of events, each passed on whole. `[DONE]` is held back in `tail`; what follows it is ignored.

    The chunk that carries nothing but the usage is taken out unless the client asked for it. The last report
    wins: some upstreams send running totals. A stream that ends without `[DONE]` keeps doing so.
    """

    streamed = True

    def __init__(self, head: Head, exchange: Exchange, ask: Ask) -> None:
        self.status = head.code
        self.content_type = "text/event-stream; charset=utf-8"
        self.provider_request_id = request_id_of(head.headers)
        self.usage: Usage | None = None
        self.tail = b""
        self.failed = False
        self._first = b""
        self._newest = b""
        self._exchange = exchange
        self._ask = ask
        self._events = WholeEvents()
        self._delivered = Delivered()
        self._ended = False

    async def read(self) -> bytes:
        raise TypeError("a streamed answer has no body; take its events by next()")

    async def next(self) -> bytes | None:
        """Whole events, ready to forward; None at the end. Raises `UpstreamFailed`, `usage` being set then too."""
        while not self._ended:
            try:
                data = await self._exchange.some()
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

    @property
    def model_served(self) -> str | None:
        found = _MODEL.search(self._first)
        return found.group(1).decode("utf-8", "replace") if found else None

    def observed_output_tokens(self) -> int:
        return self._delivered.tokens()

    async def end_by_length(self) -> bytes:
        """See `Answer`. A usage that has come stands, unless more was delivered than it tells of."""
        finished = self._delivered.finished()
        over = self._ended or self.failed or len(finished) >= self._ask.choices
        if over or self._events.passing:
            return b""
        self._ended = True
        self._exchange.drop()
        self.usage = evidence(self.usage, self._ask, self._delivered)
        self.tail = DONE
        return length_events(common_of(self._newest), self._ask, finished, self.usage)

    def error_event(self, message: str, code: str) -> bytes:
        return error_event(message, code)

    def abort(self) -> None:
        self._exchange.drop()

    def _read(self, whole: bytes) -> bytes:
        unread = self._events.unread
        if unread:
            return whole[:unread] + (self._read_events(whole[unread:]) if unread < len(whole) else b"")
        return self._read_events(whole)

    def _read_events(self, whole: bytes) -> bytes:
        """Looks for what matters by a search of bytes, and parses only where it is found."""
        if not self._first:
            self._first = whole
        if b"[DONE]" in whole or b'"error"' in whole or (b'"usage"' in whole and _USAGE.search(whole)):
            whole = self._sift(whole)
        self._newest = whole
        self._delivered.add(whole)
        return whole

    def _sift(self, whole: bytes) -> bytes:
        kept = []
        for event in split(whole):
            if self._forwards(event):
                kept.append(event)
            if self._ended:
                break
        return b"".join(kept)

    def _forwards(self, event: bytes) -> bool:
        data = data_of(event)
        if data.strip() == b"[DONE]":
            self.tail = event
            self._ended = True
            return False
        if b'"error"' not in data and not _USAGE.search(data):
            return True
        said = _object(data)
        if said is None:
            return True
        if said.get("error"):
            self.failed = True
        report = said.get("usage")
        if report is None:
            return True
        self.usage = read_chat_usage(report) or self.usage
        reach("usage_seen")
        return bool(said.get("choices") or said.get("error") or self._ask.usage_asked)

    def _conclude(self) -> None:
        self._ended = True
        self._exchange.finish()
        if self.usage is None:
            self.usage = estimated(self._ask, self._delivered)


def _object(body: bytes) -> dict[str, Any] | None:
    """A JSON object. What orjson refuses (NaN, numbers beyond a double) Python's reader may still take."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            return None
    return said if isinstance(said, dict) else None
