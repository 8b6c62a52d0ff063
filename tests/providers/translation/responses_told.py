"""What the tests of Responses over chat share: requests, a way to an upstream, and what a client is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson

from proxy.demo.scripts import Script, words
from proxy.domain.policy import Model, Target
from proxy.domain.responses_requests import read_responses
from proxy.gateway.ports import Answer, Dispatch
from proxy.providers.connections import Timeouts
from proxy.providers.native_wire import Address, NativeWire
from proxy.providers.openai_wire import OPENAI_SPEECHES
from proxy.providers.translation.responses_over_chat import ResponsesOverChat

TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}
TWO_CALLS = (
    {"name": "weather", "arguments": '{"city": "Oslo"}'},
    {"name": "weather", "arguments": '{"city": "Lima", "unit": "kelvin"}'},
)
TEXT = "".join(words(8))
USAGE = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}


def asking(limit: int = 8, **fields: Any) -> Dispatch:
    body = {"model": "m", "input": "three plain words", **fields}
    model = Model("m", (Target("up", "m-upstream"),), 100, 1000, "max_completion_tokens")
    return Dispatch("req_7", 0, read_responses(body, {}, str.upper), model, "m-upstream", limit)


@asynccontextmanager
async def over(url: str) -> AsyncIterator[ResponsesOverChat]:
    wire = NativeWire("up", Address(url, "sk-test"), OPENAI_SPEECHES, Timeouts(1.0, 2.0, 1.0))
    try:
        yield ResponsesOverChat(wire.send)
    finally:
        await wire.close()


async def told_by(answer: Answer, seen: list[bytes] | None = None) -> bytes:
    """All that the client gets."""
    pieces = [] if seen is None else seen
    while (piece := await answer.next()) is not None:
        pieces.append(piece)
    return b"".join(pieces) + answer.tail


def events_of(stream: bytes) -> list[dict[str, Any]]:
    """The events, of which each must say its name twice and have the next number."""
    found = []
    for event in stream.split(b"\n\n")[:-1]:
        if event.startswith(b":"):
            continue
        name, data = event.split(b"\n")
        said = orjson.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + said["type"].encode()
        assert said.pop("sequence_number") == len(found)
        found.append(said)
    return found


def names(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def chunks(*deltas: dict[str, Any] | str, done: bool = True, usage: Any = USAGE) -> Script:
    """A script of a stream: a dict is a delta, a text the finish reason."""
    said: list[dict[str, Any]] = []
    for delta in deltas:
        finish = delta if isinstance(delta, str) else None
        choice = {"index": 0, "delta": {} if isinstance(delta, str) else delta, "finish_reason": finish}
        said.append({"id": "c", "created": 1_760_000_000, "model": "up", "choices": [choice]})
    if usage:
        said.append({"id": "c", "choices": [], "usage": usage})
    text = "".join(f"data: {orjson.dumps(each).decode()}\n\n" for each in said)
    return Script(events=text + ("data: [DONE]\n\n" if done else ""))


def piece(index: int, arguments: str, **more: Any) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": more.pop("name")} if "name" in more else {})}
    return {"tool_calls": [{"index": index, "function": function, **more}]}


def events_text(*deltas: dict[str, Any]) -> str:
    said = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    return "".join(f"data: {orjson.dumps(each).decode()}\n\n" for each in said)


def told(item: dict[str, Any]) -> str:
    texts = [part.get("text", part.get("refusal")) for part in item.get("content", [])]
    return f"{item['type']}:{''.join(texts)}{item.get('arguments', '')}"
