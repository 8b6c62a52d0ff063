"""What LiteLLM is given of a chat request: rebuilt field by field, so that nothing else can steer it.

LiteLLM takes over a hundred keyword names that choose hosts, keys, files and callbacks, and looks for more
inside tools and metadata. So messages and tools are made anew from what a chat request may say, every value
is of the right type, and a field that has no translation is refused by name.
"""

from __future__ import annotations

import math
from typing import Any

from proxy.gateway.ports import Dispatch
from proxy.providers.litellm_carriage import ASKS_NOTHING, CARRIAGES, STOPS_MAX, Given
from proxy.providers.litellm_messages import Messages
from proxy.providers.untranslatable import misshapen, not_carried, only, text_of, untranslatable

# Known to the gate, of no effect on another wire, or said otherwise.
UNTRANSLATED = frozenset(
    (
        *("model", "messages", "tools", "tool_choice", "response_format", "n", "stream", "stream_options"),
        *("max_tokens", "max_completion_tokens", "metadata", "safety_identifier", "prompt_cache_key"),
        *("store", "modalities", "best_of"),
    )
)
# The tiers that any provider has, asked for or not.
USUAL_TIERS = ("auto", "default")
_NUMBERS = ("temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty", "top_logprobs", "seed")
_FLAGS = ("logprobs", "parallel_tool_calls")
_WORDS = ("user", "reasoning_effort")
TRANSLATED = frozenset((*_NUMBERS, *_FLAGS, *_WORDS, "stop", "logit_bias"))


def arguments_of(dispatch: Dispatch, provider: str, litellm: Any) -> Given:
    """Chat arguments for `litellm.acompletion`; raises `UpstreamFailed` (400, unsent) naming a bad field."""
    ask, body = dispatch.ask, dispatch.ask.body
    for name, value in body.items():
        if value is None or name in UNTRANSLATED or name in TRANSLATED:
            continue
        if name != "service_tier":
            raise not_carried(name)
        if value not in USUAL_TIERS:
            raise not_carried(name, "Leave it out or set it to 'auto' or 'default'.")
    carriage = CARRIAGES.get(provider)
    limit_field = dispatch.model.output_limit_field
    if limit_field not in ("max_tokens", "max_completion_tokens"):
        limit_field = "max_tokens"
    messages = Messages(
        exact=carriage is not None,
        details=carriage is None or carriage.details,
        thinking=carriage is not None and carriage.thinking,
    )
    given: Given = {"messages": messages.rebuilt(body["messages"]), limit_field: dispatch.output_limit}
    if ask.choices > 1:
        given["n"] = ask.choices
    given |= _plain_fields(body) | _tools(body)
    if "tools" not in given:
        given.pop("parallel_tool_calls", None)
    if body.get("response_format") is not None:
        given["response_format"] = _response_format(body["response_format"])
    if ask.streamed:
        given |= {"stream": True, "stream_options": {"include_usage": True}}
    if carriage is None:
        return given
    for name in given:
        if name in body and name in CHOSEN and name not in carriage.fields:
            raise not_carried(name)
    return carriage.said(litellm, dispatch.upstream_model, given)


CHOSEN = TRANSLATED | {"n", "tools", "tool_choice", "response_format"}
"""What a client may ask for, beside the messages and the limit that every provider takes."""


def _plain_fields(body: dict[str, Any]) -> Given:
    given = {}
    for name in TRANSLATED & body.keys():
        value = body[name]
        if value is None:
            continue
        _check(name, value)
        if name == "stop" and type(value) is list and len(value) > STOPS_MAX:
            raise untranslatable(
                "stop", f"'stop' has {len(value)} sequences; at most {STOPS_MAX} can be carried over."
            )
        if value not in ASKS_NOTHING.get(name, ()):
            given[name] = value
    return given


def _check(name: str, value: Any) -> None:
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
        raise misshapen(name)


def _tools(body: dict[str, Any]) -> Given:
    """The tools and how they may be called; without tools a free choice says nothing."""
    choice = body.get("tool_choice")
    given: Given = {} if choice is None else {"tool_choice": _tool_choice(choice)}
    if body.get("tools"):
        return {**given, "tools": [_tool(tool, f"tools.{at}") for at, tool in enumerate(body["tools"])]}
    if given.get("tool_choice") not in (None, "auto", "none"):
        raise untranslatable("tool_choice", "'tool_choice' asks for a call, and there are no 'tools'.")
    return {}


def _tool(tool: dict[str, Any], where: str) -> dict[str, Any]:
    function = tool.get("function")
    if tool.get("type") != "function" or type(function) is not dict:
        raise not_carried(f"{where}.type", "Only functions can be.")
    only(tool, ("type", "function"), where)
    only(function, ("name", "description", "parameters", "strict"), f"{where}.function")
    made: dict[str, Any] = {"name": text_of(function, "name", f"{where}.function")}
    if function.get("description") is not None:
        made["description"] = text_of(function, "description", f"{where}.function")
    if function.get("parameters") is not None:
        if type(function["parameters"]) is not dict:
            raise misshapen(f"{where}.function.parameters")
        made["parameters"] = function["parameters"]
    if function.get("strict") is not None:
        if type(function["strict"]) is not bool:
            raise misshapen(f"{where}.function.strict")
        made["strict"] = function["strict"]
    return {"type": "function", "function": made}


def _tool_choice(choice: Any) -> Any:
    if type(choice) is str and choice in ("none", "auto", "required"):
        return choice
    function = choice.get("function") if type(choice) is dict else None
    if type(function) is not dict:
        raise misshapen("tool_choice")
    return {"type": "function", "function": {"name": text_of(function, "name", "tool_choice.function")}}


def _response_format(wanted: Any) -> dict[str, Any]:
    kind = wanted.get("type") if type(wanted) is dict else None
    if kind in ("text", "json_object"):
        return {"type": kind}
    described = wanted.get("json_schema") if kind == "json_schema" else None
    if type(described) is not dict or type(described.get("schema")) is not dict:
        raise misshapen("response_format")
    made: dict[str, Any] = {
        "name": text_of(described, "name", "response_format.json_schema"),
        "schema": described["schema"],
    }
    if type(described.get("strict")) is bool:
        made["strict"] = described["strict"]
    return {"type": "json_schema", "json_schema": made}
