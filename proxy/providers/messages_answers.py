"""Answers of Anthropic's Messages, passed through byte for byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from proxy.domain.asks import Ask
from proxy.domain.usage import NOTHING_USED, Usage
from proxy.gateway.ports import UpstreamFailed
from proxy.providers.connections import Head
from proxy.providers.delivered import Delivered
from proxy.providers.endings import evidence
from proxy.providers.events import data_of, split
from proxy.providers.exchanges import Exchange
from proxy.providers.failed_events import without_secrets
from proxy.providers.native_answers import (
    MODEL_CHARACTERS_MAX,
    PlainAnswer,
    StreamedAnswer,
    json_object,
)
from proxy.providers.reported_calls import calls_in_blocks, unreported, with_at_least
from proxy.providers.upstream_errors import error_in_answer
from proxy.providers.usage_readers import read_messages_usage
from proxy.telemetry.failpoints import reach

# What stands in the events that are looked at, and in no delta of a text: inside text the quotes are escaped.
_MARKS = (b'"message_', b'"content_block_st', b'"error"')

STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def error_event(message: str, code: str) -> bytes:
    """Anthropic's own way of failing a stream that has begun."""
    kind = "timeout_error" if code == "upstream_timeout" else "api_error"
    return _event({"type": "error", "error": {"type": kind, "message": message}})


class PlainMessage(PlainAnswer):
    """A message."""

    def _is_error(self, said: Mapping[str, Any]) -> bool:
        return said.get("type") == "error" or bool(said.get("error") and not said.get("content"))

    def _usage(self, said: Mapping[str, Any]) -> Usage | None:
        self._calls = unreported(calls_in_blocks(said.get("content")), said.get("usage"))
        return read_messages_usage(said.get("usage"))

    def _delivered_in(self, body: bytes) -> Delivered:
        """The texts and, as if they had been streamed, what tools are called with: no text but an object here."""
        delivered = super()._delivered_in(body)
        content = (json_object(body) or {}).get("content")
        for block in content if isinstance(content, list) else ():
            if isinstance(block, dict) and isinstance(block.get("input"), dict):
                delivered.add(json.dumps({"partial_json": json.dumps(block["input"])}).encode())
        return delivered


class PlainCount(PlainAnswer):
    """How many tokens a request has: no tokens were used to say so."""

    def _usage(self, said: Mapping[str, Any]) -> Usage | None:
        return NOTHING_USED


