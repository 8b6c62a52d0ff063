"""A streamed chat answer, told as the events of a Message."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from proxy.domain.usage import Usage
from proxy.gateway.ports import Answer, UpstreamFailed
from proxy.providers.events import data_of, split
from proxy.providers.messages_answers import STOP, error_event
from proxy.providers.native_answers import json_object
from proxy.providers.translation.messages_answer import Envelope
from proxy.providers.translation.messages_events import PING, MessageEvents
from proxy.providers.translation.responses_answer import unreadable
from proxy.providers.upstream_errors import error_in_answer

FAILED = "The model's provider failed in the middle of its answer."


class StreamOverChat:
    """Ends as the chat stream does: `message_delta` where that has said why it ends, and `message_stop`, held back
    in `tail`, where it has ended with `[DONE]`. Without a reason there is no end: `next` raises `UpstreamFailed`.
    """

    streamed = True
    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, chat: Answer, envelope: Envelope) -> None:
        self.status = chat.status
        self.provider_request_id = chat.provider_request_id
        self.usage: Usage | None = None
        self.tail = b""
        self.failed = False
        self._chat = chat
        self._envelope = envelope
        self._events = MessageEvents(envelope)
        self._ended = False

    @property
    def model_served(self) -> str | None:
        """What the provider calls the model that really answered."""
        return getattr(self._chat, "model_served", None)

    async def read(self) -> bytes:
        raise TypeError("a streamed answer has no body; take its events by next()")

    async def next(self) -> bytes | None:
        """Whole events, ready to forward; None at the end. Raises `UpstreamFailed`, `usage` being set then too."""
        while not self._ended:
            whole = await self._following()
            if whole is None:
                return self._conclude()
            try:
                told = self._told(whole)
            except UpstreamFailed:
                await self._give_up()
                raise
            if told:
                return told
        return None

    async def _following(self) -> bytes | None:
        try:
            return await self._chat.next()
        except UpstreamFailed as failed:
            self._ended = True
            raise self._envelope.request.retold(failed) from None
        finally:
            self.usage = self._chat.usage

    def _told(self, whole: bytes) -> bytes:
        """After an error nothing is told any more; the stream is only read to its usage."""
        told = []
        for each in split(whole):
            if self.failed:
                break
            data = data_of(each).strip()
            if not data:
                # A comment keeps the connection awake; what the client knows for that is a ping.
                told.append(PING if self._events.begun and each.strip() else b"")
                continue
            said = json_object(data)
            if said is None:
                raise unreadable("The model's provider answered with a stream that cannot be read.")
            told.append(self._error(said) or self._events.take(said))
        return b"".join(told)

    def _error(self, said: dict[str, Any]) -> bytes:
        error = said.get("error")
        choices = said.get("choices")
        if not error and type(choices) is list and choices and type(choices[0]) is dict:
            error = choices[0].get("finish_reason") == "error" and {"code": 502}
        if not error:
            return b""
        meant = error_in_answer({"error": error}, self.status, {})
        if not self._events.begun:
            # Nothing of this answer has been seen by anybody: another may take its place.
            raise self._envelope.request.retold(meant)
        self.failed = True
        return error_event(FAILED, meant.error_type)

    def _conclude(self) -> bytes | None:
        self._ended = True
        if self.failed:
            return None
        if not self._events.finished:
            message = "The model's provider ended its answer in the middle."
            raise UpstreamFailed("unknown", "upstream_reset", message)
        if self._chat.tail:
            self.tail = STOP
        return self._events.end(self.usage)

    async def _give_up(self) -> None:
        """The upstream is dropped, which settles what is known of the usage."""
        self._ended = True
        self._chat.abort()
        with suppress(UpstreamFailed):
            while await self._chat.next() is not None:
                pass
        self.usage = self._chat.usage

    async def end_by_length(self) -> bytes:
        """See `Answer`."""
        if self._ended or self.failed or not await self._chat.end_by_length():
            return b""
        self._ended = True
        self.usage = self._chat.usage
        self.tail = STOP
        return self._events.end(self.usage, "length")

    def observed_output_tokens(self) -> int:
        return self._chat.observed_output_tokens()

    def error_event(self, message: str, code: str) -> bytes:
        return error_event(message, code)

    def abort(self) -> None:
        self._chat.abort()
