"""The turns of a Messages request as chat messages.

A chat message is one text where it can be: not every server takes lists of parts. Texts of one turn stand apart
by an empty line there; those of an assistant's turn, which were one answer, do not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from proxy.domain.request_parts import json_text
from proxy.providers.untranslatable import misshapen, not_carried, only, text_of, untranslatable

FAILED_TOOL = "Error: "
"""Stands before the result of a tool that failed, for which chat completions has no field."""

_IMAGE_TYPE = re.compile(r"image/[A-Za-z0-9.+-]{1,32}")


class Turns:
    """The chat messages made so far; `sources` says where each comes from."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.sources: list[str] = []

    def system(self, content: Any, where: str) -> None:
        text = _joined([_text(block, at) for block, at in _blocks(content, where)])
        if text:
            self._add({"role": "system", "content": text}, where)

    def read(self, messages: Sequence[Any]) -> None:
        """Takes `messages`; raises `UpstreamFailed` (400, unsent) naming what cannot be carried."""
        for at, message in enumerate(messages):
            where = f"messages.{at}"
            only(message, ("role", "content"), where)
            role, content, inside = message.get("role"), message.get("content"), f"{where}.content"
            if role == "system":
                self.system(content, inside)
            elif role == "user":
                self._user(content, inside, where)
            elif role == "assistant":
                self._assistant(content, inside, where, last=at == len(messages) - 1)
            else:
                raise misshapen(f"{where}.role")

    def _add(self, message: dict[str, Any], where: str) -> None:
        self.messages.append(message)
        self.sources.append(where)

    def _user(self, content: Any, inside: str, where: str) -> None:
        """Results of tools come first: nothing may stand between them and their calls."""
        seen: list[dict[str, Any]] = []
        parts: list[dict[str, Any]] = []
        blocks = _blocks(content, inside)
        for block, at in blocks:
            if block.get("type") == "tool_result":
                self._result(block, at, seen)
            else:
                parts.append(_part(block, at))
        if seen or parts or not blocks:
            self._add({"role": "user", "content": _flat([*seen, *parts])}, where)

    def _result(self, block: Mapping[str, Any], where: str, seen: list[dict[str, Any]]) -> None:
        """Its images go into `seen`, for the user's message that follows: a chat tool message has only text."""
        only(block, ("type", "tool_use_id", "content", "is_error", "cache_control"), where)
        call = text_of(block, "tool_use_id", where)
        content = block.get("content")
        parts = [_part(each, at) for each, at in _blocks("" if content is None else content, f"{where}.content")]
        images = [part for part in parts if part["type"] != "text"]
        if images:
            seen += [{"type": "text", "text": f"Images in the result of the tool call {call}:"}, *images]
        text = _joined([part["text"] for part in parts if part["type"] == "text"])
        if block.get("is_error"):
            text = FAILED_TOOL + text
        self._add({"role": "tool", "tool_call_id": call, "content": text}, where)

    def _assistant(self, content: Any, inside: str, where: str, *, last: bool) -> None:
        """Thinking is left out: it is signed for the model that has thought it, and no other can read it."""
        texts: list[str] = []
        calls: list[dict[str, Any]] = []
        for block, at in _blocks(content, inside):
            kind = block.get("type")
            if kind == "text":
                texts.append(_text(block, at))
            elif kind == "tool_use":
                calls.append(_call(block, at))
            elif kind not in ("thinking", "redacted_thinking"):
                raise not_carried(at)
        text = "".join(texts)
        if not text and not calls:
            return
        if last:
            message = (
                f"'{where}' is the beginning of an answer, which this model's provider would not continue but"
                " reply to. End with a turn of the user's."
            )
            raise untranslatable(where, message)
        made: dict[str, Any] = {"role": "assistant", "content": text or None}
        if calls:
            made["tool_calls"] = calls
        self._add(made, where)


def object_of(holder: Mapping[str, Any], name: str, where: str = "") -> dict[str, Any]:
    value = holder.get(name)
    if type(value) is not dict:
        raise misshapen(f"{where}.{name}" if where else name)
    return value


def said_of(block: Mapping[str, Any]) -> dict[str, Any]:
    """The block without what is there and says nothing."""
    return {name: value for name, value in block.items() if value is not None and value != []}


def _blocks(content: Any, where: str) -> list[tuple[dict[str, Any], str]]:
    """The blocks and where each stands; a text is one block of it."""
    if type(content) is str:
        return [({"type": "text", "text": content}, where)] if content else []
    if type(content) is not list or not all(type(block) is dict for block in content):
        raise misshapen(where)
    return [(block, f"{where}.{at}") for at, block in enumerate(content)]


def _joined(texts: Sequence[str]) -> str:
    return "\n\n".join([text for text in texts if text])


def _flat(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    if any(part["type"] != "text" for part in parts):
        return parts
    return _joined([part["text"] for part in parts])


def _part(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    kind = block.get("type")
    if kind == "text":
        return {"type": "text", "text": _text(block, where)}
    if kind == "image":
        only(block, ("type", "source", "cache_control"), where)
        return {"type": "image_url", "image_url": {"url": _image(object_of(block, "source", where), where)}}
    if kind == "document":
        return {"type": "text", "text": _document(block, where)}
    raise not_carried(where)


def _text(block: Mapping[str, Any], where: str) -> str:
    if block.get("type") != "text":
        raise not_carried(where)
    only(said_of(block), ("type", "text", "cache_control"), where)
    return text_of(block, "text", where)


def _image(source: Mapping[str, Any], where: str) -> str:
    where = f"{where}.source"
    if source.get("type") == "url":
        only(source, ("type", "url"), where)
        return text_of(source, "url", where)
    if source.get("type") != "base64":
        raise not_carried(where)
    only(source, ("type", "media_type", "data"), where)
    media_type = text_of(source, "media_type", where)
    if _IMAGE_TYPE.fullmatch(media_type) is None:
        raise misshapen(f"{where}.media_type")
    return f"data:{media_type};base64,{text_of(source, 'data', where)}"


def _document(block: Mapping[str, Any], where: str) -> str:
    """One of plain text, that is not to be cited; no other can be told in text."""
    said = said_of(block)
    if said.get("citations") == {"enabled": False}:
        del said["citations"]
    only(said, ("type", "source", "title", "context", "cache_control"), where)
    source = object_of(block, "source", where)
    if source.get("type") != "text":
        raise not_carried(f"{where}.source")
    only(source, ("type", "media_type", "data"), f"{where}.source")
    about = [text_of(block, name, where) for name in ("title", "context") if name in said]
    return _joined([*about, text_of(source, "data", f"{where}.source")])


def _call(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    said = said_of(block)
    if said.get("caller") == {"type": "direct"}:
        del said["caller"]
    only(said, ("type", "id", "name", "input", "cache_control"), where)
    function = {
        "name": text_of(block, "name", where),
        "arguments": json_text(object_of(block, "input", where)),
    }
    return {"id": text_of(block, "id", where), "type": "function", "function": function}
