"""pydantic-ai: an agent with a tool on Responses ('openai:…'), chat completions and messages; an embedder."""

from __future__ import annotations

import os
from typing import Any

from program import Call
from pydantic_ai import Agent, Embedder
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.messages import ModelMessage, ToolCallPart
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from weather import weather


def model(call: Call, endpoint: str) -> Model:
    if endpoint == "messages":
        return AnthropicModel(call.model, provider=AnthropicProvider(base_url=call.url, api_key=call.secret))
    provider = OpenAIProvider(base_url=call.v1, api_key=call.secret)
    kind = OpenAIChatModel if endpoint == "chat" else OpenAIResponsesModel
    return kind(call.model, provider=provider)


def made(messages: list[ModelMessage]) -> list[Any]:
    parts = [part for message in messages for part in message.parts]
    return [part.args_as_dict() for part in parts if isinstance(part, ToolCallPart)]


async def run(call: Call, spoken: Model | str, *, streamed: bool, tools: bool = False) -> dict[str, Any]:
    agent = Agent(spoken, tools=[weather] if tools else [], model_settings=call.limited("max_tokens"))
    if streamed:
        async with agent.run_stream(call.prompt) as result:
            texts = [text async for text in result.stream_text(delta=True, debounce_by=None)]
        text, pieces = "".join(texts), len(texts)
    else:
        result = await agent.run(call.prompt)
        text, pieces = result.output, 1
    usage = result.usage
    return {
        "text": text,
        "pieces": pieces,
        "calls": made(result.all_messages()),
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
    }


async def by_name(call: Call) -> dict[str, Any]:
    """The model as a text, and the gate from the environment: as most people begin."""
    os.environ |= {"OPENAI_BASE_URL": call.v1, "OPENAI_API_KEY": call.secret}
    return await run(call, f"openai:{call.model}", streamed=False)


async def embedded(call: Call) -> dict[str, Any]:
    provider = OpenAIProvider(base_url=call.v1, api_key=call.secret)
    result = await Embedder(OpenAIEmbeddingModel(call.model, provider=provider)).embed_documents(
        [call.prompt, "and another"]
    )
    sizes = {len(vector) for vector in result.embeddings}
    return {
        "vectors": len(result.embeddings),
        "sizes": list(sizes),
        "input_tokens": result.usage.input_tokens,
    }


def cases(endpoint: str) -> dict[str, Any]:
    return {
        "plain": lambda call: run(call, model(call, endpoint), streamed=False),
        "streamed": lambda call: run(call, model(call, endpoint), streamed=True),
        "tools": lambda call: run(call, model(call, endpoint), streamed=False, tools=True),
        "tools_streamed": lambda call: run(call, model(call, endpoint), streamed=True, tools=True),
        "by_name": by_name,
    }


CASES = {
    "chat": cases("chat"),
    "responses": cases("responses"),
    "messages": cases("messages"),
    "embeddings": {"plain": embedded},
}
