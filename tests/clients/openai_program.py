"""What a user of the `openai` library writes, run in that library's own environment by test_openai.py.

Each line of stdin is a case: `{"id", "case", "base_url", "secret", "client": {...}, "fields": {...}}`. Each is
answered with one line: `{"id", "result": ...}` or `{"id", "error": {...}}`, the exception as user code meets it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from openai import APIError, AsyncOpenAI, OpenAI


def plain(client: OpenAI, fields: dict[str, Any]) -> dict[str, Any]:
    raw = client.chat.completions.with_raw_response.create(**fields)
    answer = raw.parse()
    return {
        "texts": [choice.message.content for choice in answer.choices],
        "finish": [choice.finish_reason for choice in answer.choices],
        "tools": [call.to_dict() for call in answer.choices[0].message.tool_calls or ()],
        "usage": answer.usage.to_dict() if answer.usage else None,
        "request_id": answer._request_id,
        "headers": dict(raw.headers),
    }


def streamed(client: OpenAI, fields: dict[str, Any]) -> dict[str, Any]:
    seen = Seen()
    for chunk in client.chat.completions.create(stream=True, **fields):
        seen.add(chunk)
    return seen.result()


def accumulated(client: OpenAI, fields: dict[str, Any]) -> dict[str, Any]:
    """The library's own helper puts the pieces together, and is stricter than user code."""
    with client.chat.completions.stream(**fields) as stream:
        kinds = [event.type for event in stream]
        answer = stream.get_final_completion()
    calls = [call.to_dict() for call in answer.choices[0].message.tool_calls or ()]
    return {"kinds": kinds, "tools": calls, "usage": answer.usage.to_dict() if answer.usage else None}


def left_early(client: OpenAI, fields: dict[str, Any]) -> dict[str, Any]:
    """Takes two chunks and closes, as `break` in a `with` block does."""
    with client.chat.completions.create(stream=True, **fields) as stream:
        return {"chunks": [next(stream).to_dict() for _ in range(2)]}


def catalogue(client: OpenAI, fields: dict[str, Any]) -> dict[str, Any]:
    return {"ids": [model.id for model in client.models.list()], "one": client.models.retrieve("small").to_dict()}


def moderated(client: OpenAI, fields: dict[str, Any]) -> dict[str, Any]:
    """An endpoint of the library's that the gate does not serve."""
    return client.moderations.create(model=fields["model"], input="hello there").to_dict()


async def at_once(client: AsyncOpenAI, fields: dict[str, Any]) -> dict[str, Any]:
    """A plain call and a stream beside each other on the asynchronous client."""

    async def one() -> dict[str, Any] | None:
        answer = await client.chat.completions.create(**fields)
        return answer.usage.to_dict() if answer.usage else None

    async def other() -> dict[str, Any]:
        seen, asked = Seen(), {"stream_options": {"include_usage": True}}
        async for chunk in await client.chat.completions.create(stream=True, **asked, **fields):
            seen.add(chunk)
        return seen.result()

    used, whole = await asyncio.gather(one(), other())
    return {"plain": used, "streamed": whole}


async def plain_async(client: AsyncOpenAI, fields: dict[str, Any]) -> dict[str, Any]:
    return (await client.chat.completions.create(**fields)).to_dict()


async def left_early_async(client: AsyncOpenAI, fields: dict[str, Any]) -> dict[str, Any]:
    async with await client.chat.completions.create(stream=True, **fields) as stream:
        return {"chunks": [(await anext(stream)).to_dict()]}


class Seen:
    """A stream as naive user code reads it, which `choices[0]` of every chunk is."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.finish: dict[int, str] = {}
        self.tools: dict[int, dict[str, str]] = {}
        self.usages: list[dict[str, Any]] = []
        self.without_choices = 0

    def add(self, chunk: Any) -> None:
        if chunk.usage is not None:
            self.usages.append(chunk.usage.to_dict())
        self.without_choices += not chunk.choices
        for choice in chunk.choices:
            self.texts[choice.index] = self.texts.get(choice.index, "") + (choice.delta.content or "")
            if choice.finish_reason:
                self.finish[choice.index] = choice.finish_reason
            for piece in choice.delta.tool_calls or ():
                call = self.tools.setdefault(piece.index, {"id": "", "name": "", "arguments": ""})
                call["id"] += piece.id or ""
                call["name"] += piece.function.name or ""
                call["arguments"] += piece.function.arguments or ""

    def result(self) -> dict[str, Any]:
        return {
            "texts": [self.texts[index] for index in sorted(self.texts)],
            "finish": [self.finish.get(index) for index in sorted(self.texts)],
            "tools": [self.tools[index] for index in sorted(self.tools)],
            "usages": self.usages,
            "without_choices": self.without_choices,
        }


def told(error: APIError) -> dict[str, Any]:
    response = getattr(error, "response", None)
    return {
        "type": type(error).__name__,
        "status": getattr(error, "status_code", None),
        "code": error.code,
        "param": error.param,
        "kind": error.type,
        "message": error.message,
        "body": error.body,
        "request_id": getattr(error, "request_id", None),
        "headers": dict(response.headers) if response is not None else {},
    }


CASES = {case.__name__: case for case in (plain, streamed, accumulated, left_early, catalogue, moderated)}
ASYNC_CASES = {case.__name__: case for case in (at_once, plain_async, left_early_async)}


async def on_async_client(case: Any, options: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    async with AsyncOpenAI(**options) as client:
        return await case(client, fields)  # type: ignore[no-any-return]


def run(asked: dict[str, Any]) -> dict[str, Any]:
    options = {"base_url": asked["base_url"], "api_key": asked["secret"], **asked.get("client", {})}
    fields = asked.get("fields", {})
    try:
        if asked["case"] in ASYNC_CASES:
            return {"result": asyncio.run(on_async_client(ASYNC_CASES[asked["case"]], options, fields))}
        with OpenAI(**options) as client:
            return {"result": CASES[asked["case"]](client, fields)}
    except APIError as error:
        return {"error": told(error)}


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        sys.stdout.write(json.dumps({"id": asked["id"], **run(asked)}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
