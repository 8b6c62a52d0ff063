"""How often a provider called the tools that it runs itself, as its answers tell: by the plan's word for each.

Anthropic and OpenRouter say it in their usage. OpenAI does not, but every call is an item of the output. A chat
completion that was asked to search has done so once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from proxy.domain.asks import Ask
from proxy.domain.usage import TOKENS_MAX, Usage

# Items of a response.
ITEMS = {
    "web_search_call": "web_search",
    "file_search_call": "file_search",
    "code_interpreter_call": "code_interpreter",
    "image_generation_call": "image_generation",
    "mcp_call": "mcp",
    "computer_call": "computer_use",
}
# A call of the shell may be the provider's to carry out, or the client's.
SHELL = "shell_call"

# Tools of a message's blocks.
SERVER_TOOLS = {
    "web_search": "web_search",
    "web_fetch": "web_fetch",
    "code_execution": "code_interpreter",
    "bash_code_execution": "code_interpreter",
    "text_editor_code_execution": "code_interpreter",
}

# Numbers of a usage report's `server_tool_use`.
REQUESTS = {"web_search_requests": "web_search", "web_fetch_requests": "web_fetch"}


def with_calls(usage: Usage, counted: Mapping[str, int]) -> Usage:
    """The usage with calls that were counted in the answer; what it reports itself goes first."""
    return replace(usage, calls={**counted, **usage.calls}) if counted else usage


def with_at_least(usage: Usage, counted: Mapping[str, int]) -> Usage:
    """The usage of an answer that was cut off: its report may be older than the calls that were counted."""
    calls = {tool: max(count, usage.calls.get(tool, 0)) for tool, count in counted.items()}
    return replace(usage, calls={**usage.calls, **calls}) if counted else usage


def asked_calls(ask: Ask) -> dict[str, int]:
    """The calls that an answered chat completion stands for, where nothing is reported."""
    asked = [extra for extra in ask.extras if extra.param == "web_search_options"]
    return {extra.feature: extra.calls or 0 for extra in asked}


def calls_in_items(items: Any, ask: Ask) -> dict[str, int]:
    """Of a response's output."""
    kinds = [item.get("type") for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    runs_code = any(extra.feature == "code_interpreter" for extra in ask.extras)
    return _counted("code_interpreter" if kind == SHELL and runs_code else _word(ITEMS, kind) for kind in kinds)


def calls_in_blocks(blocks: Any) -> dict[str, int]:
    """Of a message's content, or of the blocks that its stream has begun."""
    found = [block for block in blocks if isinstance(block, dict)] if isinstance(blocks, list) else []
    return _counted(
        "mcp" if block.get("type") == "mcp_tool_use" else _word(SERVER_TOOLS, block.get("name"))
        for block in found
        if block.get("type") in ("server_tool_use", "mcp_tool_use")
    )


def unreported(calls: Mapping[str, int], report: Any) -> dict[str, int]:
    """What was counted of those tools whose calls the report says nothing about."""
    said = isinstance(report, dict) and isinstance(report.get("server_tool_use"), dict)
    return {tool: count for tool, count in calls.items() if not said or tool not in REQUESTS.values()}


def reported_calls(report: Mapping[Any, Any]) -> tuple[dict[str, int], bool]:
    """The calls that a usage report tells of, and whether some number of them is none that can be believed."""
    said = report.get("server_tool_use")
    if said is None:
        return {}, False
    if not isinstance(said, dict):
        return {}, True
    given = {tool: said[name] for name, tool in REQUESTS.items() if said.get(name) is not None}
    calls = {tool: count for tool, count in given.items() if type(count) is int and 0 <= count <= TOKENS_MAX}
    return {tool: count for tool, count in calls.items() if count}, len(calls) < len(given)


def _word(words: Mapping[str, str], name: Any) -> str | None:
    return words.get(name) if isinstance(name, str) else None


def _counted(tools: Iterable[str | None]) -> dict[str, int]:
    return dict(Counter(tool for tool in tools if tool is not None))
