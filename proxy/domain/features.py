"""The features that the gate itself looks at. A plan may have others, which are the seller's own, only shown."""

from __future__ import annotations

from collections.abc import Mapping

GATE_FEATURES: Mapping[str, str] = {
    "priority": "waiting requests go first where an upstream is saturated",
    "web_search": "the provider may search the web",
    "web_fetch": "the provider may fetch web pages",
    "code_interpreter": "the provider may run code",
    "file_search": "the provider may search files that it keeps",
    "mcp": "the provider may call remote MCP servers",
    "image_generation": "the provider may make images",
    "computer_use": "the provider may drive a computer of its own",
    "priority_tier": "the provider's dearer, faster tiers may be asked for",
    "remote_images": "images may be given by URL, which the provider fetches",
}
"""What each lets through where a plan has it as true."""

HOSTED_TOOLS = frozenset(
    ("web_search", "web_fetch", "code_interpreter", "file_search", "mcp", "image_generation", "computer_use")
)
"""Those that let the provider run a tool itself, within one request and as often as it likes."""
