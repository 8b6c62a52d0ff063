"""Answers of the Responses wire: a response object, or a stream that ends with one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import orjson

from proxy.domain.asks import Ask
from proxy.domain.usage import Usage
from proxy.gateway.ports import Dispatch, KeptResponse, UpstreamFailed
from proxy.providers.connections import Head
from proxy.providers.delivered import Delivered, estimated
from proxy.providers.endings import evidence
from proxy.providers.events import WholeEvents, data_of, split
from proxy.providers.exchanges import Exchange
from proxy.providers.failed_events import without_secrets
from proxy.providers.native_answers import PlainAnswer, StreamedAnswer, json_object
from proxy.providers.reported_calls import calls_in_items, with_calls
from proxy.providers.responses_delivered import ResponsesDelivered
from proxy.providers.usage_readers import read_responses_usage
from proxy.telemetry.failpoints import reach

# The last event tells the whole answer once more, images and all.
EVENT_BYTES_MAX = 16 * 1024 * 1024
# What an upstream may say after its last event, and how long it is waited for.
AFTERWORD_BYTES_MAX = 64 * 1024
AFTERWORD_S = 0.1
KEPT_ITEMS_MAX = 256

_LAST = frozenset(("response.completed", "response.incomplete", "response.failed"))
# Inside text the quotes are escaped.
_TELLING = (b'"response.completed"', b'"response.incomplete"', b'"response.failed"', b'"error"')
_SEQUENCE = re.compile(rb'"sequence_number"\s*:\s*(\d{1,15})')
_MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]{1,256})"')
_ID = re.compile(r"[A-Za-z0-9_\-]{1,256}")

# Items that are all the model's own making; others also hold what the provider has found.
_MADE = frozenset(("message", "reasoning", "function_call", "custom_tool_call"))


def responses_body(dispatch: Dispatch) -> dict[str, Any]:
    """The client's body with the upstream's model and the admitted output limit."""
    return {
        **dispatch.ask.body,
        "model": dispatch.upstream_model,
        "max_output_tokens": dispatch.output_limit,
    }


class PlainResponses(PlainAnswer):
    """A response object. One that failed is an answer too, with its own error and perhaps with usage."""

    kept: KeptResponse | None = None

    def _is_error(self, said: Mapping[str, Any]) -> bool:
        return bool(said.get("error")) and said.get("object") != "response"

    def _usage(self, said: Mapping[str, Any]) -> Usage | None:
        self.failed = said.get("status") == "failed"
        self.kept = kept_of(said)
        self._calls = calls_in_items(said.get("output"), self._ask)
        return read_responses_usage(said.get("usage"))


class StreamedResponses(StreamedAnswer):
    """A stream of named events; the last one, with the whole response in it, is held back in `tail`.

    What an upstream says after it (some add `[DONE]`) belongs to the tail as well. A stream that ends without a
    last event keeps doing so.
    """

    def __init__(self, head: Head, exchange: Exchange, ask: Ask) -> None:
        super().__init__(head, exchange, ask)
        self.kept: KeptResponse | None = None
        self._events = WholeEvents(EVENT_BYTES_MAX)
        self._told = ResponsesDelivered()
        self._delivered = self._told
        self._opening = b""
        self._newest = b""
        self._over = False
        self._last_bytes = 0

    @property
    def model_served(self) -> str | None:
        found = _MODEL.search(self._opening)
        return found.group(1).decode("utf-8", "replace") if found else None

    async def end_by_length(self) -> bytes:
        """See `Answer`. A usage that has come stands, unless more was delivered than it tells of."""
        if self._over or self._ended or self.failed or self._events.passing:
            return b""
        self._finish(b"")
        self._exchange.drop()
        usage = evidence(self.usage, self._ask, self._delivered)
        self.usage = with_calls(usage, calls_in_items(self._told.begun(), self._ask))
        events, output = self._told.closing()
        response = {
            **self._response(),
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "output": output,
            "usage": usage_object(self.usage),
        }
        events.append({"type": "response.incomplete", "response": response})
        return self._numbered(events)

    def error_event(self, message: str, code: str) -> bytes:
        """The stream's own way of failing: a bare `error` event makes some clients send the request again."""
        events: list[dict[str, Any]] = []
        response = self._response()
        if not self._opening:
            events.append({"type": "response.created", "response": response})
        error = {"code": code, "message": message}
        failed = {**response, "status": "failed", "error": error, "output": self._told.closing()[1]}
        events.append({"type": "response.failed", "response": failed})
        return (b"\n\n" if self._events.passing else b"") + self._numbered(events)

    def _numbered(self, events: list[dict[str, Any]]) -> bytes:
        numbers = _SEQUENCE.findall(self._newest)
        next_number = int(numbers[-1]) + 1 if numbers else 0
        return b"".join(
            b"event: %b\ndata: %b\n\n"
            % (event["type"].encode(), orjson.dumps({**event, "sequence_number": number}))
            for number, event in enumerate(events, next_number)
        )

    def _response(self) -> dict[str, Any]:
        """The response as the stream has announced it; if it has not, the least that makes one."""
        for event in split(self._opening):
            if b'"response.created"' in event:
                response = (json_object(data_of(event)) or {}).get("response")
                if isinstance(response, dict):
                    return response
        return {
            "id": "resp_unknown",
            "object": "response",
            "created_at": 0,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "model": self._ask.model,
            "output": [],
            "parallel_tool_calls": True,
            "temperature": None,
            "tool_choice": "auto",
            "tools": [],
            "top_p": None,
            "usage": None,
        }

    async def _some(self) -> bytes:
        if not self._over:
            return await self._exchange.some()
        if len(self.tail) > AFTERWORD_BYTES_MAX + self._last_bytes:
            return b""
        try:
            async with asyncio.timeout(AFTERWORD_S):
                return await self._exchange.some()
        except (UpstreamFailed, TimeoutError):
            # The answer is complete; how its connection ends does not matter to anybody.
            return b""

    def _read_events(self, whole: bytes) -> bytes:
        """Looks for what matters by a search of bytes, and parses only where it is found."""
        if not self._opening and b'"response.created"' in whole:
            self._opening = whole
        if self._over or any(word in whole for word in _TELLING):
            whole = self._sift(whole)
        if b'"sequence_number"' in whole:
            self._newest = whole
        self._delivered.add(whole)
        if self._over and self.usage is None:
            self.usage = self._best_guess()
        return whole

    def _sift(self, whole: bytes) -> bytes:
        kept = []
        for event in split(whole):
            if self._over:
                self.tail += event
            elif self._goes_on(event):
                kept.append(without_secrets(event, self.api_key) if self.failed else event)
        return b"".join(kept)

    def _goes_on(self, event: bytes) -> bool:
        """Whether the stream does after this event, which is its last one otherwise."""
        if not any(word in event for word in _TELLING):
            return True
        said = json_object(data_of(event))
        if said is None:
            return True
        kind = said.get("type")
        if kind == "error" or (kind is None and said.get("error")):
            self.failed = True
        response = said.get("response")
        if kind not in _LAST or not isinstance(response, dict):
            return True
        self.failed = self.failed or kind == "response.failed"
        self.kept = kept_of(response)
        self._calls = calls_in_items(response.get("output"), self._ask)
        self.usage = read_responses_usage(response.get("usage"))
        reach("usage_seen")
        self._over = True
        self.tail = without_secrets(event, self.api_key) if self.failed else event
        self._last_bytes = len(self.tail)
        return False

    def _conclude(self) -> None:
        if not self._over:
            self._calls = calls_in_items(self._told.begun(), self._ask)
        super()._conclude()

    def _best_guess(self) -> Usage:
        """A stream may have told its text in pieces, or in its last event only."""
        repeated = Delivered()
        repeated.add(self.tail)
        return max(
            estimated(self._ask, self._delivered),
            estimated(self._ask, repeated),
            key=lambda usage: usage.output_tokens,
        )


def kept_of(response: Mapping[str, Any]) -> KeptResponse | None:
    """What the upstream says it keeps; None where it keeps nothing, or calls it what nobody could ask for."""
    id = response.get("id")
    if response.get("store") is False or not isinstance(id, str) or _ID.fullmatch(id) is None:
        return None
    output = response.get("output")
    made: list[str] = []
    gathered: list[str] = []
    for item in (output if isinstance(output, list) else [])[:KEPT_ITEMS_MAX]:
        item_id = item.get("id") if isinstance(item, dict) else None
        if isinstance(item_id, str) and _ID.fullmatch(item_id) is not None:
            (made if item.get("type") in _MADE else gathered).append(item_id)
    return KeptResponse(id, tuple(made), tuple(gathered))


def usage_object(usage: Usage) -> dict[str, Any]:
    """The wire's usage object of a reported usage."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
