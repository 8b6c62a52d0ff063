"""A chat stream's chunks as the events of a Message.

Messages streams one block after the other, chat completions may mix them. So there is one lane for each block:
the first is told as it comes, the others are kept until it is over. Text is over when something else begins, a
tool call when its arguments are a whole object; what was still open at the end is told then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from proxy.domain.usage import Usage
from proxy.providers.native_answers import json_object
from proxy.providers.translation.messages_answer import (
    Envelope,
    call_id,
    called_name,
    ending_of,
    hit_of,
    told_usage,
)
from proxy.providers.translation.responses_answer import (
    arguments_of,
    dumped,
    thought_of,
    unreadable,
    words_of,
)

KEPT_CHARACTERS_MAX = 4 << 20
CALLS_MAX = 512

PING = b'event: ping\ndata: {"type":"ping"}\n\n'

_DELTAS = {"text": ("text_delta", "text"), "thinking": ("thinking_delta", "thinking")}


def event(kind: str, **said: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), dumped({"type": kind, **said}))


class _Lane:
    """One block to be. `held` is what is not told yet; `arguments` is all that was said of a call's."""

    __slots__ = ("arguments", "block", "closed", "held", "index")

    def __init__(self, block: dict[str, Any]) -> None:
        self.block = block
        self.held: list[str] = []
        self.arguments: list[str] = []
        self.index: int | None = None
        self.closed = False

    @property
    def kind(self) -> str:
        return str(self.block["type"])

    def over(self) -> bool:
        """Whether nothing can follow, as soon as another lane has something to say."""
        if self.kind != "tool_use":
            return True
        if not self.arguments or not self.arguments[-1].endswith("}"):
            return False
        return json_object("".join(self.arguments).encode("utf-8", "replace")) is not None


class MessageEvents:
    """Takes chunks, gives events. `finished` once a chunk has said why the answer ends."""

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._lanes: deque[_Lane] = deque()
        self._newest: _Lane | None = None
        self._calls: dict[int, _Lane] = {}
        self._called = 0
        self._kept = 0
        self._blocks = 0
        self._begun = False
        self._refused = False
        self._finish: Any = None
        self._hit: str | None = None

    @property
    def begun(self) -> bool:
        return self._begun

    @property
    def finished(self) -> bool:
        return self._finish is not None

    def take(self, chunk: Mapping[str, Any]) -> bytes:
        """The events of one chunk; raises `UpstreamFailed` for what cannot be understood."""
        told = [self._begin()]
        choices = chunk.get("choices")
        choice = choices[0] if type(choices) is list and choices else None
        if type(choice) is dict:
            if type(choice.get("delta")) is dict:
                told.append(self._delta(choice["delta"]))
            if choice.get("finish_reason"):
                self._finish = choice["finish_reason"]
                self._hit = hit_of(choice, self._envelope.request.stop_sequences)
                told.append(self._advance(to_the_end=True))
        return b"".join(told)

    def end(self, usage: Usage | None, finish: str | None = None) -> bytes:
        """All that is left to tell before `message_stop`; `finish` is why, if no chunk has said it."""
        left = self._begin() + self._advance(to_the_end=True)
        reason, sequence = ending_of(
            finish or self._finish, self._hit, called=self._called > 0, refused=self._refused
        )
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        return left + event("message_delta", delta=delta, usage=told_usage(usage))

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return event("message_start", message=self._envelope.message([], (None, None), None))

    def _delta(self, delta: Mapping[str, Any]) -> bytes:
        told = []
        if thought := thought_of(delta):
            shown = self._envelope.request.shows_thinking
            told.append(self._say(self._lane_of("thinking"), thought) if shown else PING)
        if text := words_of(delta.get("content")):
            told.append(self._say(self._lane_of("text"), text))
        if refusal := words_of(delta.get("refusal")):
            self._refused = True
            told.append(self._say(self._lane_of("text"), refusal))
        for at, call in enumerate(delta.get("tool_calls") or ()):
            told.append(self._call(call, at))
        return b"".join(told)

    def _lane_of(self, kind: str) -> _Lane:
        """The block that is being written, if it is of that kind; else a new one."""
        if self._newest is None or self._newest.closed or self._newest.kind != kind:
            # An unsigned block of thinking says so: clients expect the field.
            spare = {"signature": ""} if kind == "thinking" else {}
            self._open(_Lane({"type": kind, _DELTAS[kind][1]: "", **spare}))
        assert self._newest is not None
        return self._newest

    def _open(self, lane: _Lane) -> None:
        self._lanes.append(lane)
        self._newest = lane

    def _call(self, call: Any, at: int) -> bytes:
        """A piece of a call. Some servers give every call the same index: then a new id is a new call."""
        if type(call) is not dict:
            raise unreadable("The model's provider answered with a tool call that cannot be read.")
        index = call["index"] if type(call.get("index")) is int else at
        lane, id = self._calls.get(index), call.get("id")
        told = b""
        if lane is None or (id and id != lane.block["id"]):
            if self._called >= CALLS_MAX:
                raise unreadable("The model's provider answered with more tool calls than can be told.")
            id = call_id(call, self._envelope, self._called)
            self._called += 1
            lane = _Lane({"type": "tool_use", "id": id, "name": called_name(call), "input": {}})
            self._calls[index] = lane
            self._open(lane)
            told = self._advance()
        function = call.get("function")
        piece = arguments_of(function) if type(function) is dict else ""
        return told + self._say(lane, piece) if piece else told

    def _say(self, lane: _Lane, piece: str) -> bytes:
        if lane.closed:
            if piece.strip():
                raise unreadable("The model's provider went on with a tool call that was complete.")
            return b""
        lane.held.append(piece)
        if lane.kind == "tool_use":
            lane.arguments.append(piece)
        if lane.kind == "tool_use" or lane is not self._lanes[0]:
            self._kept += len(piece)
            if self._kept > KEPT_CHARACTERS_MAX:
                raise unreadable("The model's provider answered with tool calls too large to be told.")
        return self._advance()

    def _advance(self, *, to_the_end: bool = False) -> bytes:
        """Tells what the first lane has, and the next ones' as far as those before are over."""
        told = []
        while self._lanes:
            lane = self._lanes[0]
            told += self._tell(lane)
            if not to_the_end and (len(self._lanes) == 1 or not lane.over()):
                break
            told.append(event("content_block_stop", index=lane.index))
            lane.closed = True
            lane.arguments.clear()
            self._lanes.popleft()
        return b"".join(told)

    def _tell(self, lane: _Lane) -> list[bytes]:
        told = []
        if lane.index is None:
            lane.index, self._blocks = self._blocks, self._blocks + 1
            told.append(event("content_block_start", index=lane.index, content_block=lane.block))
        kind, name = _DELTAS.get(lane.kind, ("input_json_delta", "partial_json"))
        told += [
            event("content_block_delta", index=lane.index, delta={"type": kind, name: piece})
            for piece in lane.held
        ]
        lane.held.clear()
        return told
