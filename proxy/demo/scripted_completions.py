"""The completions wire of the scripted upstream: prompts in, harmless words out, for each prompt `n` choices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from proxy.demo.scripted_wires import CREATED, Chat, Chunk, as_event, length_of
from proxy.demo.scripts import Script, chat_usage, prompt_tokens, words


def texts_of(value: Any) -> list[Any]:
    """The single inputs (a text or its tokens) of a prompt or of what is to be embedded."""
    one = isinstance(value, str) or (isinstance(value, list) and bool(value) and isinstance(value[0], int))
    return [value] if one else list(value)


class Completions:
    """OpenAI's completions: `best_of` are made and billed, `n` of them shown, after the prompt with `echo`."""

    def made(self, script: Script, body: Mapping[str, Any]) -> int:
        each = max(body.get("best_of") or 1, body.get("n") or 1)
        return self._length(script, body)[0] * each * len(texts_of(body["prompt"]))

    def plain(self, script: Script, body: Mapping[str, Any], order: int) -> bytes:
        count, cut = self._length(script, body)
        text, finish = "".join(words(count, script.text)), "length" if cut else "stop"
        choices = [
            {"text": echoed + text, "index": index, "logprobs": None, "finish_reason": finish}
            for index, echoed in enumerate(self._echoed(body))
        ]
        answer = {**self._common(script, body, order), "choices": choices}
        usage = self._usage(script, body)
        if script.usage == "null":
            answer["usage"] = None
        elif usage is not None:
            answer["usage"] = usage
        return orjson.dumps(answer)

    def stream(self, script: Script, body: Mapping[str, Any], order: int) -> Iterator[Chunk]:
        count, cut = self._length(script, body)
        asked = bool((body.get("stream_options") or {}).get("include_usage"))
        common, usage = self._common(script, body, order), self._usage(script, body)
        spare: dict[str, Any] = {"usage": None} if asked and script.usage != "absent" else {}

        def chunk(index: int, text: str, finish: str | None, tokens: int = 0) -> Chunk:
            choice = {"text": text, "index": index, "logprobs": None, "finish_reason": finish}
            return as_event({**common, "choices": [choice], **spare}, tokens)

        echoes = self._echoed(body)
        for index, echoed in enumerate(echoes):
            if echoed:
                yield chunk(index, echoed, None)
        for at, word in enumerate(words(count, script.text)):
            if script.error_after == at:
                yield as_event({"error": {"message": "As the script says.", "type": "server_error", "code": None}})
                return
            for index in range(len(echoes)):
                yield chunk(index, word, None, 1)
        if asked and usage is not None and script.usage == "on_choices":
            spare = {"usage": usage}
        for index in range(len(echoes)):
            yield chunk(index, "", "length" if cut else "stop")
        if asked and usage is not None and script.usage != "on_choices":
            yield as_event({**common, "choices": [], "usage": usage})
        if script.done:
            yield Chunk(b"data: [DONE]\n\n")

    def error(self, status: int, message: str) -> bytes:
        return Chat().error(status, message)

    def _length(self, script: Script, body: Mapping[str, Any]) -> tuple[int, bool]:
        return (0, True) if body.get("max_tokens") == 0 else length_of(script, body)

    def _echoed(self, body: Mapping[str, Any]) -> list[str]:
        """What each choice begins with."""
        prompts = [text if body.get("echo") and isinstance(text, str) else "" for text in texts_of(body["prompt"])]
        return [prompt for prompt in prompts for _ in range(body.get("n") or 1)]

    def _common(self, script: Script, body: Mapping[str, Any], order: int) -> dict[str, Any]:
        return {
            "id": f"cmpl-scripted{order}",
            "object": "text_completion",
            "created": CREATED,
            "model": script.model_served or body["model"],
        }

    def _usage(self, script: Script, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if not isinstance(script.usage, str):
            return script.usage
        if script.usage in ("absent", "null"):
            return None
        return chat_usage(prompt_tokens(body), self.made(script, body))
