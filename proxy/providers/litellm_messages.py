"""The messages of a chat request, made anew for LiteLLM: nothing steers it, and nothing is lost on the way.

LiteLLM drops what it has no word for, and writes sentences of its own where a text is empty. So what it would
drop is refused by name here, and what is empty does not get there. What was only ever an answer's and comes back
with the conversation (reasoning, annotations) is left out, as OpenAI itself does.
"""

from __future__ import annotations

from typing import Any

import orjson

from proxy.providers.untranslatable import misshapen, not_carried, only, text_of, untranslatable

ROLES = ("developer", "system", "user", "assistant", "tool")
DATA_HEAD_CHARACTERS_MAX = 64

_KNOWN = {
    "assistant": (
        *("role", "content", "name", "tool_calls", "refusal", "thinking_blocks"),
        *("reasoning_content", "reasoning", "annotations"),
    ),
    "tool": ("role", "content", "name", "tool_call_id"),
}
_USUAL = ("role", "content", "name")
_THINKING = {"thinking": ("thinking", "signature"), "redacted_thinking": ("data",)}


class Messages:
    """Rebuilds one conversation. `exact`: for a provider whose translation drops names and pictures' details."""

    def __init__(self, *, exact: bool, details: bool = True, thinking: bool = False) -> None:
        self._exact = exact
        self._details = details
        self._thinking = thinking
        self._called: frozenset[str] = frozenset()

    def rebuilt(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Raises `UpstreamFailed` (400) naming what cannot be carried over."""
        made = [self._message(message, f"messages.{at}") for at, message in enumerate(messages)]
        kept = [each for each in made if each is not None]
        if self._exact and not any(each["role"] in ("user", "assistant", "tool") for each in kept):
            message = "This model's provider needs a message of the user, beside the system's."
            raise untranslatable("messages", message)
        return kept

    def _message(self, message: dict[str, Any], where: str) -> dict[str, Any] | None:
        role = message["role"]
        if role not in ROLES:
            raise misshapen(f"{where}.role")
        only(message, _KNOWN.get(role, _USUAL), where)
        made: dict[str, Any] = {"role": role, "content": self._content(message, where)}
        if message.get("name") is not None:
            name = text_of(message, "name", where)
            if not self._exact:
                made["name"] = name
            elif role != "tool":
                raise not_carried(f"{where}.name", "Say in the text who speaks.")
        if role == "tool":
            made["tool_call_id"] = self._answered(message, where)
        elif role == "assistant":
            return self._said(made, message, where)
        if made["content"] is None or (self._exact and role != "tool" and not made["content"]):
            raise untranslatable(
                f"{where}.content", f"'{where}.content' must not be empty for this model's provider."
            )
        return made

    def _said(self, made: dict[str, Any], message: dict[str, Any], where: str) -> dict[str, Any] | None:
        """An assistant's message; None where it says nothing at all."""
        if message.get("refusal"):
            refused = {"type": "text", "text": text_of(message, "refusal", where)}
            made["content"] = [*_parts(made["content"]), refused]
        calls = message.get("tool_calls")
        if calls is not None and type(calls) is not list:
            raise misshapen(f"{where}.tool_calls")
        if calls:
            made["tool_calls"] = [_call(call, f"{where}.tool_calls.{at}") for at, call in enumerate(calls)]
            self._called = frozenset(call["id"] for call in made["tool_calls"])
        if self._thinking and message.get("thinking_blocks"):
            made["thinking_blocks"] = _thinking(message["thinking_blocks"], f"{where}.thinking_blocks")
        if self._exact and not made["content"]:
            # An empty text would be filled by LiteLLM with one of its own.
            made["content"] = None
            return made if calls else None
        return made

    def _answered(self, message: dict[str, Any], where: str) -> str:
        id = text_of(message, "tool_call_id", where)
        if self._exact and id not in self._called:
            sentence = f"'{where}.tool_call_id' answers no call of the assistant's message before it."
            raise untranslatable(f"{where}.tool_call_id", sentence)
        return id

    def _content(self, message: dict[str, Any], where: str) -> Any:
        content = message.get("content")
        if not isinstance(content, list):
            return content
        made = []
        for at, part in enumerate(content):
            here = f"{where}.content.{at}"
            if part.get("type") == "image_url":
                if self._exact and message["role"] not in ("user", "tool"):
                    raise not_carried(here, "Pictures can be sent in messages of the user and of tools.")
                made.append(self._image(part, here))
            else:
                name = "refusal" if part.get("type") == "refusal" else "text"
                only(part, ("type", name), here)
                if (text := text_of(part, name, here)) or not self._exact:
                    made.append({"type": "text", "text": text})
        return made

    def _image(self, part: dict[str, Any], where: str) -> dict[str, Any]:
        image = part["image_url"]
        only(part, ("type", "image_url"), where)
        only(image, ("url", "detail"), f"{where}.image_url")
        url = text_of(image, "url", f"{where}.image_url")
        head, comma, data = url[:DATA_HEAD_CHARACTERS_MAX].partition(",")
        inline = head[:11].lower() == "data:image/" and head.lower().endswith(";base64") and comma
        # No base64 has a colon; LiteLLM looks for addresses inside the data.
        if url[:5].lower() != "data:":
            raise not_carried(f"{where}.image_url.url", "Send the image itself, as a data: URL in base64.")
        if not inline or ":" in data or ":" in url[DATA_HEAD_CHARACTERS_MAX:]:
            raise misshapen(f"{where}.image_url.url")
        made = {"url": url}
        detail = image.get("detail")
        if detail is not None and detail != "auto":
            if not self._details:
                raise not_carried(f"{where}.image_url.detail", "Leave it out or set it to 'auto'.")
            made["detail"] = text_of(image, "detail", f"{where}.image_url")
        return {"type": "image_url", "image_url": made}


def called_names(messages: list[dict[str, Any]]) -> list[str]:
    """The functions that the conversation has called, each once."""
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    return list(dict.fromkeys(call["function"]["name"] for call in calls))


def _parts(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []


def _call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function") if type(call) is dict else None
    if type(function) is not dict:
        raise misshapen(where)
    arguments = text_of(function, "arguments", f"{where}.function") or "{}"
    try:
        meant = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        meant = None
    if type(meant) is not dict:
        here = f"{where}.function.arguments"
        raise untranslatable(
            here, f"'{here}' must be a JSON object as text, which is all that other wires can carry."
        )
    made = {"name": text_of(function, "name", f"{where}.function"), "arguments": arguments}
    return {"id": text_of(call, "id", where), "type": "function", "function": made}


def _thinking(blocks: Any, where: str) -> list[dict[str, Any]]:
    if type(blocks) is not list:
        raise misshapen(where)
    made = []
    for at, block in enumerate(blocks):
        names = _THINKING.get(str(block.get("type"))) if type(block) is dict else None
        if names is None:
            raise misshapen(f"{where}.{at}")
        made.append({"type": block["type"], **{name: text_of(block, name, f"{where}.{at}") for name in names}})
    return made
