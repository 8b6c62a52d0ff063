"""OpenAI's Responses as the scripted upstream speaks them: objects, streams of events, and what it keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from proxy.demo.scripted_wires import CREATED, PIECE_CHARACTERS, Chunk
from proxy.demo.scripts import Script, prompt_tokens, words

EMPTY: Mapping[str, dict[str, Any]] = {
    "message": {"content": []},
    "reasoning": {"summary": []},
    "function_call": {"arguments": ""},
}
"""What an item begins as, before it is told."""


class Responses:
    """Keeps every response unless it was asked not to, and whatever it says by its id."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, Any]] = {}

    def made(self, script: Script, body: Mapping[str, Any]) -> int:
        return len(_pieces(script, body)[0]) + _thought(script)

    def plain(self, script: Script, body: Mapping[str, Any], order: int) -> bytes:
        if script.error_after is not None:
            response = self._failed(script, body, order, script.error_after)
        else:
            response = self._whole(script, body, order)
        self._keep(response)
        return orjson.dumps(response)

    def stream(self, script: Script, body: Mapping[str, Any], order: int) -> Iterator[Chunk]:
        numbers = iter(range(1 << 30))
        for event, tokens in self._events(script, body, order):
            chunk = Chunk(
                b"event: %b\ndata: %b\n\n"
                % (event["type"].encode(), orjson.dumps({**event, "sequence_number": next(numbers)}))
            )
            chunk.tokens = tokens
            yield chunk

    def error(self, status: int, message: str) -> bytes:
        kind = "server_error" if status >= 500 else "invalid_request_error"
        return orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": None}})

    def kept(self, method: str, id: str) -> tuple[int, bytes]:
        """What a GET or DELETE of a kept response says: status and body."""
        if id not in self._kept:
            return 404, self.error(404, f"Response with id '{id}' not found.")
        if method == "DELETE":
            del self._kept[id]
            return 200, orjson.dumps({"id": id, "object": "response", "deleted": True})
        return 200, orjson.dumps(self._kept[id])

    def _events(self, script: Script, body: Mapping[str, Any], order: int) -> Iterator[tuple[dict[str, Any], int]]:
        """Each event with the output tokens that it brings."""
        start = {**self._common(script, body, order), "status": "in_progress", "output": [], "usage": None}
        yield {"type": "response.created", "response": start}, 0
        yield {"type": "response.in_progress", "response": start}, 0
        whole = self._whole(script, body, order)
        told = 0
        for index, item in enumerate(whole["output"]):
            for event, tokens in _told(index, item):
                if tokens and script.error_after == told:
                    failed = self._failed(script, body, order, told)
                    self._keep(failed)
                    yield {"type": "response.failed", "response": failed}, 0
                    return
                told += tokens
                yield event, tokens
        self._keep(whole)
        if script.done:
            yield {"type": f"response.{whole['status']}", "response": whole}, 0

    def _whole(self, script: Script, body: Mapping[str, Any], order: int) -> dict[str, Any]:
        pieces, cut = _pieces(script, body)
        output: list[dict[str, Any]] = []
        if script.reasoning:
            summary = [{"type": "summary_text", "text": script.reasoning}]
            output.append({"id": f"rs_scripted{order}", "type": "reasoning", "summary": summary})
        for at, tool in enumerate(script.hosted_calls):
            output.append({"id": f"ws_scripted{order}_{at}", "type": f"{tool}_call", "status": "completed"})
        for at, call in enumerate(script.tool_calls):
            output.append(_tool_call(call, order, at))
        if not script.tool_calls:
            text = {"type": "output_text", "text": "".join(pieces), "annotations": [], "logprobs": []}
            output.append(
                {
                    "id": f"msg_scripted{order}",
                    "type": "message",
                    "role": "assistant",
                    "status": "incomplete" if cut else "completed",
                    "content": [text],
                }
            )
        return {
            **self._common(script, body, order),
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": output,
            "usage": self._usage(script, body, self.made(script, body)),
        }

    def _failed(self, script: Script, body: Mapping[str, Any], order: int, made: int) -> dict[str, Any]:
        return {
            **self._common(script, body, order),
            "status": "failed",
            "error": {"code": "server_error", "message": "As the script says."},
            "output": [],
            "usage": self._usage(script, body, made),
        }

    def _common(self, script: Script, body: Mapping[str, Any], order: int) -> dict[str, Any]:
        return {
            "id": f"resp_scripted{order}",
            "object": "response",
            "created_at": CREATED,
            "error": None,
            "incomplete_details": None,
            "instructions": body.get("instructions"),
            "max_output_tokens": body.get("max_output_tokens"),
            "metadata": body.get("metadata") or {},
            "model": script.model_served or body["model"],
            "parallel_tool_calls": True,
            "previous_response_id": body.get("previous_response_id"),
            "store": body.get("store") is not False,
            "temperature": 1.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": body.get("tool_choice") or "auto",
            "tools": body.get("tools") or [],
            "top_p": 1.0,
            "truncation": "disabled",
        }

    def _usage(self, script: Script, body: Mapping[str, Any], made: int) -> Mapping[str, Any] | None:
        if not isinstance(script.usage, str):
            return script.usage
        if script.usage in ("absent", "null"):
            return None
        before = self._kept.get(body.get("previous_response_id") or "", {}).get("usage") or {}
        given = prompt_tokens(body) + before.get("total_tokens", 0)
        return {
            "input_tokens": given,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": made,
            "output_tokens_details": {"reasoning_tokens": min(made, _thought(script))},
            "total_tokens": given + made,
        }

    def _keep(self, response: dict[str, Any]) -> None:
        if response["store"]:
            self._kept[response["id"]] = response


