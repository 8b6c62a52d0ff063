"""A streamed chat answer, told as the events of a Response."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proxy.domain.usage import Usage
from proxy.gateway.ports import Answer, UpstreamFailed
from proxy.providers.events import WholeEvents, data_of, split
from proxy.providers.native_answers import json_object
from proxy.providers.responses_answers import usage_object
from proxy.providers.translation.responses_answer import FAILED, Reply, reported, unreadable
from proxy.providers.translation.responses_events import ResponseEvents

KEEP_ALIVE = b": keep-alive\n\n"
_TOO_MANY = frozenset(("rate_limit_exceeded", "rate_limit_error", "429", "529", "overloaded_error"))


class StreamedOverChat:
    """Ends with `response.completed`, `.incomplete` or `.failed`, held back in `tail`.

    A chat stream that ends without having said why is no clean end: `next` raises `UpstreamFailed`.
    """

    streamed = True
    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, chat: Answer, reply: Reply, retold: Callable[[UpstreamFailed], UpstreamFailed]) -> None:
        self.status = chat.status
        self.provider_request_id = chat.provider_request_id
        self.usage: Usage | None = None
        self.tail = b""
        self.failed = False
        self._chat = chat
        self._events = ResponseEvents(reply)
        self._whole = WholeEvents()
        self._code = ""
        self._ended = False
        self._fault: UpstreamFailed | None = None
        self._retold = retold

    async def read(self) -> bytes:
        raise TypeError("a streamed answer has no body; take its events by next()")

    async def next(self) -> bytes | None:
        """Whole events, ready to forward; None at the end. Raises `UpstreamFailed`, `usage` being set then too."""
        while not self._ended:
            data = None if self._fault else await self._following()
            told = (
                b"" if self._fault else self._told(self._whole.rest() if data is None else self._whole.feed(data))
            )
            if told:
                return told
            if self._fault:
                await self._give_up()
                raise self._fault
            if data is None:
                return self._conclude() or None
        return None

    async def _following(self) -> bytes | None:
        try:
            return await self._chat.next()
        except UpstreamFailed as failed:
            self._ended = True
            raise self._retold(failed) from None
        finally:
            self.usage = self._chat.usage

    def _told(self, whole: bytes) -> bytes:
        """What these events say; a fault is kept until what came before it is out."""
        told = bytearray()
        try:
            if self._whole.unread:
                raise unreadable("The model's provider answered with an event too large to be carried over.")
            for event in split(whole):
                told += self._event(data_of(event).strip())
        except UpstreamFailed as fault:
            self._fault = fault
        return bytes(told)

    def _event(self, data: bytes) -> bytes:
        if self.failed:
            return b""
        if not data:
            return KEEP_ALIVE if self._events.begun else b""
        said = json_object(data)
        if said is None:
            raise unreadable("The model's provider answered with a stream that cannot be read.")
        return self._take(said)

    def _take(self, said: dict[str, Any]) -> bytes:
        error = said.get("error")
        choices = said.get("choices")
        if not error and type(choices) is list:
            first = choices[0] if choices and type(choices[0]) is dict else {}
            error = first.get("error") or (first.get("finish_reason") == "error")
        if error and not self._events.begun:
            raise UpstreamFailed("refused", "upstream_server_error", FAILED, status=502)
        if error:
            self.failed = True
            words = {str(error.get(name)) for name in ("code", "type")} if type(error) is dict else set()
            self._code = "rate_limit_exceeded" if words & _TOO_MANY else "server_error"
            return b""
        return self._events.take(said) if type(choices) is list else b""

    def _conclude(self) -> bytes:
        """What is left to be told; the last event is the tail."""
        self._ended = True
        if self.failed:
            self.tail = self._events.failure(FAILED, self._code, reported(self.usage))
            return b""
        if not self._events.begun or not (self._events.finished or self._chat.tail):
            message = "The model's provider ended its answer in the middle."
            raise UpstreamFailed("unknown", "upstream_reset", message)
        left = b"" if self._events.finished else self._events.finish("stop")
        self.tail = self._events.final(reported(self.usage))
        return left

    async def _give_up(self) -> None:
        """The upstream is dropped, which settles what is known of the usage."""
        self._ended = True
        self._chat.abort()
        try:
            while await self._chat.next() is not None:
                pass
        except UpstreamFailed:
            pass
        self.usage = self._chat.usage

    async def end_by_length(self) -> bytes:
        """See `Answer`."""
        if self._ended or self.failed or self._events.finished or not await self._chat.end_by_length():
            return b""
        self._ended = True
        self.usage = self._chat.usage
        assert self.usage is not None, "an ended answer has a usage, estimated where none was reported"
        return self._events.finish("length") + self._events.final(usage_object(self.usage))

    def observed_output_tokens(self) -> int:
        return self._chat.observed_output_tokens()

    def error_event(self, message: str, code: str) -> bytes:
        return self._events.failure(message, code, reported(self.usage))

    def abort(self) -> None:
        self._chat.abort()
