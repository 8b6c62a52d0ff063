"""The embeddings wire of the scripted upstream: short vectors that tell which input they are of."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from proxy.demo.scripted_completions import texts_of
from proxy.demo.scripted_wires import Chat, Chunk
from proxy.demo.scripts import Script, prompt_tokens

DIMENSIONS = 4


class Embeddings:
    """OpenAI's embeddings, as numbers or as base64 of little-endian floats of four bytes."""

    def made(self, script: Script, body: Mapping[str, Any]) -> int:
        return 0

    def plain(self, script: Script, body: Mapping[str, Any], order: int) -> bytes:
        data = [
            {"object": "embedding", "index": at, "embedding": _vector(at, text, body)}
            for at, text in enumerate(texts_of(body["input"]))
        ]
        answer: dict[str, Any] = {"object": "list", "data": data, "model": script.model_served or body["model"]}
        if not isinstance(script.usage, str):
            answer["usage"] = script.usage
        elif script.usage == "null":
            answer["usage"] = None
        elif script.usage != "absent":
            tokens = prompt_tokens(body)
            answer["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
        return orjson.dumps(answer)

    def stream(self, script: Script, body: Mapping[str, Any], order: int) -> Iterator[Chunk]:
        yield Chunk(self.plain(script, body, order))

    def error(self, status: int, message: str) -> bytes:
        return Chat().error(status, message)


def _vector(at: int, text: Any, body: Mapping[str, Any]) -> Any:
    numbers = [float(at), float(len(text)), *([0.5] * ((body.get("dimensions") or DIMENSIONS) - 2))]
    if body.get("encoding_format") != "base64":
        return numbers
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
