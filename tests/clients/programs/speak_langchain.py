"""langchain-openai: ChatOpenAI on chat completions and on Responses, and OpenAIEmbeddings."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from program import Call
from weather import weather as tell

weather = tool(tell)


def model(call: Call, *, responses: bool) -> ChatOpenAI:
    return ChatOpenAI(
        model=call.model,
        base_url=call.v1,
        api_key=call.secret,
        use_responses_api=responses,
        stream_usage=True,
        **call.limited("max_tokens"),
    )


def used(*messages: AIMessage) -> dict[str, Any]:
    usages = [message.usage_metadata for message in messages if message.usage_metadata]
    return {
        "input_tokens": sum(usage["input_tokens"] for usage in usages),
        "output_tokens": sum(usage["output_tokens"] for usage in usages),
    }


async def whole(llm: Any, messages: list[Any], *, streamed: bool) -> tuple[AIMessage, int]:
    """The answer, and in how many pieces it came."""
    if not streamed:
        return await llm.ainvoke(messages), 1
    message, pieces = None, 0
    async for chunk in llm.astream(messages):
        message = chunk if message is None else message + chunk
        pieces += 1
    assert message is not None
    return message, pieces


async def once(call: Call, *, responses: bool, streamed: bool) -> dict[str, Any]:
    llm = model(call, responses=responses)
    message, pieces = await whole(llm, [HumanMessage(call.prompt)], streamed=streamed)
    return {"text": str(message.text), "pieces": pieces, **used(message)}


async def naive(call: Call) -> dict[str, Any]:
    """Usage not asked for."""
    llm = ChatOpenAI(model=call.model, base_url=call.v1, api_key=call.secret)
    message, pieces = await whole(llm, [HumanMessage(call.prompt)], streamed=True)
    return {"text": str(message.text), "pieces": pieces}


async def with_tools(call: Call, *, responses: bool, streamed: bool) -> dict[str, Any]:
    llm = model(call, responses=responses).bind_tools([weather])
    messages: list[Any] = [HumanMessage(call.prompt)]
    said, made = [], []
    for _ in range(2):
        message, _pieces = await whole(llm, messages, streamed=streamed)
        said.append(message)
        made += [each["args"] for each in message.tool_calls]
        results = [ToolMessage(tell(**each["args"]), tool_call_id=each["id"]) for each in message.tool_calls]
        messages = [*messages, message, *results]
    return {"text": str(message.text), "calls": made, **used(*said)}


async def embedded(call: Call) -> dict[str, Any]:
    embeddings = OpenAIEmbeddings(
        model=call.model, base_url=call.v1, api_key=call.secret, check_embedding_ctx_length=False
    )
    vectors = await embeddings.aembed_documents([call.prompt, "and another"])
    return {"vectors": len(vectors), "sizes": list({len(vector) for vector in vectors}), "input_tokens": None}


def cases(*, responses: bool) -> dict[str, Any]:
    return {
        "plain": lambda call: once(call, responses=responses, streamed=False),
        "streamed": lambda call: once(call, responses=responses, streamed=True),
        "tools": lambda call: with_tools(call, responses=responses, streamed=False),
        "tools_streamed": lambda call: with_tools(call, responses=responses, streamed=True),
    }


CASES = {
    "chat": {**cases(responses=False), "naive": naive},
    "responses": cases(responses=True),
    "embeddings": {"plain": embedded},
}
