"""LiteLLM's answers in OpenAI's own shape, with usage that tells what was reported from what was made up.

LiteLLM counts tokens itself where a stream reports none, and fills the same field with them; it puts the
usage on a chunk that has a choice, and adds fields of its own. What goes to the client is built anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol

import orjson

from proxy.domain.asks import Ask
from proxy.domain.usage import Usage
from proxy.gateway.ports import UpstreamFailed
from proxy.providers.chat_answers import error_event
from proxy.providers.delivered import Delivered, estimated
from proxy.providers.endings import COMMON, DONE, evidence, length_events, picked, usage_object
from proxy.providers.usage_readers import read_chat_usage

_CHOICE = ("index", "finish_reason", "logprobs")
_MESSAGE = ("role", "content", "refusal", "reasoning_content")
_CALL = ("index", "id", "type")


class Stream(Protocol):
    """LiteLLM's stream: `chunks` are those of the provider, before anything is added to them."""

    chunks: list[Any]

    def __aiter__(self) -> AsyncIterator[Any]: ...

    async def aclose(self) -> None: ...


class PlainTranslation:
    """A whole answer, translated."""

    streamed = False
    status = 200
    content_type = "application/json"
    tail = b""
    failed = False

    def __init__(self, answer: Mapping[str, Any], ask: Ask, provider_request_id: str | None) -> None:
        self.provider_request_id = provider_request_id
        self.model_served = _text(answer.get("model"))
        choices = [_choice(choice, "message") for choice in answer.get("choices") or []]
        said = {**picked(answer, COMMON), "object": "chat.completion", "choices": choices}
        reported = read_chat_usage(answer.get("usage"))
        if reported is not None:
            said["usage"] = usage_object(reported)
        self._body = orjson.dumps(said)
        if reported is None:
            delivered = Delivered()
            delivered.add(self._body)
            reported = estimated(ask, delivered)
        self.usage: Usage | None = reported

    async def read(self) -> bytes:
        return self._body

    async def next(self) -> bytes | None:
        raise TypeError("a plain answer has no events; read() it")

    async def end_by_length(self) -> bytes:
        raise TypeError("a plain answer has no events; read() it")

    def observed_output_tokens(self) -> int:
        return self.usage.output_tokens if self.usage else 0

    def error_event(self, message: str, code: str) -> bytes:
        return error_event(message, code)

    def abort(self) -> None:
        return None


class StreamTranslation:
    """A stream, translated chunk by chunk. `failure` turns what LiteLLM raises into `UpstreamFailed`."""

    streamed = True
    status = 200
    content_type = "text/event-stream; charset=utf-8"

    def __init__(
        self,
        stream: Stream,
        ask: Ask,
        provider_request_id: str | None,
        deadlines_s: tuple[float, float],
        failure: Callable[[Exception], UpstreamFailed],
    ) -> None:
        self.provider_request_id = provider_request_id
        self.model_served: str | None = None
        self.usage: Usage | None = None
        self.tail = b""
        self.failed = False
        self._stream = stream
        self._chunks = stream.__aiter__()
        self._ask = ask
        self._deadline_s, self._idle_s = deadlines_s
        self._failure = failure
        self._delivered = Delivered()
        self._report: Any = None
        self._common: dict[str, Any] = {}
        self._ended = False
        self._aborted = False
        self._waiting: asyncio.Timeout | None = None

    async def read(self) -> bytes:
        raise TypeError("a streamed answer has no body; take its events by next()")

    async def next(self) -> bytes | None:
        """One event, ready to forward; None at the end. Raises `UpstreamFailed`, `usage` being set then too."""
        while not self._ended:
            try:
                chunk = await self._following()
            except StopAsyncIteration:
                return self._conclude()
            except BaseException as error:
                self._ended = True
                self._settle_usage()
                await self._stream.aclose()
                if isinstance(error, Exception):
                    raise self._failure(error) from None
                raise
            event = self._translated(chunk)
            if event:
                return event
        return None

    async def _following(self) -> Any:
        try:
            async with asyncio.timeout(self._deadline_s) as self._waiting:
                if self._aborted:
                    raise TimeoutError
                return await anext(self._chunks)
        except TimeoutError:
            if self._aborted:
                message = "The call to the model's provider was given up."
                raise UpstreamFailed("unknown", "aborted", message) from None
            raise
        finally:
            self._waiting = None
            self._deadline_s = self._idle_s

    def _translated(self, chunk: Any) -> bytes:
        said = chunk.model_dump()
        self._common = {**picked(said, COMMON), "object": "chat.completion.chunk"}
        self.model_served = self.model_served or _text(said.get("model"))
        self._report = said.get("usage") or self._report
        choices = [_choice(choice, "delta") for choice in said.get("choices") or []]
        if said.get("usage") and not any(c["delta"] or c.get("finish_reason") for c in choices):
            return b""
        spare = {"usage": None} if self._ask.usage_asked else {}
        event = b"data: %b\n\n" % orjson.dumps({**self._common, "choices": choices, **spare})
        self._delivered.add(event)
        return event

    def _conclude(self) -> bytes | None:
        self._ended = True
        self._settle_usage()
        assert self.usage is not None
        reported = self.usage.source == "provider"
        if not reported and not self._delivered.tokens():
            message = "The model's provider answered with a stream that cannot be read."
            raise UpstreamFailed("unknown", "upstream_unreadable", message)
        self.tail = DONE
        if reported and self._ask.usage_asked:
            last = {**self._common, "choices": [], "usage": usage_object(self.usage)}
            return b"data: %b\n\n" % orjson.dumps(last)
        return None

    def _settle_usage(self) -> None:
        if any(getattr(chunk, "usage", None) for chunk in self._stream.chunks):
            self.usage = read_chat_usage(self._report)
        if self.usage is None:
            self.usage = estimated(self._ask, self._delivered)

    async def end_by_length(self) -> bytes:
        """See `Answer`."""
        finished = self._delivered.finished()
        if self._ended or len(finished) >= self._ask.choices:
            return b""
        self._ended = True
        await self._stream.aclose()
        self._settle_usage()
        self.usage = evidence(self.usage, self._ask, self._delivered)
        self.tail = DONE
        return length_events(self._common, self._ask, finished, self.usage)

    def observed_output_tokens(self) -> int:
        return self._delivered.tokens()

    def error_event(self, message: str, code: str) -> bytes:
        return error_event(message, code)

    def abort(self) -> None:
        """Ends the wait in `next`, which then closes the upstream's connection."""
        self._aborted = True
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())


def _choice(choice: Mapping[str, Any], part: str) -> dict[str, Any]:
    said = choice.get(part) or {}
    made: dict[str, Any] = {name: choice.get(name) for name in _CHOICE}
    made["index"] = made["index"] or 0
    message = picked(said, _MESSAGE)
    if part == "message":
        message.setdefault("content", None)
    if said.get("tool_calls"):
        message["tool_calls"] = [_tool_call(call) for call in said["tool_calls"]]
    made[part] = message
    return made


def _tool_call(call: Mapping[str, Any]) -> dict[str, Any]:
    return {**picked(call, _CALL), "function": picked(call.get("function") or {}, ("name", "arguments"))}


def _text(value: Any) -> str | None:
    return value[:256] if isinstance(value, str) else None
