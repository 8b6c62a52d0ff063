"""What LiteLLM is given of a chat request: rebuilt field by field, so that nothing else can steer it.

LiteLLM takes over a hundred keyword names that choose hosts, keys, files and callbacks, and looks for more
inside tools and metadata. So messages and tools are made anew from what a chat request may say, every value
is of the right type, and a field that has no translation is refused by name.
"""

from __future__ import annotations

import math
from typing import Any

from proxy.gateway.ports import Dispatch, UpstreamFailed

ROLES = ("developer", "system", "user", "assistant", "tool")

# Known to the gate, of no effect on another wire, or said otherwise.
UNTRANSLATED = frozenset(
    (
        *("model", "messages", "tools", "tool_choice", "response_format", "n", "stream", "stream_options"),
        *("max_tokens", "max_completion_tokens", "metadata", "safety_identifier", "prompt_cache_key"),
        *("service_tier", "store", "modalities", "best_of"),
    )
)
_NUMBERS = ("temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty", "top_logprobs", "seed")
_FLAGS = ("logprobs", "parallel_tool_calls")
_WORDS = ("user", "reasoning_effort")
TRANSLATED = frozenset((*_NUMBERS, *_FLAGS, *_WORDS, "stop", "logit_bias"))


def arguments_of(dispatch: Dispatch) -> dict[str, Any]:
    """Chat arguments for `litellm.acompletion`; raises `UpstreamFailed` (400, unsent) naming a bad field."""
    ask, body = dispatch.ask, dispatch.ask.body
    for name, value in body.items():
        if value is not None and name not in UNTRANSLATED and name not in TRANSLATED:
            raise untranslatable(name, f"'{name}' cannot be carried over to this model's provider. Leave it out.")
    limit_field = dispatch.model.output_limit_field
    if limit_field not in ("max_tokens", "max_completion_tokens"):
        limit_field = "max_tokens"
    given: dict[str, Any] = {"messages": _messages(body["messages"]), limit_field: dispatch.output_limit}
    if ask.choices > 1:
        given["n"] = ask.choices
    for name in TRANSLATED & body.keys():
        if body[name] is not None:
            given[name] = _plain(name, body[name])
    if body.get("tools"):
        given["tools"] = [_tool(tool, f"tools.{at}") for at, tool in enumerate(body["tools"])]
    if body.get("tool_choice") is not None:
        given["tool_choice"] = _tool_choice(body["tool_choice"])
    if body.get("response_format") is not None:
        given["response_format"] = _response_format(body["response_format"])
    return given


def untranslatable(param: str, message: str) -> UpstreamFailed:
    return UpstreamFailed(
        "unsent",
        "untranslatable",
        message,
        status=400,
        code="unsupported_parameter",
        param=param,
        blame="request",
    )


def _wrong(param: str) -> UpstreamFailed:
    return untranslatable(param, f"'{param}' is not of a form that can be carried over to this model's provider.")


def _plain(name: str, value: Any) -> Any:
    if name in _NUMBERS:
        right = type(value) is int or (type(value) is float and math.isfinite(value))
    elif name in _FLAGS:
        right = type(value) is bool
    elif name in _WORDS:
        right = type(value) is str and len(value) <= 256
    elif name == "stop":
        right = type(value) is str or (type(value) is list and all(type(each) is str for each in value))
    else:
        right = type(value) is dict and all(type(each) in (int, float) for each in value.values())
    if not right:
        raise _wrong(name)
    return value


def _messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [_message(message, f"messages.{at}") for at, message in enumerate(messages)]


def _message(message: dict[str, Any], where: str) -> dict[str, Any]:
    role, content = message["role"], message.get("content")
    if role not in ROLES:
        raise _wrong(f"{where}.role")
    made: dict[str, Any] = {"role": role}
    if isinstance(content, list):
        made["content"] = [_part(part, f"{where}.content.{at}") for at, part in enumerate(content)]
    else:
        made["content"] = content
    if message.get("name") is not None:
        made["name"] = _text(message, "name", where)
    if role == "tool":
        made["tool_call_id"] = _text(message, "tool_call_id", where)
    calls = message.get("tool_calls")
    if role == "assistant" and calls is not None:
        if type(calls) is not list:
            raise _wrong(f"{where}.tool_calls")
        made["tool_calls"] = [_call(call, f"{where}.tool_calls.{at}") for at, call in enumerate(calls)]
    return made


def _part(part: dict[str, Any], where: str) -> dict[str, Any]:
    if part.get("type") == "image_url":
        image = part["image_url"]
        made = {"url": _text(image, "url", f"{where}.image_url")}
        if not made["url"][:11].lower() == "data:image/":
            raise _wrong(f"{where}.image_url.url")
        if image.get("detail") is not None:
            made["detail"] = _text(image, "detail", f"{where}.image_url")
        return {"type": "image_url", "image_url": made}
    name = "refusal" if part.get("type") == "refusal" else "text"
    return {"type": "text", "text": _text(part, name, where)}


def _call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function") if type(call) is dict else None
    if type(function) is not dict:
        raise _wrong(where)
    made = {
        "name": _text(function, "name", f"{where}.function"),
        "arguments": _text(function, "arguments", f"{where}.function"),
    }
    return {"id": _text(call, "id", where), "type": "function", "function": made}


def _tool(tool: dict[str, Any], where: str) -> dict[str, Any]:
    function = tool["function"]
    made: dict[str, Any] = {"name": _text(function, "name", f"{where}.function")}
    if function.get("description") is not None:
        made["description"] = _text(function, "description", f"{where}.function")
    if function.get("parameters") is not None:
        if type(function["parameters"]) is not dict:
            raise _wrong(f"{where}.function.parameters")
        made["parameters"] = function["parameters"]
    if type(function.get("strict")) is bool:
        made["strict"] = function["strict"]
    return {"type": "function", "function": made}


def _tool_choice(choice: Any) -> Any:
    if type(choice) is str and choice in ("none", "auto", "required"):
        return choice
    function = choice.get("function") if type(choice) is dict else None
    if type(function) is not dict:
        raise _wrong("tool_choice")
    return {"type": "function", "function": {"name": _text(function, "name", "tool_choice.function")}}


def _response_format(wanted: Any) -> dict[str, Any]:
    kind = wanted.get("type") if type(wanted) is dict else None
    if kind in ("text", "json_object"):
        return {"type": kind}
    described = wanted.get("json_schema") if kind == "json_schema" else None
    if type(described) is not dict or type(described.get("schema")) is not dict:
        raise _wrong("response_format")
    made: dict[str, Any] = {
        "name": _text(described, "name", "response_format.json_schema"),
        "schema": described["schema"],
    }
    if type(described.get("strict")) is bool:
        made["strict"] = described["strict"]
    return {"type": "json_schema", "json_schema": made}


def _text(holder: dict[str, Any], name: str, where: str) -> str:
    value = holder.get(name)
    if type(value) is not str:
        raise _wrong(f"{where}.{name}")
    return value
