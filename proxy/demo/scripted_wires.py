"""What the wires of the scripted upstream are to it, and OpenAI's chat completions as bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import orjson

from proxy.demo.scripts import Script, chat_usage, prompt_tokens, words

CREATED = 1_760_000_000


class Chunk(bytes):
    """Bytes of a stream, and how many output tokens they brought."""

    tokens: int = 0


class Wire(Protocol):
    def made(self, script: Script, body: Mapping[str, Any]) -> int:
        """Output tokens of a whole answer, all choices together."""
        ...

    def plain(self, script: Script, body: Mapping[str, Any], order: int) -> bytes: ...

    def stream(self, script: Script, body: Mapping[str, Any], order: int) -> Iterator[Chunk]: ...

    def error(self, status: int, message: str) -> bytes: ...


def length_of(script: Script, body: Mapping[str, Any]) -> tuple[int, bool]:
    """Words of one choice, and whether the client's limit cut them off."""
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or script.output_tokens
    return min(limit, script.output_tokens), limit < script.output_tokens


PIECE_CHARACTERS = 8
"""Of a tool call's arguments, in one chunk of a stream."""


class Chat:
    """OpenAI's chat completions."""

    def made(self, script: Script, body: Mapping[str, Any]) -> int:
        return len(_deltas(script, body, 0)[0]) * (body.get("n") or 1)

    def plain(self, script: Script, body: Mapping[str, Any], order: int) -> bytes:
        deltas, finish = _deltas(script, body, order)
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        if script.tool_calls:
            message["tool_calls"] = [_tool_call(call, order, at) for at, call in enumerate(script.tool_calls)]
        else:
            message["content"] = "".join(delta["content"] for delta in deltas)
        answer = {
            **_common(script, body, order, "chat.completion"),
            "choices": [
                {"index": index, "message": message, "logprobs": None, "finish_reason": finish}
                for index in range(body.get("n") or 1)
            ],
        }
        usage = self._usage(script, body)
        if script.usage == "null":
            answer["usage"] = None
        elif usage is not None:
            answer["usage"] = usage
        return orjson.dumps(answer)

    def stream(self, script: Script, body: Mapping[str, Any], order: int) -> Iterator[Chunk]:
        deltas, ending = _deltas(script, body, order)
        choices = body.get("n") or 1
        asked = bool((body.get("stream_options") or {}).get("include_usage"))
        common = _common(script, body, order, "chat.completion.chunk")
        spare: dict[str, Any] = {"usage": None} if asked and script.usage != "absent" else {}

        def chunk(index: int, delta: Mapping[str, Any], finish: str | None, tokens: int = 0) -> Chunk:
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
            return as_event({**common, "choices": [choice], **spare}, tokens)

        content = None if script.tool_calls else ""
        for index in range(choices):
            yield chunk(index, {"role": "assistant", "content": content, "refusal": None}, None)
        for at, delta in enumerate(deltas):
            if script.error_after == at:
                yield as_event({"error": {"message": "As the script says.", "type": "server_error", "code": None}})
                return
            if asked and script.usage == "cumulative":
                spare = {"usage": chat_usage(prompt_tokens(body), (at + 1) * choices)}
            for index in range(choices):
                yield chunk(index, delta, None, 1)
        usage = self._usage(script, body)
        if asked and usage is not None and script.usage == "on_choices":
            spare = {"usage": usage}
        for index in range(choices):
            yield chunk(index, {}, ending)
        if asked and usage is not None and script.usage not in ("on_choices", "cumulative"):
            for _ in range(2 if script.usage == "twice" else 1):
                yield as_event({**common, "choices": [], "usage": usage})
        if script.done:
            yield Chunk(b"data: [DONE]\n\n")

    def error(self, status: int, message: str) -> bytes:
        code = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}.get(status)
        kind = "server_error" if status >= 500 else "invalid_request_error"
        return orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})

    def _usage(self, script: Script, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if not isinstance(script.usage, str):
            return script.usage
        if script.usage in ("absent", "null"):
            return None
        return chat_usage(prompt_tokens(body), self.made(script, body))


def _deltas(script: Script, body: Mapping[str, Any], order: int) -> tuple[list[dict[str, Any]], str]:
    """What one choice says, one delta for each output token, and its finish reason."""
    if not script.tool_calls:
        count, cut = length_of(script, body)
        return [{"content": word} for word in words(count, script.text)], "length" if cut else "stop"
    deltas = []
    for at, call in enumerate(script.tool_calls):
        whole = _tool_call(call, order, at)
        deltas.append({"index": at, **whole, "function": {**whole["function"], "arguments": ""}})
        for start in range(0, len(call["arguments"]), PIECE_CHARACTERS):
            piece = call["arguments"][start : start + PIECE_CHARACTERS]
            deltas.append({"index": at, "function": {"arguments": piece}})
    return [{"tool_calls": [delta]} for delta in deltas], "tool_calls"


def _tool_call(call: Mapping[str, str], order: int, at: int) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": call["arguments"]}
    return {"id": f"call_scripted{order}_{at}", "type": "function", "function": function}


def _common(script: Script, body: Mapping[str, Any], order: int, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-scripted{order}",
        "object": kind,
        "created": CREATED,
        "model": script.model_served or body["model"],
        "service_tier": "default",
    }


def as_event(value: Mapping[str, Any], tokens: int = 0) -> Chunk:
    chunk = Chunk(b"data: " + orjson.dumps(value) + b"\n\n")
    chunk.tokens = tokens
    return chunk
