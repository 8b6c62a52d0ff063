"""The events of a streamed Response, made of chat chunks as they come.

Pure. Items follow one another as OpenAI's do: one is done before the next begins. Only calls whose arguments
come interleaved stay open beside each other until the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from proxy.providers.endings import picked
from proxy.providers.translation.responses_answer import (
    INCOMPLETE,
    Reply,
    arguments_of,
    call_item,
    dumped,
    logprobs_of,
    message_item,
    objects_in,
    reasoning_item,
    refusal_part,
    text_part,
    thought_of,
    thought_part,
    unreadable,
    words_of,
)

# An answer is said again whole at its end, so all of it is kept: ten times what any model writes at once.
CHARACTERS_MAX = 8_000_000
# What an item or a log probability weighs beside its text.
WEIGHT = 256

Event = dict[str, Any]


class _Spoken:
    """A message or a reasoning item: parts that grow one after the other."""

    def __init__(self, id: str, index: int, kind: str) -> None:
        self.kind = kind
        self.status = "in_progress"
        self._id = id
        self._index = index
        self._parts: list[dict[str, Any]] = []
        self._part = ""
        self._pieces: list[str] = []
        self._logprobs: list[dict[str, Any]] = []

    def item(self) -> dict[str, Any]:
        parts = [*self._parts, self._said()] if self._part else list(self._parts)
        make = message_item if self.kind == "message" else reasoning_item
        return make(self._id, parts, self.status)

    def opened(self) -> Iterator[Event]:
        yield {"type": "response.output_item.added", "output_index": self._index, "item": self.item()}

    def add(self, part: str, text: str, logprobs: list[dict[str, Any]]) -> Iterator[Event]:
        if part != self._part:
            yield from self._close_part()
            self._part = part
            yield self._event("response.content_part.added", part=self._said())
        self._pieces.append(text)
        self._logprobs += logprobs
        more: Event = {"logprobs": logprobs} if part == "output_text" else {}
        yield self._event(f"response.{part}.delta", delta=text, **more)

    def close(self, status: str) -> Iterator[Event]:
        yield from self._close_part()
        self.status = status
        yield {"type": "response.output_item.done", "output_index": self._index, "item": self.item()}

    def _close_part(self) -> Iterator[Event]:
        if not self._part:
            return
        said = self._said()
        whole: Event = {name: said[name] for name in ("text", "refusal", "logprobs") if name in said}
        yield self._event(f"response.{self._part}.done", **whole)
        yield self._event("response.content_part.done", part=said)
        self._parts.append(said)
        self._part, self._pieces, self._logprobs = "", [], []

    def _said(self) -> dict[str, Any]:
        text = "".join(self._pieces)
        if self._part == "output_text":
            return text_part(text, self._logprobs)
        return refusal_part(text) if self._part == "refusal" else thought_part(text)

    def _event(self, type: str, **more: Any) -> Event:
        at = len(self._parts)
        return {"type": type, "item_id": self._id, "output_index": self._index, "content_index": at, **more}


class _Call:
    """A function call, whose arguments grow."""

    kind = "function_call"

    def __init__(self, id: str, index: int, call_id: str, name: str) -> None:
        self.status = "in_progress"
        self.call_id = call_id
        self._id = id
        self._index = index
        self._name = name
        self._pieces: list[str] = []

    def item(self) -> dict[str, Any]:
        return call_item(self._id, self.call_id, self._name, "".join(self._pieces), self.status)

    def opened(self) -> Iterator[Event]:
        yield {"type": "response.output_item.added", "output_index": self._index, "item": self.item()}

    def add(self, piece: str) -> Iterator[Event]:
        self._pieces.append(piece)
        yield self._event("response.function_call_arguments.delta", delta=piece)

    def whole(self) -> bool:
        """Whether the arguments are complete, so that no more of them can come."""
        try:
            return type(orjson.loads("".join(self._pieces))) is dict
        except orjson.JSONDecodeError:
            return False

    def close(self, status: str) -> Iterator[Event]:
        arguments = "".join(self._pieces)
        self._pieces = [arguments]
        self.status = status
        yield self._event("response.function_call_arguments.done", name=self._name, arguments=arguments)
        yield {"type": "response.output_item.done", "output_index": self._index, "item": self.item()}

    def _event(self, type: str, **more: Any) -> Event:
        return {"type": type, "item_id": self._id, "output_index": self._index, **more}


class ResponseEvents:
    """Takes chunks, gives events. `finished` once the answer has said why it ends."""

    def __init__(self, reply: Reply) -> None:
        self.begun = False
        self.finished = False
        self._reply = reply
        self._number = 0
        self._size = 0
        self._chunk: dict[str, Any] = {}
        self._items: list[_Spoken | _Call] = []
        # The call that each index of the upstream's stands for by now.
        self._calls: dict[int, _Call] = {}
        self._reason: str | None = None

    def take(self, chunk: Mapping[str, Any]) -> bytes:
        """The events of one chunk; raises `UpstreamFailed` if it cannot be told."""
        self._chunk |= picked(chunk, ("created", "service_tier"))
        events = [] if self.begun else self._begin()
        for choice in objects_in(chunk.get("choices")):
            if not choice.get("index") and not self.finished:
                delta = choice.get("delta")
                events += self._delta(delta if type(delta) is dict else {}, choice)
                if choice.get("finish_reason"):
                    events += self._finish(str(choice["finish_reason"]))
        return self._written(events)

    def finish(self, reason: str) -> bytes:
        """Ends the answer as a chunk with this `finish_reason` would."""
        return self._written(self._finish(reason))

    def final(self, usage: Mapping[str, Any] | None) -> bytes:
        """The last event of an answer that has finished. `usage` is in Responses' shape."""
        status = "incomplete" if self._reason else "completed"
        response = self._reply.response(self._chunk, status, self._output(), usage, reason=self._reason)
        return self._written([{"type": f"response.{status}", "response": response}])

    def failure(self, message: str, code: str, usage: Mapping[str, Any] | None) -> bytes:
        """The last event of an answer that has failed, with what there is of it."""
        error = {"code": code, "message": message}
        response = self._reply.response(self._chunk, "failed", self._output(), usage, error=error)
        return self._written([{"type": "response.failed", "response": response}])

    def _begin(self) -> list[Event]:
        self.begun = True
        response = self._reply.response(self._chunk, "in_progress", [])
        return [{"type": f"response.{name}", "response": response} for name in ("created", "in_progress")]

    def _delta(self, delta: Mapping[str, Any], choice: Mapping[str, Any]) -> Iterator[Event]:
        if thought := thought_of(delta):
            yield from self._say("reasoning", "reasoning_text", thought, [])
        if text := words_of(delta.get("content")):
            yield from self._say("message", "output_text", text, logprobs_of(choice))
        if refusal := words_of(delta.get("refusal")):
            yield from self._say("message", "refusal", refusal, [])
        for call in objects_in(delta.get("tool_calls")):
            yield from self._call(call)

    def _say(self, kind: str, part: str, text: str, logprobs: list[dict[str, Any]]) -> Iterator[Event]:
        self._weigh(len(text) + WEIGHT * sum(1 + len(each["top_logprobs"]) for each in logprobs))
        last = self._items[-1] if self._items else None
        if not isinstance(last, _Spoken) or last.kind != kind or last.status != "in_progress":
            yield from self._close_last()
            index = len(self._items)
            last = _Spoken(self._reply.id_of("msg" if kind == "message" else "rs", index), index, kind)
            yield from self._open(last)
        yield from last.add(part, text, logprobs)

    def _call(self, said: Mapping[str, Any]) -> Iterator[Event]:
        """A piece of a call. A new index begins one, and so does a new id: some servers have one index for all."""
        function = said.get("function")
        if type(function) is not dict:
            function = {}
        id = said["id"] if type(said.get("id")) is str else ""
        at = said["index"] if type(said.get("index")) is int else self._unnumbered(id)
        call = self._calls.get(at)
        if call is None or (id and id != call.call_id):
            name = function.get("name")
            if type(name) is not str or not name:
                raise unreadable("The model's provider answered with a tool call without a name.")
            yield from self._close_last()
            index = len(self._items)
            call = _Call(self._reply.id_of("fc", index), index, id or self._reply.id_of("call", index), name)
            self._calls[at] = call
            yield from self._open(call)
        if piece := arguments_of(function):
            if call.status != "in_progress":
                raise unreadable("The model's provider went on with a tool call that was complete.")
            self._weigh(len(piece))
            yield from call.add(piece)

    def _unnumbered(self, id: str) -> int:
        """The index that a call without one should have: the last call's, unless it is a new one."""
        last = len(self._calls) - 1
        return last if not id or (last >= 0 and self._calls[last].call_id == id) else last + 1

    def _open(self, item: _Spoken | _Call) -> Iterator[Event]:
        self._weigh(WEIGHT)
        self._items.append(item)
        yield from item.opened()

    def _close_last(self) -> Iterator[Event]:
        """The item before the next is done, unless more of its arguments must come."""
        last = self._items[-1] if self._items else None
        if last is not None and last.status == "in_progress" and (isinstance(last, _Spoken) or last.whole()):
            yield from last.close("completed")

    def _finish(self, reason: str) -> Iterator[Event]:
        """Closes what is open. An answer that has neither words nor calls has an empty message."""
        self.finished = True
        self._reason = INCOMPLETE.get(reason)
        if all(item.kind == "reasoning" for item in self._items):
            yield from self._say("message", "output_text", "", [])
        for item in self._items:
            if item.status == "in_progress":
                yield from item.close("incomplete" if self._reason else "completed")

    def _output(self) -> list[dict[str, Any]]:
        return [item.item() for item in self._items]

    def _weigh(self, characters: int) -> None:
        self._size += characters
        if self._size > CHARACTERS_MAX:
            raise unreadable("The model's provider answered with more than can be carried over.")

    def _written(self, events: Iterator[Event] | list[Event]) -> bytes:
        written = []
        for event in events:
            said = dumped({"type": event["type"], "sequence_number": self._number, **event})
            written.append(b"event: %b\ndata: %b\n\n" % (event["type"].encode("ascii"), said))
            self._number += 1
        return b"".join(written)