class StreamedMessage(StreamedAnswer):
    """A stream of a message's events, ended by `message_stop`.

    Its first event reports the input, and each `message_delta` what was used up to there: the last wins. A stream
    that ends before it says why it stopped was cut off, whatever its connection says.
    """

    def __init__(self, head: Head, exchange: Exchange, ask: Ask) -> None:
        super().__init__(head, exchange, ask)
        self._report: dict[str, Any] = {}
        self._model: str | None = None
        self._open: set[int] = set()
        self._begun = False
        self._stopped = False
        self._reported = False
        self._hosted: list[Any] = []

    @property
    def model_served(self) -> str | None:
        return self._model

    async def next(self) -> bytes | None:
        whole = await super().next()
        if whole is None and not self._stopped and not self.failed:
            message = "The model's provider broke off in the middle of its answer."
            raise UpstreamFailed("unknown", "upstream_reset", message)
        return whole

    async def end_by_length(self) -> bytes:
        """See `Answer`: the open blocks are closed, and the message says that its limit was reached."""
        if self._ended or self.failed or self._stopped or self._events.passing:
            return b""
        self._stopped = True
        self._finish(STOP)
        self._exchange.drop()
        self.usage = self._evidence()
        blocks: list[dict[str, Any]] = [
            {"type": "content_block_stop", "index": index} for index in sorted(self._open)
        ]
        delta = {"stop_reason": "max_tokens", "stop_sequence": None}
        ending = {"type": "message_delta", "delta": delta, "usage": usage_object(self.usage)}
        return b"".join(_event(each) for each in (*blocks, ending))

    def error_event(self, message: str, code: str) -> bytes:
        return (b"\n\n" if self._events.passing else b"") + error_event(message, code)

    def _read_events(self, whole: bytes) -> bytes:
        """Looks for what matters by a search of bytes, and parses only where it is found."""
        if _marked(whole):
            whole = self._sift(whole)
        self._begun = True
        self._delivered.add(whole)
        return whole

    def _sift(self, whole: bytes) -> bytes:
        kept = []
        for event in split(whole):
            failed_before = self.failed
            if not _marked(event) or self._forwards(event):
                kept.append(without_secrets(event, self.api_key) if self.failed and not failed_before else event)
            if self._ended:
                break
        return b"".join(kept)

    def _forwards(self, event: bytes) -> bool:
        said = json_object(data_of(event)) or {}
        kind = said.get("type")
        if kind == "message_start" and isinstance(message := said.get("message"), dict):
            self._begun = True
            model = message.get("model")
            self._model = model[:MODEL_CHARACTERS_MAX] if isinstance(model, str) else None
            self._take(message.get("usage"))
        elif kind == "message_delta":
            delta = said.get("delta")
            self._stopped |= isinstance(delta, dict) and delta.get("stop_reason") is not None
            self._reported |= self._take(said.get("usage"))
        elif kind == "content_block_start":
            self._open.add(_index(said))
            self._hosted += _hosted_in(said)
        elif kind == "content_block_stop":
            self._open.discard(_index(said))
        elif kind == "message_stop":
            self._stopped = True
            self._finish(event)
            return False
        elif kind == "error":
            self._fail(said)
        return True

    def _take(self, report: Any) -> bool:
        """A report, which overtakes the ones before it where it says something. Whether it is one."""
        if not isinstance(report, dict):
            return False
        self._report.update({name: value for name, value in report.items() if value is not None})
        self.usage = read_messages_usage(self._report) or self.usage
        reach("usage_seen")
        return True

    def _fail(self, said: dict[str, Any]) -> None:
        self.failed = True
        if not self._begun:
            # The message has not begun, so that nothing was made of it: another may take its place.
            self._ended = True
            self._exchange.drop()
            raise error_in_answer(said, self.status, {}, self.api_key)

    def _conclude(self) -> None:
        cut = not (self._reported and self._stopped)
        reported = self.usage
        self._calls = unreported(calls_in_blocks(self._hosted), self._report)
        super()._conclude()
        if reported is not None and cut:
            self.usage = self._evidence()

    def _evidence(self) -> Usage:
        """What was used by the time of a cut: of the input the provider's word, of the output what came."""
        usage = replace(evidence(self.usage, self._ask, self._delivered), source="estimated")
        usage = with_at_least(usage, calls_in_blocks(self._hosted))
        return usage if usage.input_tokens else replace(usage, input_tokens=self._ask.input_estimate)


def usage_object(usage: Usage) -> dict[str, Any]:
    """Anthropic's usage object of a usage."""
    cached = usage.cache_read_tokens + usage.cache_write_tokens
    return {
        "input_tokens": usage.input_tokens - cached,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "output_tokens": usage.output_tokens,
    }


def _marked(events: bytes) -> bool:
    return any(mark in events for mark in _MARKS)


def _hosted_in(said: Mapping[str, Any]) -> list[Any]:
    """The block that begins, if it calls a tool that the provider runs."""
    block = said.get("content_block")
    kind = block.get("type") if isinstance(block, dict) else None
    return [block] if kind in ("server_tool_use", "mcp_tool_use") else []


def _index(said: Mapping[str, Any]) -> int:
    index = said.get("index")
    return index if isinstance(index, int) else 0


def _event(said: Mapping[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (str(said["type"]).encode(), orjson.dumps(said))
