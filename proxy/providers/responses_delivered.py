"""What a Responses stream has delivered: counted, and put together as far as an ending of our own needs it.

A stream tells its text twice, in pieces and once more whole, so that only the pieces are counted. Which items are
finished and which is open is read from the few events that say so, and only when somebody asks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from proxy.providers.delivered import Delivered

# Of finished items and of the open one's text: beyond it the ending names no items.
TOLD_BYTES_MAX = 1 << 20

_TOLD = re.compile(
    rb'"type"\s*:\s*"response\.(?:output_item|content_part)\.(?:added|done)"'
    rb'|"delta"\s*:\s*"((?:[^"\\]|\\.)+)"',
    re.DOTALL,
)


class ResponsesDelivered(Delivered):
    """`items` are the finished ones by their `output_index`; `open_items` those that are not."""

    __slots__ = ("_part", "_room", "_text", "items", "open_items")

    def __init__(self) -> None:
        super().__init__()
        self.items: dict[int, dict[str, Any]] = {}
        self.open_items: dict[int, dict[str, Any]] = {}
        self._part: dict[str, Any] | None = None
        self._text: list[bytes] = []
        self._room = TOLD_BYTES_MAX

    def closing(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The events that close what is open, without their sequence numbers, and the output so far.

        A tool call is never closed: half its arguments must not look like all of them.
        """
        self._fold()
        if self._room < 0 or len(self.open_items) > 1:
            return [], []
        events: list[dict[str, Any]] = []
        output = [item for _, item in sorted(self.items.items())]
        for index, opened in self.open_items.items():
            item = {**opened, "status": "incomplete"}
            if item.get("type") == "message":
                events += self._close_message(index, item)
            elif "arguments" in item:
                item["arguments"] = self._said()
            output.append(item)
        return events, output

    def begun(self) -> list[dict[str, Any]]:
        """The items so far, finished or not."""
        self._fold()
        return [*self.items.values(), *self.open_items.values()]

    def _close_message(self, index: int, item: dict[str, Any]) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        content = list(item.get("content") or ())
        if self._part is not None:
            kind = "refusal" if self._part.get("type") == "refusal" else "text"
            event = "response.refusal.done" if kind == "refusal" else "response.output_text.done"
            part = {**self._part, kind: self._said()}
            where = {"item_id": item.get("id"), "output_index": index, "content_index": len(content)}
            logprobs: dict[str, Any] = {} if kind == "refusal" else {"logprobs": []}
            events.append({"type": event, **where, kind: part[kind], **logprobs})
            events.append({"type": "response.content_part.done", **where, "part": part})
            content.append(part)
        item["content"] = content
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
        return events

    def _said(self) -> str:
        """The text of what is open."""
        try:
            text = orjson.loads(b'"' + b"".join(self._text) + b'"')
        except orjson.JSONDecodeError:
            return ""
        return text if isinstance(text, str) else ""

    def _fold(self) -> None:
        kept = b"".join(self._kept)
        self._kept.clear()
        self._size = 0
        for told in _TOLD.finditer(kept):
            piece = told.group(1)
            if piece is None:
                self._note(_said_at(kept, told.start()))
                continue
            self._pieces += 1
            self._bytes += len(piece)
            self._keep(piece)

    def _keep(self, piece: bytes) -> None:
        self._room -= len(piece)
        if self._room >= 0:
            self._text.append(piece)

    def _note(self, event: Mapping[str, Any]) -> None:
        index, item, part = event.get("output_index"), event.get("item"), event.get("part")
        kind = event.get("type")
        if type(index) is not int:
            return
        if kind == "response.content_part.added":
            self._part = part if isinstance(part, dict) else None
        elif kind == "response.content_part.done":
            if index in self.open_items and isinstance(part, dict):
                opened = self.open_items[index]
                opened["content"] = [*(opened.get("content") or ()), part]
            self._part, self._text = None, []
        elif isinstance(item, dict):
            self._part, self._text = None, []
            if kind == "response.output_item.added":
                self.open_items[index] = item
            else:
                self.open_items.pop(index, None)
                self.items[index] = item
                self._room -= len(orjson.dumps(item))


def _said_at(kept: bytes, at: int) -> Mapping[str, Any]:
    """The object of the event that has this position, which JSON writes on one line."""
    start = kept.rfind(b"\ndata:", 0, at) + 1
    line = kept[start:].split(b"\n", 1)[0] if start else kept.split(b"\n", 1)[0]
    try:
        said = orjson.loads(line.rstrip(b"\r").removeprefix(b"data:"))
    except orjson.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}
