"""anthropic-python: messages, on the asynchronous client at its defaults. Its base URL has no /v1."""

from __future__ import annotations

from typing import Any

from anthropic import AsyncAnthropic
from program import Call
from weather import MESSAGES_TOOL, weather_of


def client(call: Call) -> AsyncAnthropic:
    return AsyncAnthropic(base_url=call.url, api_key=call.secret)


def fields_of(call: Call) -> dict[str, Any]:
    messages = [{"role": "user", "content": call.prompt}]
    return {"model": call.model, "messages": messages, "max_tokens": call.limit or 64}


def used(*usages: Any) -> dict[str, Any]:
    return {
        "input_tokens": sum(usage.input_tokens for usage in usages),
        "output_tokens": sum(usage.output_tokens for usage in usages),
    }


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


async def plain(call: Call) -> dict[str, Any]:
    async with client(call) as anthropic:
        message = await anthropic.messages.create(**fields_of(call))
    return {"text": text_of(message), "finish": message.stop_reason, **used(message.usage)}


async def streamed(call: Call) -> dict[str, Any]:
    async with client(call) as anthropic, anthropic.messages.stream(**fields_of(call)) as stream:
        texts = [text async for text in stream.text_stream]
        message = await stream.get_final_message()
    return {"text": "".join(texts), "pieces": len(texts), "finish": message.stop_reason, **used(message.usage)}


async def tools(call: Call, *, streamed: bool = False) -> dict[str, Any]:
    fields = {**fields_of(call), "tools": [MESSAGES_TOOL]}
    made, usages = [], []
    async with client(call) as anthropic:
        for _ in range(2):
            if streamed:
                async with anthropic.messages.stream(**fields) as stream:
                    message = await stream.get_final_message()
            else:
                message = await anthropic.messages.create(**fields)
            usages.append(message.usage)
            calls = [block for block in message.content if block.type == "tool_use"]
            made += [block.input for block in calls]
            results = [
                {"type": "tool_result", "tool_use_id": block.id, "content": weather_of(block.input)}
                for block in calls
            ]
            said = {"role": "assistant", "content": [block.to_dict() for block in message.content]}
            fields["messages"] = [*fields["messages"], said, {"role": "user", "content": results}]
    return {"text": text_of(message), "calls": made, **used(*usages)}


async def tools_streamed(call: Call) -> dict[str, Any]:
    return await tools(call, streamed=True)


async def counted(call: Call) -> dict[str, Any]:
    async with client(call) as anthropic:
        fields = {key: value for key, value in fields_of(call).items() if key != "max_tokens"}
        return {"input_tokens": (await anthropic.messages.count_tokens(**fields)).input_tokens}


async def beta(call: Call) -> dict[str, Any]:
    """With the query that Claude Code sends."""
    async with client(call) as anthropic:
        message = await anthropic.beta.messages.create(**fields_of(call), extra_query={"beta": "true"})
    return {"text": text_of(message), "finish": message.stop_reason, **used(message.usage)}


CASES = {
    "messages": {
        "plain": plain,
        "streamed": streamed,
        "tools": tools,
        "tools_streamed": tools_streamed,
        "counted": counted,
        "beta": beta,
    }
}
