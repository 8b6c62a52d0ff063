"""The last events of a chat stream that the gate ends itself, and what its usage is then."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import orjson

from proxy.domain.asks import Ask
from proxy.domain.usage import Usage
from proxy.providers.delivered import Delivered, estimated
from proxy.providers.events import data_of, split

DONE = b"data: [DONE]\n\n"

# What every chunk of a stream repeats.
COMMON = ("id", "object", "created", "model", "system_fingerprint", "service_tier")


def evidence(reported: Usage | None, ask: Ask, delivered: Delivered) -> Usage:
    """The usage of a stream that is cut off: what was reported by now, but never less than was delivered."""
    if reported is None:
        return estimated(ask, delivered)
    if reported.output_tokens >= delivered.tokens():
        return reported
    return replace(reported, output_tokens=delivered.tokens(), source="estimated")


NO_MORE: Mapping[str, Any] = {"delta": {}}
"""What a choice of a chat chunk carries when it carries nothing."""


def length_events(
    common: Mapping[str, Any],
    ask: Ask,
    finished: Collection[int],
    usage: Usage,
    no_more: Mapping[str, Any] = NO_MORE,
) -> bytes:
    """A last chunk for each choice that has not ended, and the usage if the client asked for it."""
    spare = {"usage": None} if ask.usage_asked else {}
    chunks: list[dict[str, Any]] = [
        {
            **common,
            "choices": [{"index": index, **no_more, "logprobs": None, "finish_reason": "length"}],
            **spare,
        }
        for index in range(ask.choices)
        if index not in finished
    ]
    if ask.usage_asked:
        chunks.append({**common, "choices": [], "usage": usage_object(usage)})
    return b"".join(b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks)


def common_of(events: bytes, kind: str = "chat.completion.chunk") -> dict[str, Any]:
    """What the chunks among these events repeat; of none of them, the least that makes a chunk."""
    for event in split(events):
        try:
            said = orjson.loads(data_of(event))
        except orjson.JSONDecodeError:
            continue
        if isinstance(said, dict) and "choices" in said:
            return picked(said, COMMON)
    return {"object": kind}


def usage_object(usage: Usage) -> dict[str, Any]:
    """OpenAI's usage object of a reported usage."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "audio_tokens": usage.audio_input_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": usage.audio_output_tokens,
        },
    }


def picked(holder: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: holder[name] for name in names if holder.get(name) is not None}
