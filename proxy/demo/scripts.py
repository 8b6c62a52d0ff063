"""What a scripted answer shall be like, and the harmless words that it is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

OUTPUT_TOKENS = 12
STALL_S = 5.0

_TEXT = (
    "A gate stands where the road meets the river and everyone who passes is counted once by a keeper who "
    "writes each crossing down in a book that nobody has ever had to correct"
)
_WORDS = _TEXT.split()

Reports = Literal["honest", "absent", "null", "on_choices", "twice", "cumulative"]


@dataclass(frozen=True, slots=True)
class Script:
    """One kind of answer, for `times` requests (0: for good) to `model` (None: to any).

    `text` is what it says over and over, word by word, instead of the harmless words; `tool_calls` (each `name`
    and `arguments`, a string) come instead of a text; `reasoning` is thought before it, where the wire has words
    for that. `hosted_calls` are tools ("web_search") that the provider itself calls before it answers. `usage` is
    a way of reporting it, or the very object to report. `body` replaces the answer's body, and `events` those of
    a stream, byte for byte. `error_after` puts an error event after that many words.
    `breaks_after_bytes` ends the connection in the middle of the body (0: before the head), by a close or a
    reset. `stalls_after` says nothing more after that many chunks of a stream, for `STALL_S`. `done` False leaves
    `[DONE]` out. Delays are in seconds.
    """

    model: str | None = None
    times: int = 1
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None
    body: str | None = None
    events: str | None = None
    output_tokens: int = OUTPUT_TOKENS
    text: str | None = None
    tool_calls: Sequence[Mapping[str, str]] = ()
    reasoning: str | None = None
    hosted_calls: Sequence[str] = ()
    model_served: str | None = None
    usage: Reports | Mapping[str, Any] = "honest"
    head_delay_s: float = 0.0
    chunk_delay_s: float = 0.0
    error_after: int | None = None
    breaks_after_bytes: int | None = None
    breaks: Literal["close", "reset"] = "close"
    stalls_after: int | None = None
    done: bool = True

    @classmethod
    def from_json(cls, fields: Any) -> Script:
        """Raises ValueError for anything but an object of these fields."""
        names = {each.name for each in dataclasses.fields(cls)}
        if not isinstance(fields, dict) or not fields.keys() <= names:
            raise ValueError(f"a script is an object of these fields: {', '.join(sorted(names))}")
        return cls(**fields)


def words(count: int, text: str | None = None) -> list[str]:
    """The first `count` words of a text without end, with the space before them that a token has."""
    source = text.split() if text else _WORDS
    return [("" if at == 0 else " ") + source[at % len(source)] for at in range(count)]


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """About one token a word, over all texts that a body gives to read; a token sent as such is one."""
    return max(1, _count([body.get(name) for name in ("messages", "system", "prompt", "input", "instructions")]))


def _count(value: Any) -> int:
    if isinstance(value, str):
        return len(value.split())
    if isinstance(value, list):
        return sum(_count(each) for each in value)
    if isinstance(value, dict):
        return _count(value.get("content")) + _count(value.get("text"))
    return 1 if isinstance(value, int) else 0


def chat_usage(given: int, made: int) -> dict[str, Any]:
    return {
        "prompt_tokens": given,
        "completion_tokens": made,
        "total_tokens": given + made,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def messages_usage(given: int, made: int) -> dict[str, Any]:
    return {
        "input_tokens": given,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": made,
    }
