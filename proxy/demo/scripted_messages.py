"""Anthropic's wire as the scripted upstream speaks it: messages, plain and streamed, and their counting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from proxy.demo.scripted_wires import PIECE_CHARACTERS, Chunk
from proxy.demo.scripts import Script, messages_usage, prompt_tokens, words

ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


@dataclass(frozen=True, slots=True)
class _Block:
    """One block of an answer: whole, as it begins in a stream, and what is added to it, an output token each."""

    whole: Mapping[str, Any]
    start: Mapping[str, Any]
    deltas: list[dict[str, Any]]
    ending: tuple[dict[str, Any], ...] = ()


class Messages:
    """Messages: thinking if the script has it, then tool calls or words."""

    def made(self, script: Script, body: Mapping[str, Any]) -> int:
        return sum(len(block.deltas) for block in _blocks(script, body, 0)[0])

    def plain(self, script: Script, body: Mapping[str, Any], order: int) -> bytes:
        blocks, stop = _blocks(script, body, order)
        answer = {
            **_message(script, body, order),
            "content": [block.whole for block in blocks],
            "stop_reason": stop,
        }
        usage = self._usage(script, body)
        return orjson.dumps(answer if usage is None else {**answer, "usage": usage})

    def stream(self, script: Script, body: Mapping[str, Any], order: int) -> Iterator[Chunk]:
        blocks, stop = _blocks(script, body, order)
        usage = self._usage(script, body)
        begun = {name: value for name, value in (usage or {}).items() if name != "server_tool_use"}
        start = {} if usage is None else {"usage": {**begun, "output_tokens": 1}}
        message = {**_message(script, body, order), "content": [], **start}
        yield _event({"type": "message_start", "message": message})
        said = 0
        for index, block in enumerate(blocks):
            yield _event({"type": "content_block_start", "index": index, "content_block": block.start})
            if index == 0:
                yield _event({"type": "ping"})
            for delta in block.deltas:
                if script.error_after == said:
                    error = {"type": "overloaded_error", "message": "As the script says."}
                    yield _event({"type": "error", "error": error})
                    return
                yield _event({"type": "content_block_delta", "index": index, "delta": delta}, 1)
                said += 1
                if script.usage == "cumulative":
                    yield _ending(None, messages_usage(prompt_tokens(body), said))
            for delta in block.ending:
                yield _event({"type": "content_block_delta", "index": index, "delta": delta})
            yield _event({"type": "content_block_stop", "index": index})
        yield _ending(stop, usage)
        if script.done:
            yield _event({"type": "message_stop"})

    def error(self, status: int, message: str) -> bytes:
        error = {"type": ERRORS.get(status, "api_error"), "message": message}
        return orjson.dumps({"type": "error", "error": error, "request_id": "req_scripted"})

    def _usage(self, script: Script, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if not isinstance(script.usage, str):
            return script.usage
        if script.usage in ("absent", "null"):
            return None
        usage = messages_usage(prompt_tokens(body), self.made(script, body))
        calls = {f"{tool}_requests": script.hosted_calls.count(tool) for tool in script.hosted_calls}
        return {**usage, "server_tool_use": calls} if calls else usage


class CountTokens(Messages):
    """How many tokens a request has."""

    def made(self, script: Script, body: Mapping[str, Any]) -> int:
        return 0

    def plain(self, script: Script, body: Mapping[str, Any], order: int) -> bytes:
        return orjson.dumps({"input_tokens": prompt_tokens(body)})


def _blocks(script: Script, body: Mapping[str, Any], order: int) -> tuple[list[_Block], str]:
    """What a message says, and why it ends there."""
    limit = body.get("max_tokens", script.output_tokens)
    thoughts = (script.reasoning or "").split()[:limit]
    blocks = [_thinking(thoughts)] if thoughts else []
    blocks += [_hosted_call(tool, order, at) for at, tool in enumerate(script.hosted_calls)]
    if script.tool_calls:
        return blocks + [_tool_use(call, order, at) for at, call in enumerate(script.tool_calls)], "tool_use"
    count = min(limit - len(thoughts), script.output_tokens)
    if count or not blocks:
        blocks.append(_text(words(count, script.text)))
    return blocks, "end_turn" if count == script.output_tokens else "max_tokens"


def _thinking(thoughts: list[str]) -> _Block:
    pieces = [thought if at == 0 else f" {thought}" for at, thought in enumerate(thoughts)]
    return _Block(
        {"type": "thinking", "thinking": "".join(pieces), "signature": "c2lnbmVk"},
        {"type": "thinking", "thinking": "", "signature": ""},
        [{"type": "thinking_delta", "thinking": piece} for piece in pieces],
        ({"type": "signature_delta", "signature": "c2lnbmVk"},),
    )


def _text(pieces: list[str]) -> _Block:
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    return _Block({"type": "text", "text": "".join(pieces)}, {"type": "text", "text": ""}, deltas)


def _tool_use(call: Mapping[str, str], order: int, at: int) -> _Block:
    arguments = call["arguments"]
    block = {"type": "tool_use", "id": f"toolu_scripted{order}_{at}", "name": call["name"]}
    pieces = [arguments[at : at + PIECE_CHARACTERS] for at in range(0, len(arguments), PIECE_CHARACTERS)]
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces)]
    return _Block({**block, "input": orjson.loads(arguments)}, {**block, "input": {}}, deltas)


def _hosted_call(tool: str, order: int, at: int) -> _Block:
    block = {"type": "server_tool_use", "id": f"srvtoolu_scripted{order}_{at}", "name": tool, "input": {}}
    return _Block(block, block, [])


def _message(script: Script, body: Mapping[str, Any], order: int) -> dict[str, Any]:
    return {
        "id": f"msg_scripted{order}",
        "type": "message",
        "role": "assistant",
        "model": script.model_served or body["model"],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _ending(stop: str | None, usage: Mapping[str, Any] | None) -> Chunk:
    """Usage runs on in a stream, but for the split of what was written to the cache, which only the start has."""
    delta = {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}}
    if usage is None:
        return _event(delta)
    running = {name: value for name, value in usage.items() if name != "cache_creation"}
    return _event({**delta, "usage": running})


def _event(value: Mapping[str, Any], tokens: int = 0) -> Chunk:
    name = str(value["type"]).encode()
    chunk = Chunk(b"event: " + name + b"\ndata: " + orjson.dumps(value) + b"\n\n")
    chunk.tokens = tokens
    return chunk
