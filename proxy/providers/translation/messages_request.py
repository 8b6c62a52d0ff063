"""A Messages request as one of chat completions, field by field: each is carried, known to be without effect on
another wire, or refused by its name.

The model, the output limit and the asking for usage are the chat carrier's own matter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxy.domain.asks import Ask
from proxy.domain.messages_requests import HARMLESS
from proxy.gateway.ports import UpstreamFailed
from proxy.providers.translation.messages_turns import Turns, object_of, said_of
from proxy.providers.untranslatable import misshapen, not_carried, only, text_of, untranslatable

TRANSLATED = frozenset(
    (
        *("messages", "system", "tools", "tool_choice", "output_config", "output_format", "stop_sequences"),
        *("thinking", "temperature", "top_p", "top_k", "stream", "model", "max_tokens"),
    )
)

# They cache, diagnose, pay or tell the provider who is asking, and no answer hangs on them. Of the context
# management only what takes thinking out is: no thinking of earlier turns is carried anyway.
WITHOUT_EFFECT = frozenset(
    ("cache_control", "context_management", "diagnostics", "fallback_credit_token", "metadata")
)

EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "xhigh"}
# The most tokens of thinking that still are this effort; more is "high".
BUDGETS = ((4_096, "low"), (16_384, "medium"))

FORMAT_NAME = "answer"
"""Chat completions wants a name for a schema, and Messages has none."""

_TOOL_FIELDS = (
    *("type", "name", "description", "input_schema", "strict"),
    *("cache_control", "eager_input_streaming"),
)
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """The translated body. `sources` says of each chat message where in the request it comes from."""

    body: dict[str, Any]
    sources: tuple[str, ...]
    shows_thinking: bool
    stop_sequences: tuple[str, ...]
    effort_source: str

    def retold(self, failed: UpstreamFailed) -> UpstreamFailed:
        """The same failure, in the client's words: a field of the chat request by its name in Messages."""
        if failed.blame == "request" and failed.param is not None:
            name = self._name_of(failed.param)
            failed.message = failed.message.replace(f"'{failed.param}'", f"'{name}'")
            if name not in failed.message:
                failed.message = f"{failed.message} ('{name}')"
            failed.param = name
        return failed

    def _name_of(self, param: str) -> str:
        if param == "reasoning_effort":
            return self.effort_source
        found = _MESSAGE.match(param)
        if found is not None:
            at = int(found["at"])
            return self.sources[at] if at < len(self.sources) else "messages"
        for name, renamed in _RENAMED:
            param = re.sub(name, renamed, param, count=1)
        return param


_MESSAGE = re.compile(r"messages\.?\[?(?P<at>\d{1,6})\]?")
_RENAMED = (
    (r"^stop$", "stop_sequences"),
    (r"^max_completion_tokens$", "max_tokens"),
    (r"^parallel_tool_calls$", "tool_choice.disable_parallel_tool_use"),
    (r"^response_format(\.json_schema)?", "output_config.format"),
    (r"^tools(?:\.(\d+)|\[(\d+)\])\.function\.parameters", r"tools.\1\2.input_schema"),
    (r"^tools(?:\.(\d+)|\[(\d+)\])(?:\.function)?", r"tools.\1\2"),
    (r"^tool_choice\.function", "tool_choice"),
)


def chat_request(ask: Ask) -> ChatRequest:
    """Translates the ask's body; raises `UpstreamFailed` (400, unsent) naming what cannot be carried."""
    body = {name: value for name, value in ask.body.items() if value is not None}
    _refuse_others(body)
    turns = Turns()
    if "system" in body:
        turns.system(body["system"], "system")
    turns.read(body["messages"])
    made: dict[str, Any] = {"messages": turns.messages, **_sampling(body), **_tools(body)}
    thinking = object_of(body, "thinking") if "thinking" in body else {}
    config = object_of(body, "output_config") if "output_config" in body else {}
    only(config, ("effort", "format"), "output_config")
    effort, effort_source = _effort(thinking, config)
    if effort is not None:
        made["reasoning_effort"] = effort
    if (form := _form(body, config)) is not None:
        made["response_format"] = form
    if ask.streamed:
        made["stream"] = True
    return ChatRequest(
        made,
        tuple(turns.sources),
        thinking.get("type") in ("enabled", "adaptive") and thinking.get("display") != "omitted",
        tuple(made.get("stop", ())),
        effort_source,
    )


