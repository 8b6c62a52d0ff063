"""The conversation of a Responses request as chat messages.

Responses has an item for each message, call, result and thought; chat has one message for all that an assistant
says in a turn. So an assistant's items that follow one another become one message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from proxy.providers.untranslatable import misshapen, only, text_of, untranslatable

# Only OpenAI's own models tell a developer from a system; other servers know no developer.
ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}

# What stands in an item that was an answer once, and says nothing to a model.
BOOKKEEPING = ("type", "id", "status")

DETAILS = ("low", "high", "auto")


def messages_of(body: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Chat messages, and the field that each begins with; raises `UpstreamFailed` naming what it cannot say."""
    made = _Conversation()
    if body.get("instructions") is not None:
        made.add({"role": "system", "content": text_of(body, "instructions")}, "instructions")
    given = body.get("input")
    if type(given) is str:
        made.add({"role": "user", "content": given}, "input")
    elif type(given) is list:
        for at, item in enumerate(given):
            _item(item, f"input.{at}", made)
    else:
        raise misshapen("input")
    if not made.messages:
        raise untranslatable("input", "'input' has nothing in it that could be said to this model.")
    return made.messages, made.sources


class _Conversation:
    """Messages as they are made, and where they come from."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.sources: list[str] = []

    def add(self, message: dict[str, Any], source: str) -> None:
        self.messages.append(message)
        self.sources.append(source)

    def says(self, content: Any, source: str) -> None:
        """The assistant's words; after its calls they are of the same turn, whose results are still to come."""
        last = self.messages[-1] if self.messages else {}
        if "tool_calls" in last and last["content"] is None:
            last["content"] = content
        else:
            self.add({"role": "assistant", "content": content}, source)

    def calls(self, call: dict[str, Any], source: str) -> None:
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.add({"role": "assistant", "content": None}, source)
        self.messages[-1].setdefault("tool_calls", []).append(call)


def _item(item: Any, where: str, made: _Conversation) -> None:
    if type(item) is not dict:
        raise misshapen(where)
    kind = item.get("type")
    if kind is None and "role" in item:
        kind = "message"
    if kind == "item_reference" or (kind is None and "id" in item):
        message = f"'{where}' refers to an item that this model's provider has not kept: it keeps nothing."
        raise untranslatable(where, f"{message} Send the item itself (most clients do so with store = false).")
    take = _ITEMS.get(kind) if type(kind) is str else None
    if take is None:
        message = f"'{where}' is of a type that cannot be carried over to this model's provider. Leave it out."
        raise untranslatable(f"{where}.type", message)
    take(item, where, made)


def _message(item: dict[str, Any], where: str, made: _Conversation) -> None:
    only(item, (*BOOKKEEPING, "role", "content", "phase"), where)
    role = item.get("role")
    if type(role) is not str or role not in ROLES:
        raise misshapen(f"{where}.role")
    content = _content(item.get("content"), f"{where}.content", _PARTS[role])
    if role == "assistant":
        made.says(content, where)
    else:
        made.add({"role": ROLES[role], "content": content}, where)


def _call(item: dict[str, Any], where: str, made: _Conversation) -> None:
    only(item, (*BOOKKEEPING, "call_id", "name", "arguments", "caller"), where)
    _direct(item, where)
    function = {"name": text_of(item, "name", where), "arguments": text_of(item, "arguments", where)}
    made.calls({"id": text_of(item, "call_id", where), "type": "function", "function": function}, where)


def _result(item: dict[str, Any], where: str, made: _Conversation) -> None:
    only(item, (*BOOKKEEPING, "call_id", "output", "caller", "name"), where)
    _direct(item, where)
    content = _content(item.get("output"), f"{where}.output", _TEXTS)
    made.add({"role": "tool", "tool_call_id": text_of(item, "call_id", where), "content": content}, where)


def _direct(item: dict[str, Any], where: str) -> None:
    if item.get("caller") not in (None, {"type": "direct"}):
        raise misshapen(f"{where}.caller")


def _thought(item: dict[str, Any], where: str, made: _Conversation) -> None:
    """Chat has no place for what a model has thought on an earlier turn."""


_ITEMS: dict[str, Callable[[dict[str, Any], str, _Conversation], None]] = {
    "message": _message,
    "function_call": _call,
    "function_call_output": _result,
    "reasoning": _thought,
}

_Part = Callable[[dict[str, Any], str], dict[str, Any]]


def _content(content: Any, where: str, parts: Mapping[str, _Part]) -> Any:
    """A text stays one, and so does a text that is the only part: not every server takes parts everywhere."""
    if type(content) is str:
        return content
    if type(content) is not list:
        raise misshapen(where)
    made = [_part(part, f"{where}.{at}", parts) for at, part in enumerate(content)]
    if len(made) == 1 and made[0]["type"] == "text":
        return made[0]["text"]
    return made or ""


def _part(part: Any, where: str, parts: Mapping[str, _Part]) -> dict[str, Any]:
    if type(part) is not dict:
        raise misshapen(where)
    kind = part.get("type")
    take = parts.get(kind) if type(kind) is str else None
    if take is None:
        message = f"'{where}' is of a type that cannot be carried over to this model's provider. Leave it out."
        raise untranslatable(f"{where}.type", message)
    return take(part, where)


def _spoken(part: dict[str, Any], where: str) -> dict[str, Any]:
    """What an earlier answer has quoted, and how likely its words were, is nothing to a model."""
    only(part, ("type", "text", "annotations", "logprobs"), where)
    return {"type": "text", "text": text_of(part, "text", where)}


def _refusal(part: dict[str, Any], where: str) -> dict[str, Any]:
    only(part, ("type", "refusal"), where)
    return {"type": "refusal", "refusal": text_of(part, "refusal", where)}


def _image(part: dict[str, Any], where: str) -> dict[str, Any]:
    only(part, ("type", "image_url", "detail"), where)
    image = {"url": text_of(part, "image_url", where)}
    if part.get("detail") is not None:
        image["detail"] = text_of(part, "detail", where)
        if image["detail"] not in DETAILS:
            raise misshapen(f"{where}.detail")
    return {"type": "image_url", "image_url": image}


_TEXTS: dict[str, _Part] = {"input_text": _spoken, "output_text": _spoken, "text": _spoken}
_PARTS: dict[str, Mapping[str, _Part]] = {
    "user": {**_TEXTS, "input_image": _image},
    "assistant": {**_TEXTS, "refusal": _refusal},
    "system": _TEXTS,
    "developer": _TEXTS,
}
