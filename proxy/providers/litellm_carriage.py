"""What of a chat request is known to arrive at which provider, and how it has to be said for it to arrive.

LiteLLM refuses some of what a provider has no word for and drops the rest without one. So for Claude and Gemini
everything that was seen to arrive stands here, and whatever else is refused by name. Tools and formats are said
in the provider's own words where LiteLLM's would lose something: `strict`, parts of a schema, the format itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from proxy.providers.litellm_messages import called_names
from proxy.providers.untranslatable import not_carried, untranslatable

Given = dict[str, Any]
"""Chat arguments for LiteLLM, checked, in OpenAI's words."""

ASKS_NOTHING: Mapping[str, tuple[Any, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "stop": ([],),
    "parallel_tool_calls": (True,),
}
"""Values at which a field says what goes without saying; it is left out then, wherever the request goes."""

STOPS_MAX = 4


@dataclass(frozen=True, slots=True)
class Carriage:
    """`fields` are those that arrive at all; `said` puts the rest in the provider's words."""

    fields: frozenset[str]
    said: Callable[[Any, str, Given], Given]
    details: bool
    thinking: bool


def _claude(litellm: Any, model: str, given: Given) -> Given:
    format = given.pop("response_format", None)
    if format is not None and format["type"] == "json_object":
        raise not_carried("response_format", "Claude takes 'json_schema' alone.")
    if format is not None and format["type"] == "json_schema":
        given["output_format"] = litellm.AnthropicConfig().map_response_format_to_anthropic_output_format(format)
    if "tools" in given:
        given["tools"] = [_claude_tool(tool["function"]) for tool in given["tools"]]
    elif called := called_names(given["messages"]):
        # Calls cannot be told without tools. LiteLLM would add one of its own, which Claude might then call.
        given["tools"] = [_claude_tool({"name": name}) for name in called]
        given["tool_choice"] = "none"
    return given


def _claude_tool(function: Mapping[str, Any]) -> dict[str, Any]:
    schema = function.get("parameters") or {"properties": {}}
    tool = {"type": "custom", "name": function["name"], "input_schema": {"type": "object", **schema}}
    return {**tool, **{name: function[name] for name in ("description", "strict") if function.get(name)}}


def _gemini(litellm: Any, model: str, given: Given) -> Given:
    newest = litellm.VertexGeminiConfig.is_gemini_3_or_newer(model)
    for name in ("presence_penalty", "frequency_penalty"):
        if newest and name in given:
            raise not_carried(name)
    if newest and given.get("reasoning_effort") == "none":
        raise untranslatable(
            "reasoning_effort", "This model cannot stop thinking: 'reasoning_effort' is 'low' at least."
        )
    if "n" in given and given.get("stream"):
        raise not_carried("n", "Without 'stream' it can be.")
    said: dict[str, Any] = {}
    if "tools" in given:
        tools, choice = given.pop("tools"), given.pop("tool_choice", "auto")
        said["tools"] = [{"functionDeclarations": [_gemini_tool(tool["function"]) for tool in tools]}]
        strict = any(tool["function"].get("strict") for tool in tools)
        said["toolConfig"] = {"functionCallingConfig": _gemini_choice(choice, strict)}
    format = given.pop("response_format", None)
    if format is not None and format["type"] != "text":
        said["generationConfig"] = {"responseMimeType": "application/json"}
        if format["type"] == "json_schema":
            said["generationConfig"]["responseJsonSchema"] = format["json_schema"]["schema"]
    if said:
        given["extra_body"] = said
    return given


def _gemini_tool(function: Mapping[str, Any]) -> dict[str, Any]:
    tool = {name: function[name] for name in ("name", "description") if function.get(name)}
    if function.get("parameters"):
        tool["parametersJsonSchema"] = function["parameters"]
    return tool


def _gemini_choice(choice: Any, strict: bool) -> dict[str, Any]:
    """Calls that are forced keep to their schemas anyway; of free ones that has to be asked."""
    if type(choice) is dict:
        return {"mode": "ANY", "allowedFunctionNames": [choice["function"]["name"]]}
    return {"mode": {"none": "NONE", "required": "ANY", "auto": "VALIDATED" if strict else "AUTO"}[choice]}


_SAMPLING = ("temperature", "top_p", "top_k", "stop", "reasoning_effort")

CARRIAGES: Mapping[str, Carriage] = {
    "anthropic": Carriage(
        frozenset((*_SAMPLING, "user", "parallel_tool_calls", "tools", "tool_choice", "response_format")),
        _claude,
        details=False,
        thinking=True,
    ),
    "gemini": Carriage(
        frozenset(
            (
                *(*_SAMPLING, "user", "seed", "presence_penalty", "frequency_penalty", "logprobs", "n"),
                *("tools", "tool_choice", "response_format"),
            )
        ),
        _gemini,
        details=True,
        thinking=False,
    ),
}
"""By LiteLLM's name for the provider. `user` is the gate's own affair: Anthropic is told it, unless it is an
e-mail address or a telephone number; Gemini has no word for it."""