def _refuse_others(body: Mapping[str, Any]) -> None:
    for name, value in body.items():
        if name in TRANSLATED or name in WITHOUT_EFFECT:
            continue
        if not any(type(value) is type(each) and value == each for each in HARMLESS.get(name, ())):
            raise not_carried(name[:64])
    if body.get("max_tokens") == 0:
        message = "'max_tokens' 0 fills a cache that this model's provider has not. Ask for at least one token."
        raise untranslatable("max_tokens", message)
    edits = object_of(body, "context_management").get("edits") if "context_management" in body else None
    for at, edit in enumerate(edits or ()):
        if not text_of(edit, "type", where := f"context_management.edits.{at}").startswith("clear_thinking_"):
            message = f"'{where}' takes out of the context what this model's provider would keep. Leave it out."
            raise untranslatable(where, message)


def _sampling(body: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name in ("temperature", "top_p", "top_k"):
        if name in body:
            if type(body[name]) not in (int, float):
                raise misshapen(name)
            made[name] = body[name]
    stops = body.get("stop_sequences") or []
    if type(stops) is not list or not all(type(each) is str for each in stops):
        raise misshapen("stop_sequences")
    return {**made, "stop": stops} if stops else made


def _effort(thinking: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str | None, str]:
    """The effort and the field that says so. Whoever leaves the thinking to the model, or wants none, gets the
    model's own default: there is no word for it that all chat models know."""
    only(thinking, ("type", "budget_tokens", "display"), "thinking")
    kind = thinking.get("type", "disabled")
    if kind not in ("enabled", "disabled", "adaptive", "between_tools"):
        raise misshapen("thinking.type")
    effort = config.get("effort")
    if effort is not None:
        if type(effort) is not str or effort not in EFFORTS:
            raise misshapen("output_config.effort")
        return EFFORTS[effort], "output_config.effort"
    if kind != "enabled":
        return None, "thinking"
    budget = thinking.get("budget_tokens")
    if type(budget) is not int:
        raise misshapen("thinking.budget_tokens")
    return next((name for most, name in BUDGETS if budget <= most), "high"), "thinking.budget_tokens"


def _form(body: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any] | None:
    where, form = "output_config.format", config.get("format")
    if "output_format" in body:
        if form is not None:
            raise misshapen("output_format")
        where, form = "output_format", body["output_format"]
    if form is None:
        return None
    if type(form) is not dict or form.get("type") != "json_schema":
        raise misshapen(where)
    only(form, ("type", "schema"), where)
    # What Messages promises of a schema, chat completions promises only of a strict one.
    described = {"name": FORMAT_NAME, "schema": object_of(form, "schema", where), "strict": True}
    return {"type": "json_schema", "json_schema": described}


def _tools(body: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    tools = body.get("tools") or []
    if type(tools) is not list:
        raise misshapen("tools")
    if tools:
        made["tools"] = [_tool(tool, f"tools.{at}") for at, tool in enumerate(tools)]
    choice = object_of(body, "tool_choice") if "tool_choice" in body else {}
    only(choice, ("type", "name", "disable_parallel_tool_use"), "tool_choice")
    kind = choice.get("type", "auto")
    if kind == "tool":
        name = text_of(choice, "name", "tool_choice")
        made["tool_choice"] = {"type": "function", "function": {"name": name}}
    elif type(kind) is not str or kind not in _CHOICES:
        raise misshapen("tool_choice.type")
    elif choice and (tools or kind == "any"):
        made["tool_choice"] = _CHOICES[kind]
    if tools and choice.get("disable_parallel_tool_use"):
        made["parallel_tool_calls"] = False
    return made


def _tool(tool: Any, where: str) -> dict[str, Any]:
    """A tool that the client defines itself. Anthropic's own have no schema that another model could be told."""
    if type(tool) is not dict:
        raise misshapen(where)
    if tool.get("type") not in (None, "custom"):
        message = f"'{where}' is a tool of Anthropic's own, which this model's provider has not. Leave it out."
        raise untranslatable(where, message)
    harmless = {"defer_loading": False, "allowed_callers": ["direct"]}
    said = {name: value for name, value in said_of(tool).items() if harmless.get(name) != value}
    # How finely the arguments are streamed is up to the upstream.
    only(said, _TOOL_FIELDS, where)
    made: dict[str, Any] = {"name": text_of(tool, "name", where)}
    if tool.get("description") is not None:
        made["description"] = text_of(tool, "description", where)
    made["parameters"] = object_of(tool, "input_schema", where)
    if tool.get("strict") is not None:
        if type(tool["strict"]) is not bool:
            raise misshapen(f"{where}.strict")
        made["strict"] = tool["strict"]
    return {"type": "function", "function": made}
