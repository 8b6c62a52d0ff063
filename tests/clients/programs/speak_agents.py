"""The OpenAI Agents SDK: an agent with a tool, on Responses (its default) and on chat completions."""

from __future__ import annotations

import json
import os
from typing import Any

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from program import Call
from weather import weather as tell

set_tracing_disabled(True)
weather = function_tool(tell)


async def run(
    call: Call, *, chat: bool, streamed: bool, tools: bool = False, usage_asked: bool = True
) -> dict[str, Any]:
    async with AsyncOpenAI(base_url=call.v1, api_key=call.secret) as client:
        kind = OpenAIChatCompletionsModel if chat else OpenAIResponsesModel
        agent = Agent(
            name="Gatekeeper",
            model=kind(model=call.model, openai_client=client),
            model_settings=ModelSettings(include_usage=usage_asked or None, **call.limited("max_tokens")),
            tools=[weather] if tools else [],
        )
        pieces = 0
        if streamed:
            result = Runner.run_streamed(agent, call.prompt)
            async for event in result.stream_events():
                pieces += event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
        else:
            result = await Runner.run(agent, call.prompt)
    usage = result.context_wrapper.usage
    raw = [item.raw_item for item in result.new_items if item.type == "tool_call_item"]
    return {
        "text": result.final_output,
        "pieces": pieces,
        "calls": [json.loads(item.arguments) for item in raw],
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
    }


async def by_name(call: Call) -> dict[str, Any]:
    """The model as a text, and the gate from the environment: as most people begin."""
    os.environ |= {"OPENAI_BASE_URL": call.v1, "OPENAI_API_KEY": call.secret}
    result = await Runner.run(Agent(name="Gatekeeper", model=call.model), call.prompt)
    return {"text": result.final_output}


def cases(*, chat: bool) -> dict[str, Any]:
    return {
        "plain": lambda call: run(call, chat=chat, streamed=False),
        "streamed": lambda call: run(call, chat=chat, streamed=True),
        "tools": lambda call: run(call, chat=chat, streamed=False, tools=True),
        "tools_streamed": lambda call: run(call, chat=chat, streamed=True, tools=True),
    }


CASES = {
    "chat": {**cases(chat=True), "naive": lambda call: run(call, chat=True, streamed=True, usage_asked=False)},
    "responses": {**cases(chat=False), "by_name": by_name},
}