def _thought(script: Script) -> int:
    return len((script.reasoning or "").split())


def _pieces(script: Script, body: Mapping[str, Any]) -> tuple[list[str], bool]:
    """What is said after thinking, a piece for each output token, and whether the client's limit cut it off."""
    if script.tool_calls:
        return [piece for call in script.tool_calls for piece in _pieces_of(call["arguments"])], False
    room = max(0, (body.get("max_output_tokens") or 1 << 30) - _thought(script))
    count = min(room, script.output_tokens)
    return words(count, script.text), count < script.output_tokens


def _pieces_of(arguments: str) -> list[str]:
    return [arguments[at : at + PIECE_CHARACTERS] for at in range(0, len(arguments), PIECE_CHARACTERS)]


def _tool_call(call: Mapping[str, str], order: int, at: int) -> dict[str, Any]:
    return {
        "id": f"fc_scripted{order}_{at}",
        "type": "function_call",
        "status": "completed",
        "call_id": f"call_scripted{order}_{at}",
        "name": call["name"],
        "arguments": call["arguments"],
    }


def _told(index: int, item: dict[str, Any]) -> Iterator[tuple[dict[str, Any], int]]:
    """The events that tell one item of the output."""
    kind, where = item["type"], {"item_id": item["id"], "output_index": index}
    added = {**item, **EMPTY.get(kind, {})} | ({"status": "in_progress"} if "status" in item else {})
    yield {"type": "response.output_item.added", "output_index": index, "item": added}, 0
    if kind == "function_call":
        name = "response.function_call_arguments"
        for piece in _pieces_of(item["arguments"]):
            yield {"type": f"{name}.delta", **where, "delta": piece}, 1
        yield {"type": f"{name}.done", **where, "arguments": item["arguments"], "name": item["name"]}, 0
    elif kind == "reasoning":
        part, at = item["summary"][0], {**where, "summary_index": 0}
        name = "response.reasoning_summary_text"
        yield {"type": "response.reasoning_summary_part.added", **at, "part": {**part, "text": ""}}, 0
        for piece in _words_of(part["text"]):
            yield {"type": f"{name}.delta", **at, "delta": piece, "obfuscation": "x"}, 1
        yield {"type": f"{name}.done", **at, "text": part["text"]}, 0
        yield {"type": "response.reasoning_summary_part.done", **at, "part": part}, 0
    elif kind == "message":
        part, at = item["content"][0], {**where, "content_index": 0}
        yield {"type": "response.content_part.added", **at, "part": {**part, "text": ""}}, 0
        for piece in _words_of(part["text"]):
            yield {"type": "response.output_text.delta", **at, "delta": piece, "logprobs": []}, 1
        yield {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []}, 0
        yield {"type": "response.content_part.done", **at, "part": part}, 0
    yield {"type": "response.output_item.done", "output_index": index, "item": item}, 0


def _words_of(text: str) -> list[str]:
    """Each with the space before it."""
    return [word if at == 0 else f" {word}" for at, word in enumerate(text.split(" "))] if text else []
