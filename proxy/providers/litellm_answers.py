"""LiteLLM's answers in OpenAI's own shape, with usage that tells what was reported from what was made up.

LiteLLM counts tokens itself where a stream reports none, and fills the same field with them; it puts the
usage on a chunk that has a choice, and adds fields of its own. What goes to the client is built anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from proxy.domain.asks import Ask
from proxy.domain.usage import Usage
from proxy.gateway.ports import UpstreamFailed
from proxy.providers.chat_answers import error_event
from proxy.providers.delivered import Delivered, estimated
from proxy.providers.endings import COMMON, DONE, evidence, length_events, picked, usage_object
from proxy.providers.usage_readers import read_chat_usage

if TYPE_CHECKING:
    from proxy.providers.litellm_crossing import Crossing

_CHOICE = ("index", "finish_reason", "logprobs")
_MESSAGE = ("role", "content", "refusal", "reasoning_content")
_CALL = ("index", "id", "type")
_THINKING = ("type", "thinking", "signature", "data")


class Stream(Protocol):
    """LiteLLM's stream: `chunks` are those of the provider, before anything is added to them."""

    chunks: list[Any]

    def __aiter__(self) -> AsyncIterator[Any]: ...

    async def aclose(self) -> None: ...


class WholeTranslation:
    """A whole answer, translated: its body as it goes to the client, and what it used."""

    streamed = False
    status = 200
    content_type = "application/json"
    tail = b""
    failed = False

    def __init__(
        self, body: bytes, usage: Usage, model_served: str | None, provider_request_id: str | None
    ) -> None:
        self.provider_request_id = provider_request_id
        self.model_served = model_served
        self.usage: Usage | None = usage
        self._body = body

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


class PlainTranslation(WholeTranslation):
    """A chat completion."""

    def __init__(
        self,
        answer: Mapping[str, Any],
        ask: Ask,
        provider_request_id: str | None,
        crossing: Crossing | None = None,
    ) -> None:
        choices = [_choice(choice, "message") for choice in answer.get("choices") or []]
        if crossing is not None and crossing.reports.by_length:
            choices = [{**choice, "finish_reason": "length"} for choice in choices]
        said = {**picked(answer, COMMON), "object": "chat.completion", "choices": choices}
        reported = crossing.reports.usage() if crossing else read_chat_usage(answer.get("usage"))
        if reported is not None:
            said["usage"] = usage_object(reported)
        body = orjson.dumps(said)
        if reported is None:
            delivered = Delivered()
            delivered.add(body)
            reported = estimated(ask, delivered)
        request_id = crossing.provider_request_id if crossing else provider_request_id
        super().__init__(body, reported, text_of(answer.get("model")), request_id)


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
        crossing: Crossing | None = None,
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
        self._crossing = crossing
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
                self._refuse_forged_end(chunk)
            except StopAsyncIteration:
                return self._conclude()
            except BaseException as error:
                self._ended = True
                self._settle_usage()
                await self._close()
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

    def _refuse_forged_end(self, chunk: Any) -> None:
        """LiteLLM ends a stream that has just stopped as if it were complete."""
        crossing = self._crossing
        if crossing is None or not any(choice.finish_reason for choice in chunk.choices):
            return
        if crossing.failure is not None:
            raise crossing.failure
        if not crossing.reports.ended:
            raise _broken_off()

    def _translated(self, chunk: Any) -> bytes:
        said = chunk.model_dump()
        self._common = {**picked(said, COMMON), "object": "chat.completion.chunk"}
        self.model_served = self.model_served or self._model_of(said)
        self._report = said.get("usage") or self._report
        choices = [_choice(choice, "delta") for choice in said.get("choices") or []]
        for choice in choices:
            if choice["finish_reason"] and self._crossing is not None and self._crossing.reports.by_length:
                choice["finish_reason"] = "length"
        if said.get("usage") and not any(c["delta"] or c.get("finish_reason") for c in choices):
            return b""
        spare = {"usage": None} if self._ask.usage_asked else {}
        event = b"data: %b\n\n" % orjson.dumps({**self._common, "choices": choices, **spare})
        self._delivered.add(event)
        return event

    def _model_of(self, said: Mapping[str, Any]) -> str | None:
        """What the provider itself calls it; LiteLLM repeats what was asked for."""
        return (self._crossing and self._crossing.reports.model_served) or text_of(said.get("model"))

    async def _close(self) -> None:
        if self._crossing is not None:
            self._crossing.end()
        await self._stream.aclose()

    def _conclude(self) -> bytes | None:
        self._ended = True
        if self._crossing is not None:
            self._crossing.end()
        self._settle_usage()
        assert self.usage is not None
        reported = self.usage.source == "provider"
        if self._crossing is not None and self._crossing.failure is not None:
            raise self._crossing.failure
        if self._crossing is not None and not self._crossing.reports.ended:
            raise _broken_off()
        if self._crossing is None and not reported and not self._delivered.tokens():
            message = "The model's provider answered with a stream that cannot be read."
            raise UpstreamFailed("unknown", "upstream_unreadable", message)
        self.tail = DONE
        if reported and self._ask.usage_asked:
            last = {**self._common, "choices": [], "usage": usage_object(self.usage)}
            return b"data: %b\n\n" % orjson.dumps(last)
        return None

    def _settle_usage(self) -> None:
        if self._crossing is not None:
            self.provider_request_id = self._crossing.provider_request_id or self.provider_request_id
            reports = self._crossing.reports
            self.usage = reports.usage()
            if not reports.ended:
                self.usage = evidence(self.usage, self._ask, self._delivered)
        elif any(getattr(chunk, "usage", None) for chunk in self._stream.chunks):
            self.usage = read_chat_usage(self._report)
        if self.usage is None:
            self.usage = estimated(self._ask, self._delivered)

    async def end_by_length(self) -> bytes:
        """See `Answer`."""
        finished = self._delivered.finished()
        if self._ended or len(finished) >= self._ask.choices:
            return b""
        self._ended = True
        await self._close()
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
        # LiteLLM numbers the calls of a whole answer by Claude's blocks; OpenAI does not number them at all.
        names = _CALL if part == "delta" else _CALL[1:]
        message["tool_calls"] = [_tool_call(call, names) for call in said["tool_calls"]]
    signed = [picked(block, _THINKING) for block in said.get("thinking_blocks") or [] if _is_signed(block)]
    if signed:
        message["thinking_blocks"] = signed
    made[part] = message
    return made


def _is_signed(block: Any) -> bool:
    """Claude wants its thinking back with its tool calls, and takes it only with what signs it."""
    return isinstance(block, dict) and bool(block.get("signature") or block.get("data"))


def _broken_off() -> UpstreamFailed:
    message = "The model's provider broke off before its answer was complete."
    return UpstreamFailed("unknown", "upstream_reset", message)


def _tool_call(call: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {**picked(call, names), "function": picked(call.get("function") or {}, ("name", "arguments"))}


def text_of(value: Any) -> str | None:
    return value[:256] if isinstance(value, str) else None
