"""LiteLLM's SDK as a client: chat completions and embeddings of an OpenAI-compatible address."""

from __future__ import annotations

import json
import os
from typing import Any

os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}

import litellm
from program import Call
from weather import CHAT_TOOL, weather_of

litellm.suppress_debug_info = True
litellm.telemetry = False


def fields_of(call: Call) -> dict[str, Any]:
    return {
        "model": f"openai/{call.model}",
        "api_base": call.v1,
        "api_key": call.secret,
        "messages": [{"role": "user", "content": call.prompt}],
        **call.limited("max_tokens"),
    }


async def whole(fields: dict[str, Any], *, streamed: bool) -> tuple[Any, int]:
    """The answer, and in how many pieces its text came."""
    if not streamed:
        return await litellm.acompletion(**fields), 1
    stream = await litellm.acompletion(stream=True, stream_options={"include_usage": True}, **fields)
    chunks = [chunk async for chunk in stream]
    return litellm.stream_chunk_builder(chunks, messages=fields["messages"]), len(chunks)


async def run(call: Call, *, streamed: bool, tools: bool = False) -> dict[str, Any]:
    fields = fields_of(call) | ({"tools": [CHAT_TOOL]} if tools else {})
    made, usages = [], []
    for _ in range(2 if tools else 1):
        answer, pieces = await whole(fields, streamed=streamed)
        usages.append(answer.usage)
        message = answer.choices[0].message
        calls = message.tool_calls or []
        made += [json.loads(each.function.arguments) for each in calls]
        results = [
            {"role": "tool", "tool_call_id": each.id, "content": weather_of(each.function.arguments)}
            for each in calls
        ]
        fields["messages"] = [*fields["messages"], message.model_dump(exclude_none=True), *results]
    return {
        "text": message.content,
        "pieces": pieces,
        "calls": made,
        "input_tokens": sum(usage.prompt_tokens for usage in usages),
        "output_tokens": sum(usage.completion_tokens for usage in usages),
    }


async def naive(call: Call) -> dict[str, Any]:
    """Usage not asked for, and `choices[0]` of every chunk."""
    stream = await litellm.acompletion(stream=True, **fields_of(call))
    return {"text": "".join([chunk.choices[0].delta.content or "" async for chunk in stream])}


async def embedded(call: Call) -> dict[str, Any]:
    answer = await litellm.aembedding(
        model=f"openai/{call.model}", api_base=call.v1, api_key=call.secret, input=[call.prompt, "and another"]
    )
    sizes = {len(each["embedding"]) for each in answer.data}
    return {"vectors": len(answer.data), "sizes": list(sizes), "input_tokens": answer.usage.prompt_tokens}


CASES = {
    "chat": {
        "plain": lambda call: run(call, streamed=False),
        "streamed": lambda call: run(call, streamed=True),
        "tools": lambda call: run(call, streamed=False, tools=True),
        "tools_streamed": lambda call: run(call, streamed=True, tools=True),
        "naive": naive,
    },
    "embeddings": {"plain": embedded},
}
