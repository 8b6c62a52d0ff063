"""openai-python: chat completions, Responses and embeddings, on the asynchronous client at its defaults."""

from __future__ import annotations

import json
from typing import Any

from openai import AsyncOpenAI
from program import Call
from weather import CHAT_TOOL, RESPONSES_TOOL, weather_of

USAGE = {"stream_options": {"include_usage": True}}


def client(call: Call) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=call.v1, api_key=call.secret)


def chat_fields(call: Call) -> dict[str, Any]:
    messages = [{"role": "user", "content": call.prompt}]
    return {"model": call.model, "messages": messages, **call.limited("max_tokens")}


def chat_used(usage: Any) -> dict[str, Any]:
    return {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens}


def used(*usages: Any) -> dict[str, Any]:
    return {
        "input_tokens": sum(usage.input_tokens for usage in usages),
        "output_tokens": sum(usage.output_tokens for usage in usages),
    }


async def chat_plain(call: Call) -> dict[str, Any]:
    async with client(call) as openai:
        answer = await openai.chat.completions.create(**chat_fields(call))
    choice = answer.choices[0]
    return {"text": choice.message.content, "finish": choice.finish_reason, **chat_used(answer.usage)}


async def chat_streamed(call: Call) -> dict[str, Any]:
    texts, usages, finish = [], [], None
    async with client(call) as openai:
        async for chunk in await openai.chat.completions.create(stream=True, **USAGE, **chat_fields(call)):
            usages += [chunk.usage] if chunk.usage else []
            for choice in chunk.choices:
                texts.append(choice.delta.content or "")
                finish = choice.finish_reason or finish
    return {"text": "".join(texts), "pieces": len(texts), "finish": finish, **chat_used(usages[-1])}


async def chat_naive(call: Call) -> dict[str, Any]:
    """Usage not asked for, and `choices[0]` of every chunk."""
    async with client(call) as openai:
        stream = await openai.chat.completions.create(stream=True, **chat_fields(call))
        return {"text": "".join([chunk.choices[0].delta.content or "" async for chunk in stream])}


async def chat_tools(call: Call, *, streamed: bool = False) -> dict[str, Any]:
    fields = {**chat_fields(call), "tools": [CHAT_TOOL]}
    made, usages = [], []
    async with client(call) as openai:
        for _ in range(2):
            if streamed:
                async with openai.chat.completions.stream(**USAGE, **fields) as stream:
                    answer = await stream.get_final_completion()
            else:
                answer = await openai.chat.completions.create(**fields)
            usages.append(answer.usage)
            message = answer.choices[0].message
            calls = message.tool_calls or []
            made += [json.loads(each.function.arguments) for each in calls]
            results = [
                {"role": "tool", "tool_call_id": each.id, "content": weather_of(each.function.arguments)}
                for each in calls
            ]
            said = message.model_dump(include={"role", "content", "tool_calls"}, exclude_none=True)
            fields["messages"] = [*fields["messages"], _plain(said), *results]
    return {
        "text": message.content,
        "calls": made,
        "input_tokens": sum(usage.prompt_tokens for usage in usages),
        "output_tokens": sum(usage.completion_tokens for usage in usages),
    }


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """Without what the stream helper adds to a function for its own use."""
    for each in message.get("tool_calls", ()):
        each["function"].pop("parsed_arguments", None)
        each.pop("index", None)
    return message


async def chat_tools_streamed(call: Call) -> dict[str, Any]:
    return await chat_tools(call, streamed=True)


def responses_fields(call: Call) -> dict[str, Any]:
    return {"model": call.model, "input": call.prompt, **call.limited("max_output_tokens")}


async def responses_plain(call: Call) -> dict[str, Any]:
    async with client(call) as openai:
        answer = await openai.responses.create(**responses_fields(call))
    return {"text": answer.output_text, "finish": answer.status, **used(answer.usage)}


async def responses_streamed(call: Call) -> dict[str, Any]:
    texts, last = [], None
    async with client(call) as openai:
        async for event in await openai.responses.create(stream=True, **responses_fields(call)):
            texts += [event.delta] if event.type == "response.output_text.delta" else []
            last = event
    return {
        "text": "".join(texts),
        "pieces": len(texts),
        "finish": last.type,
        "failure": last.response.error.to_dict() if last.response.error else None,
        **(used(last.response.usage) if last.response.usage else {}),
    }


async def responses_tools(call: Call, *, streamed: bool = False) -> dict[str, Any]:
    fields = {**responses_fields(call), "tools": [RESPONSES_TOOL]}
    fields["input"] = [{"role": "user", "content": call.prompt}]
    made, usages = [], []
    async with client(call) as openai:
        for _ in range(2):
            if streamed:
                async with openai.responses.stream(**fields) as stream:
                    answer = await stream.get_final_response()
            else:
                answer = await openai.responses.create(**fields)
            usages.append(answer.usage)
            calls = [item for item in answer.output if item.type == "function_call"]
            made += [json.loads(each.arguments) for each in calls]
            results = [
                {"type": "function_call_output", "call_id": each.call_id, "output": weather_of(each.arguments)}
                for each in calls
            ]
            said = [item.to_dict() for item in answer.output]
            for item in said:
                item.pop("parsed_arguments", None)
            fields["input"] = [*fields["input"], *said, *results]
    return {"text": answer.output_text, "calls": made, **used(*usages)}


async def responses_tools_streamed(call: Call) -> dict[str, Any]:
    return await responses_tools(call, streamed=True)


async def embeddings_plain(call: Call) -> dict[str, Any]:
    async with client(call) as openai:
        answer = await openai.embeddings.create(model=call.model, input=[call.prompt, "and another"])
    sizes = {len(each.embedding) for each in answer.data}
    return {"vectors": len(answer.data), "sizes": list(sizes), "input_tokens": answer.usage.prompt_tokens}


CASES = {
    "chat": {
        "plain": chat_plain,
        "streamed": chat_streamed,
        "tools": chat_tools,
        "tools_streamed": chat_tools_streamed,
        "naive": chat_naive,
    },
    "responses": {
        "plain": responses_plain,
        "streamed": responses_streamed,
        "tools": responses_tools,
        "tools_streamed": responses_tools_streamed,
    },
    "embeddings": {"plain": embeddings_plain},
}
