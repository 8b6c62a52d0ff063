"""Gemini's own wire for the scripted upstream: `generateContent`, plain and as server-sent events."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from proxy.demo.scripted_wires import Chunk
from proxy.demo.scripts import Script, words

PATH = re.compile(r"(?:/v1beta|/v1)?/models/([^/:]+):(generateContent|streamGenerateContent)")

_STATES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}


def asked(path: str) -> dict[str, Any] | None:
    """What Gemini's path says and others' bodies say: the model, and whether to stream. None: another path."""
    found = PATH.fullmatch(path)
    return found and {"model": found[1], "stream": found[2] == "streamGenerateContent"}


class Gemini:
    """One candidate for each that is asked for."""

    def made(self, script: Script, body: Mapping[str, Any]) -> int:
        return self._length(script, body)[0] * self._candidates(body)

    def plain(self, script: Script, body: Mapping[str, Any], order: int) -> bytes:
        count, reason = self._length(script, body)
        parts = self._calls(script) or [{"text": "".join(words(count, script.text))}]
        said = [self._candidate(parts, index, reason) for index in range(self._candidates(body))]
        return orjson.dumps(self._answer(script, body, order, said, self._usage(script, body)))

    def stream(self, script: Script, body: Mapping[str, Any], order: int) -> Iterator[Chunk]:
        count, reason = self._length(script, body)
        pieces = self._calls(script) or [{"text": word} for word in words(count, script.text)]
        for at, part in enumerate(pieces):
            if script.error_after == at:
                yield _event(orjson.loads(self.error(503, "As the script says.")))
                return
            for index in range(self._candidates(body)):
                said = self._candidate([part], index, None)
                yield _event(self._answer(script, body, order, [said], None), 1)
        if script.done:
            last = [self._candidate([{"text": ""}], index, reason) for index in range(self._candidates(body))]
            yield _event(self._answer(script, body, order, last, self._usage(script, body)))

    def error(self, status: int, message: str) -> bytes:
        error = {"code": status, "message": message, "status": _STATES.get(status, "INTERNAL")}
        return orjson.dumps({"error": error})

    def _length(self, script: Script, body: Mapping[str, Any]) -> tuple[int, str]:
        config = body.get("generationConfig") or {}
        limit = config.get("max_output_tokens") or config.get("maxOutputTokens") or script.output_tokens
        return min(limit, script.output_tokens), "MAX_TOKENS" if limit < script.output_tokens else "STOP"

    def _candidates(self, body: Mapping[str, Any]) -> int:
        config = body.get("generationConfig") or {}
        return int(config.get("candidate_count") or config.get("candidateCount") or 1)

    def _calls(self, script: Script) -> list[dict[str, Any]]:
        return [
            {"functionCall": {"name": call["name"], "args": orjson.loads(call["arguments"])}}
            for call in script.tool_calls
        ]

    def _candidate(self, parts: list[dict[str, Any]], index: int, reason: str | None) -> dict[str, Any]:
        made: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": index}
        return {**made, "finishReason": reason} if reason else made

    def _answer(
        self,
        script: Script,
        body: Mapping[str, Any],
        order: int,
        candidates: list[dict[str, Any]],
        usage: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        model = script.model_served or body.get("model") or "gemini-scripted"
        answer = {"candidates": candidates, "modelVersion": model, "responseId": f"gemini-scripted{order}"}
        return answer if usage is None else {**answer, "usageMetadata": usage}

    def _usage(self, script: Script, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if not isinstance(script.usage, str):
            return script.usage
        if script.usage in ("absent", "null"):
            return None
        given, made = _words_in(body.get("contents")) or 1, self.made(script, body)
        return {"promptTokenCount": given, "candidatesTokenCount": made, "totalTokenCount": given + made}


def _words_in(value: Any) -> int:
    if isinstance(value, list):
        return sum(_words_in(each) for each in value)
    if isinstance(value, dict):
        return _words_in(value.get("parts")) + len(str(value.get("text") or "").split())
    return 0


def _event(value: Mapping[str, Any], tokens: int = 0) -> Chunk:
    chunk = Chunk(b"data: " + orjson.dumps(value) + b"\r\n\r\n")
    chunk.tokens = tokens
    return chunk
