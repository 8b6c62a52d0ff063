"""Answers of chat completions on the OpenAI wire."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from proxy.domain.asks import Ask
from proxy.domain.usage import Usage
from proxy.providers.connections import Head
from proxy.providers.endings import DONE, NO_MORE, common_of, evidence, length_events
from proxy.providers.events import data_of, split
from proxy.providers.exchanges import Exchange
from proxy.providers.failed_events import without_secrets
from proxy.providers.native_answers import PlainAnswer, StreamedAnswer, json_object
from proxy.providers.reported_calls import asked_calls, with_calls
from proxy.providers.upstream_errors import error_in_answer
from proxy.providers.usage_readers import chat_usage_of, report_in
from proxy.telemetry.failpoints import reach

# `"usage":null` stands in every chunk of a stream that was asked for usage. Inside text the quotes are escaped.
_USAGE = re.compile(rb'"usage"\s*:\s*[^\sn]')
_MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]{1,256})"')


def error_event(message: str, code: str) -> bytes:
    """OpenAI's own way of failing a stream that has begun."""
    error = {"message": message, "type": "upstream_error", "param": None, "code": code}
    return b"data: %b\n\n" % orjson.dumps({"error": error})


class PlainChat(PlainAnswer):
    """A chat completion."""

    def __init__(self, head: Head, exchange: Exchange, ask: Ask) -> None:
        super().__init__(head, exchange, ask)
        self._calls = asked_calls(ask)

    def _is_error(self, said: Mapping[str, Any]) -> bool:
        return bool(said.get("error") and not said.get("choices"))

    def _usage(self, said: Mapping[str, Any]) -> Usage | None:
        return chat_usage_of(said)


class StreamedChat(StreamedAnswer):
    """A stream of chunks, ended by `[DONE]`.

    The chunk that carries nothing but the usage is taken out unless the client asked for it. The last report
    wins: some upstreams send running totals. A stream that ends without `[DONE]` keeps doing so.
    """

    chunk_object = "chat.completion.chunk"
    no_more: Mapping[str, Any] = NO_MORE

    def __init__(self, head: Head, exchange: Exchange, ask: Ask) -> None:
        super().__init__(head, exchange, ask)
        self._first = b""
        self._begun = False
        self._newest = b""
        self._calls = asked_calls(ask)

    @property
    def model_served(self) -> str | None:
        found = _MODEL.search(self._first)
        return found.group(1).decode("utf-8", "replace") if found else None

    async def end_by_length(self) -> bytes:
        """See `Answer`. A usage that has come stands, unless more was delivered than it tells of."""
        finished = self._delivered.finished()
        over = self._ended or self.failed or len(finished) >= self._ask.choices
        if over or self._events.passing:
            return b""
        self._finish(DONE)
        self._exchange.drop()
        self.usage = with_calls(evidence(self.usage, self._ask, self._delivered), self._calls)
        common = common_of(self._newest, self.chunk_object)
        return length_events(common, self._ask, finished, self.usage, self.no_more)

    def error_event(self, message: str, code: str) -> bytes:
        return (b"\n\n" if self._events.passing else b"") + error_event(message, code)

    def _read_events(self, whole: bytes) -> bytes:
        """Looks for what matters by a search of bytes, and parses only where it is found."""
        if not self._first:
            self._first = whole
        if b"[DONE]" in whole or b'"error"' in whole or (b'"usage"' in whole and _USAGE.search(whole)):
            whole = self._sift(whole)
        self._begun = True
        self._newest = whole
        self._delivered.add(whole)
        return whole

    def _sift(self, whole: bytes) -> bytes:
        kept = []
        for event in split(whole):
            failed_before = self.failed
            if self._forwards(event):
                kept.append(without_secrets(event, self.api_key) if self.failed and not failed_before else event)
                self._begun = True
            if self._ended:
                break
        return b"".join(kept)

    def _fail(self, said: dict[str, Any]) -> None:
        self.failed = True
        if not self._begun and not said.get("choices"):
            # Nothing was made of it, so that another may take its place.
            self._ended = True
            self._exchange.drop()
            raise error_in_answer(said, self.status, {}, self.api_key)

    def _forwards(self, event: bytes) -> bool:
        data = data_of(event)
        if data.strip() == b"[DONE]":
            self._finish(event)
            return False
        if b'"error"' not in data and not _USAGE.search(data):
            return True
        said = json_object(data)
        if said is None:
            return True
        if said.get("error"):
            self._fail(said)
        if report_in(said) is None:
            return True
        self.usage = chat_usage_of(said) or self.usage
        reach("usage_seen")
        return bool(said.get("choices") or said.get("error") or self._ask.usage_asked)
