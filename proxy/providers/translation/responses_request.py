"""A Responses request as a chat request: field by field, each translated, of no effect, or refused by name.

Pure. In: the client's body. Out: the chat body, and where in the client's body each of its parts comes from, so
that a fault which a chat upstream finds is told of the field that the client has written. `max_output_tokens`
is not among it: the admitted limit is put by whoever sends the chat request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from proxy.gateway.ports import UpstreamFailed
from proxy.providers.translation.responses_input import messages_of
from proxy.providers.untranslatable import misshapen, not_carried, object_of, only, text_of, untranslatable

# The same in both.
SAME = ("temperature", "top_p", "user", "safety_identifier", "prompt_cache_key", "service_tier")

# Put by whoever sends the chat request, or said in the answer alone; `store` because a chat upstream keeps nothing
# either way, which the answer says; `max_tool_calls` because it counts the calls of built-in tools only.
WITHOUT_EFFECT = frozenset(
    ("model", "max_output_tokens", "metadata", "client_metadata", "store", "max_tool_calls")
)

KEPT_ELSEWHERE = {
    "previous_response_id": "Send the whole conversation in 'input' instead",
    "conversation": "Send the whole conversation in 'input' instead",
    "prompt": "Send its text in 'instructions' and 'input' instead",
}

ENCRYPTED = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """`body` is the chat request. `messages` and `tools` say, of each of its own, what it was made of."""

    body: dict[str, Any]
    messages: tuple[str, ...]
    tools: tuple[str, ...]

    def retold(self, failed: UpstreamFailed) -> UpstreamFailed:
        """The same failure, in the client's words: a chat request's field by the name it has in Responses."""
        if failed.blame == "request" and failed.param is not None:
            name = self._name_of(failed.param)
            failed.message = failed.message.replace(f"'{failed.param}'", f"'{name}'")
            failed.param = name
        return failed

    def _name_of(self, param: str) -> str:
        if param in _RENAMED:
            return _RENAMED[param]
        if param.startswith("response_format"):
            return param.replace("response_format", "text.format", 1).replace(".json_schema", "", 1)
        found = _ELEMENT.match(param)
        if found is None:
            return param.replace("tool_choice.function", "tool_choice", 1)
        sources = self.messages if found["list"] == "messages" else self.tools
        at = int(found["at"])
        if found["list"] == "messages":
            return sources[at] if at < len(sources) else "input"
        rest = param[found.end() :].replace(".function", "", 1)
        return sources[at] + rest if at < len(sources) else "tools"


_ELEMENT = re.compile(r"(?P<list>messages|tools)\.?\[?(?P<at>\d{1,6})\]?")
_RENAMED = {
    "messages": "input",
    "verbosity": "text.verbosity",
    "reasoning_effort": "reasoning.effort",
    "logprobs": "include",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
}


def chat_request(body: Mapping[str, Any]) -> ChatRequest:
    """Raises `UpstreamFailed` (unsent, 400, the request's fault) naming the field that has no translation."""
    for name, value in body.items():
        if value is not None and name not in _TRANSLATED and name not in WITHOUT_EFFECT:
            raise _unknown(name)
    messages, sources = messages_of(body)
    chat: dict[str, Any] = {"messages": messages}
    for name, translate in _TRANSLATED.items():
        if body.get(name) is not None:
            translate(body, chat)
    return ChatRequest(chat, tuple(sources), _offered(body, chat))


def _unknown(name: str) -> UpstreamFailed:
    if name in KEPT_ELSEWHERE:
        message = f"'{name}' refers to what a provider keeps, and this model's provider keeps nothing."
        return untranslatable(name, f"{message} {KEPT_ELSEWHERE[name]}.")
    return not_carried(name[:64])


def _same(name: str) -> Callable[[Mapping[str, Any], dict[str, Any]], None]:
    def take(body: Mapping[str, Any], chat: dict[str, Any]) -> None:
        chat[name] = body[name]

    return take


def _only(name: str, *harmless: Any) -> Callable[[Mapping[str, Any], dict[str, Any]], None]:
    """A field that has no counterpart, and these values that ask for nothing."""

    def take(body: Mapping[str, Any], chat: dict[str, Any]) -> None:
        if body[name] not in harmless:
            raise _unknown(name)

    return take


def _streamed(body: Mapping[str, Any], chat: dict[str, Any]) -> None:
    if body["stream"] is True:
        chat["stream"] = True


def _stream_options(body: Mapping[str, Any], chat: dict[str, Any]) -> None:
    options = object_of(body, "stream_options")
    only(options, ("include_obfuscation",), "stream_options")
    if options.get("include_obfuscation"):
        raise not_carried("stream_options.include_obfuscation", "Set it to false.")


def _text(body: Mapping[str, Any], chat: dict[str, Any]) -> None:
    text = object_of(body, "text")
    only(text, ("format", "verbosity"), "text")
    if text.get("verbosity") is not None:
        chat["verbosity"] = text_of(text, "verbosity", "text")
    if text.get("format") is not None:
        wanted = object_of(text, "format", "text")
        if wanted.get("type") == "json_schema":
            chat["response_format"] = {"type": "json_schema", "json_schema": _schema(wanted)}
        elif wanted.get("type") == "json_object":
            only(wanted, ("type",), "text.format")
            chat["response_format"] = {"type": "json_object"}
        elif wanted.get("type") == "text":
            only(wanted, ("type",), "text.format")
        else:
            raise misshapen("text.format.type")


def _schema(wanted: Mapping[str, Any]) -> dict[str, Any]:
    only(wanted, ("type", "name", "schema", "strict", "description"), "text.format")
    made: dict[str, Any] = {"name": text_of(wanted, "name", "text.format")}
    if wanted.get("description") is not None:
        made["description"] = text_of(wanted, "description", "text.format")
    made["schema"] = object_of(wanted, "schema", "text.format")
    _strictness(wanted, made, "text.format")
    return made


def _strictness(given: Mapping[str, Any], made: dict[str, Any], where: str) -> None:
    if given.get("strict") is not None:
        if type(given["strict"]) is not bool:
            raise misshapen(f"{where}.strict")
        made["strict"] = given["strict"]


def _reasoning(body: Mapping[str, Any], chat: dict[str, Any]) -> None:
    """A summary is of no effect: what the upstream tells of its reasoning comes in any case."""
    reasoning = object_of(body, "reasoning")
    only(reasoning, ("effort", "summary", "generate_summary", "context", "mode"), "reasoning")
    for name, harmless in (("context", "auto"), ("mode", "standard")):
        if reasoning.get(name) not in (None, harmless):
            raise _unknown(f"reasoning.{name}")
    if reasoning.get("effort") is not None:
        chat["reasoning_effort"] = text_of(reasoning, "effort", "reasoning")


def _include(body: Mapping[str, Any], chat: dict[str, Any]) -> None:
    """Encrypted reasoning is of no effect: there is none. Everything else is of tools that are not there."""
    wanted = body["include"]
    if type(wanted) is not list:
        raise misshapen("include")
    for at, each in enumerate(wanted):
        if each == LOGPROBS:
            chat["logprobs"] = True
        elif each != ENCRYPTED:
            raise _unknown(f"include.{at}")


def _top_logprobs(body: Mapping[str, Any], chat: dict[str, Any]) -> None:
    count = body["top_logprobs"]
    if type(count) is not int:
        raise misshapen("top_logprobs")
    if count:
        chat["logprobs"] = True
        chat["top_logprobs"] = count


def _tools(body: Mapping[str, Any], chat: dict[str, Any]) -> None:
    tools = body["tools"]
    if type(tools) is not list:
        raise misshapen("tools")
    if tools:
        chat["tools"] = [_tool(tool, f"tools.{at}") for at, tool in enumerate(tools)]


def _tool(tool: Any, where: str) -> dict[str, Any]:
    if type(tool) is not dict:
        raise misshapen(where)
    if tool.get("type") == "custom":
        message = f"'{where}' is a custom tool, which this model's provider has not."
        raise untranslatable(f"{where}.type", f"{message} Make it a function with one parameter, a string.")
    if tool.get("type") != "function":
        message = f"'{where}' is no function, and this model's provider has no tools of its own. Leave it out."
        raise untranslatable(f"{where}.type", message)
    only(tool, ("type", "name", "description", "parameters", "strict", *_HARMLESS), where)
    for name, harmless in _HARMLESS.items():
        if tool.get(name) not in (None, harmless):
            raise _unknown(f"{where}.{name}")
    function: dict[str, Any] = {"name": text_of(tool, "name", where)}
    if tool.get("description") is not None:
        function["description"] = text_of(tool, "description", where)
    if tool.get("parameters") is not None:
        function["parameters"] = object_of(tool, "parameters", where)
    _strictness(tool, function, where)
    return {"type": "function", "function": function}


_HARMLESS: dict[str, Any] = {"async": False, "defer_loading": False, "allowed_callers": ["direct"]}


def _tool_choice(body: Mapping[str, Any], chat: dict[str, Any]) -> None:
    """Which tools may be called; those that may not are not offered. Comes after the tools."""
    choice = body["tool_choice"]
    if type(choice) is dict and choice.get("type") == "allowed_tools":
        choice = _allowed(choice, chat)
    if choice in ("auto", "none") and "tools" not in chat:
        return
    if choice not in ("auto", "none", "required"):
        choice = {"type": "function", "function": {"name": _named(choice, "tool_choice")}}
    if "tools" not in chat:
        raise untranslatable("tool_choice", "'tool_choice' asks for a tool, but there is none in 'tools'.")
    chat["tool_choice"] = choice


def _allowed(choice: dict[str, Any], chat: dict[str, Any]) -> Any:
    only(choice, ("type", "mode", "tools"), "tool_choice")
    allowed = choice.get("tools")
    if choice.get("mode") not in ("auto", "required") or type(allowed) is not list:
        raise misshapen("tool_choice")
    offered = {tool["function"]["name"] for tool in chat.get("tools", ())}
    names = [_named(each, f"tool_choice.tools.{at}") for at, each in enumerate(allowed)]
    for at, name in enumerate(names):
        if name not in offered:
            where = f"tool_choice.tools.{at}.name"
            raise untranslatable(where, f"'{where}' is not the name of a function in 'tools'.")
    kept = [tool for tool in chat.pop("tools", ()) if tool["function"]["name"] in names]
    if kept:
        chat["tools"] = kept
    return choice["mode"]


def _named(choice: Any, where: str) -> str:
    if type(choice) is not dict or choice.get("type") != "function":
        raise misshapen(where)
    only(choice, ("type", "name"), where)
    return text_of(choice, "name", where)


def _parallel(body: Mapping[str, Any], chat: dict[str, Any]) -> None:
    if "tools" in chat:
        chat["parallel_tool_calls"] = body["parallel_tool_calls"]


def _offered(body: Mapping[str, Any], chat: Mapping[str, Any]) -> tuple[str, ...]:
    """Where each tool of the chat request stands in the client's."""
    names = {tool["function"]["name"] for tool in chat.get("tools", ())}
    return tuple(f"tools.{at}" for at, tool in enumerate(body.get("tools") or ()) if tool["name"] in names)


def _said(body: Mapping[str, Any], chat: dict[str, Any]) -> None:
    """Made into messages before all else."""


# In this order: a choice of tools is made among those that are there.
_TRANSLATED: dict[str, Callable[[Mapping[str, Any], dict[str, Any]], None]] = {
    "instructions": _said,
    "input": _said,
    **{name: _same(name) for name in SAME},
    "text": _text,
    "reasoning": _reasoning,
    "include": _include,
    "top_logprobs": _top_logprobs,
    "tools": _tools,
    "tool_choice": _tool_choice,
    "parallel_tool_calls": _parallel,
    "background": _only("background", False),
    "context_management": _only("context_management", []),
    "truncation": _only("truncation", "disabled"),
    "stream": _streamed,
    "stream_options": _stream_options,
}
TRANSLATED = frozenset(_TRANSLATED)
