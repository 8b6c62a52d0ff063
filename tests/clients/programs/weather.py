"""The one tool of every test, and how each wire declares it."""

from __future__ import annotations

import json
from typing import Any

DESCRIPTION = "Tells the weather of a city."
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CHAT_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "description": DESCRIPTION, "parameters": SCHEMA},
}
RESPONSES_TOOL: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "description": DESCRIPTION,
    "parameters": SCHEMA,
    "strict": False,
}
MESSAGES_TOOL: dict[str, Any] = {"name": "weather", "description": DESCRIPTION, "input_schema": SCHEMA}


def weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"It rains in {city}."


def weather_of(arguments: str | dict[str, Any]) -> str:
    """The tool's answer to a call as it came: its arguments are a text for OpenAI, an object for Anthropic."""
    return weather(**(json.loads(arguments) if isinstance(arguments, str) else arguments))
