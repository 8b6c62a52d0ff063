"""Providers' usage reports, read strictly: whole numbers from 0 to `TOKENS_MAX`, and nothing else.

In: whatever a provider wrote under `usage`. Out: a `Usage`, or None if it reported nothing. A report that
contradicts itself or cannot be believed gives its sane part, marked `disputed`: never a crash, never a
silent zero.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from proxy.domain.usage import TOKENS_MAX, Usage
from proxy.providers.reported_calls import reported_calls

_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
# Spares the names that stand in nearly every report the pattern.
_USUAL_NAMES = frozenset(
    (
        "prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details",
        "cached_tokens", "audio_tokens", "reasoning_tokens", "accepted_prediction_tokens",
        "rejected_prediction_tokens", "input_tokens", "output_tokens",
    )
)  # fmt: skip
# The names that cached input goes by where there are no details: DeepSeek's, Anthropic's, Moonshot's.
_CACHED = ("prompt_cache_hit_tokens", "cache_read_input_tokens", "cached_tokens")
# Whose OpenAI endpoint counts thinking in the total and nowhere else.
_THINKS_APART = re.compile(r"(?:models/|google/)?gemini")
_RAW_NUMBERS_MAX = 64
_RAW_DEPTH_MAX = 3


class _Report:
    """One report being read; remembers whether anything in it was beyond belief."""

    __slots__ = ("disputed", "fields")

    def __init__(self, fields: dict[Any, Any]) -> None:
        self.fields = fields
        self.disputed = False

    def tokens(self, *names: str) -> int | None:
        """The first of `names` that is given, as a token count; absent or null: None."""
        for name in names:
            value = self.fields.get(name)
            if value is None:
                continue
            if type(value) is int and 0 <= value <= TOKENS_MAX:
                return value
            self.disputed = True
            return None
        return None

    def part(self, count: int | None, whole: int) -> int:
        """A part of `whole`, which cannot be more than it."""
        if count is None:
            return 0
        if count > whole:
            self.disputed = True
            return whole
        return count

    def calls(self) -> dict[str, int]:
        """How often the provider called its own tools."""
        if "server_tool_use" not in self.fields:
            return {}
        calls, beyond_belief = reported_calls(self.fields)
        self.disputed |= beyond_belief
        return calls

    def details(self, name: str) -> _Report:
        value = self.fields.get(name)
        if value is not None and type(value) is not dict:
            self.disputed = True
        return _Report(value if type(value) is dict else {})


def chat_usage_of(said: Mapping[str, Any]) -> Usage | None:
    """The usage that a chat answer or chunk reports: under `usage`, or where Groq put it before it had that."""
    model = said.get("model")
    return read_chat_usage(
        report_in(said), thinks_apart=type(model) is str and _THINKS_APART.match(model) is not None
    )


def report_in(said: Mapping[str, Any]) -> Any:
    report = said.get("usage")
    if report is None and type(groq := said.get("x_groq")) is dict:
        return groq.get("usage")
    return report


def read_chat_usage(report: Any, *, thinks_apart: bool = False) -> Usage | None:
    """OpenAI's chat shape, and what others add to it. All zeros count as no report: no prompt is empty.

    `thinks_apart` says of a provider that its total may hold reasoning that no other field has.
    """
    if report is None:
        return None
    if type(report) is not dict or not report:
        # No object is no report: what was used is estimated then, and says so.
        return None
    read = _Report(report)
    prompt, completion = read.tokens("prompt_tokens"), read.tokens("completion_tokens")
    total = read.tokens("total_tokens")
    inputs, outputs = read.details("prompt_tokens_details"), read.details("completion_tokens_details")
    reasoning = outputs.tokens("reasoning_tokens")
    if prompt is not None and completion is not None and total is not None:
        # xAI counts reasoning beside the completion; a part of the output it is everywhere.
        left_out = total - prompt - completion
        if left_out > 0 and (left_out == reasoning or thinks_apart):
            completion += left_out
    prompt, completion = _completed(read, prompt, completion, total)
    if not (prompt or completion or total or read.disputed):
        return None
    cached = inputs.tokens("cached_tokens")
    if cached is None:
        cached = read.tokens(*_CACHED)
    written = inputs.tokens("cache_write_tokens", "cache_creation_tokens")
    if written is None:
        written = read.tokens("cache_creation_input_tokens")
    cache_read = read.part(cached, prompt)
    cache_write = read.part(written, prompt - cache_read)
    # Cached audio is counted in both classes; it stays where it is cheaper to the provider's customer.
    heard = min(read.part(inputs.tokens("audio_tokens"), prompt), prompt - cache_read - cache_write)
    calls = read.calls()
    return Usage(
        input_tokens=prompt,
        output_tokens=completion,
        cache_read_tokens=cache_read,
        cache_write_tokens=cache_write,
        audio_input_tokens=heard,
        reasoning_tokens=read.part(reasoning, completion),
        audio_output_tokens=read.part(outputs.tokens("audio_tokens"), completion),
        disputed=read.disputed or inputs.disputed or outputs.disputed,
        raw=numbers_of(report),
        calls=calls,
    )


def read_embeddings_usage(report: Any) -> Usage | None:
    """OpenAI's embeddings shape: input alone, which some call only `total_tokens`. All zeros are no report."""
    if type(report) is not dict:
        return None
    read = _Report(report)
    prompt, total = read.tokens("prompt_tokens"), read.tokens("total_tokens")
    made = read.tokens("completion_tokens") or 0
    if not (prompt or total or made or read.disputed):
        return None
    given = (total or 0) - made if prompt is None else prompt
    if given < 0 or (total is not None and total != given + made):
        read.disputed = True
    given = max(given, 0)
    inputs = read.details("prompt_tokens_details")
    cache_read = inputs.part(inputs.tokens("cached_tokens"), given)
    heard = min(inputs.part(inputs.tokens("audio_tokens"), given), given - cache_read)
    return Usage(
        input_tokens=given,
        output_tokens=made,
        cache_read_tokens=cache_read,
        audio_input_tokens=heard,
        disputed=read.disputed or inputs.disputed,
        raw=numbers_of(report),
    )


def read_responses_usage(report: Any) -> Usage | None:
    """The shape of OpenAI's Responses. Some upstreams that speak the wire report in chat's words all the same."""
    if type(report) is not dict:
        return None
    if "input_tokens" not in report and "output_tokens" not in report:
        return read_chat_usage(report)
    read = _Report(report)
    given, made, total = read.tokens("input_tokens"), read.tokens("output_tokens"), read.tokens("total_tokens")
    given, made = _completed(read, given, made, total)
    if not (given or made or total or read.disputed):
        return None
    inputs, outputs = read.details("input_tokens_details"), read.details("output_tokens_details")
    cache_read = inputs.part(inputs.tokens("cached_tokens"), given)
    cache_write = inputs.part(inputs.tokens("cache_write_tokens", "cache_creation_tokens"), given - cache_read)
    heard = min(inputs.part(inputs.tokens("audio_tokens"), given), given - cache_read - cache_write)
    return Usage(
        input_tokens=given,
        output_tokens=made,
        cache_read_tokens=cache_read,
        cache_write_tokens=cache_write,
        audio_input_tokens=heard,
        reasoning_tokens=outputs.part(outputs.tokens("reasoning_tokens"), made),
        audio_output_tokens=outputs.part(outputs.tokens("audio_tokens"), made),
        disputed=read.disputed or inputs.disputed or outputs.disputed,
        raw=numbers_of(report),
    )


def _completed(read: _Report, prompt: int | None, completion: int | None, total: int | None) -> tuple[int, int]:
    """Both sides, the missing one out of the total; a total that does not add up disputes the report."""
    if prompt is not None and completion is not None:
        if total is not None and total != prompt + completion:
            read.disputed = True
        return prompt, completion
    if total is not None and prompt is not None and total >= prompt:
        return prompt, total - prompt
    if total is not None and completion is not None and total >= completion:
        return total - completion, completion
    read.disputed = True
    return prompt or 0, completion or 0


def read_messages_usage(start: Any, delta: Any = None) -> Usage | None:
    """Anthropic's shape: `message_start`'s usage, overtaken by the last (cumulative) `message_delta`'s.

    Its `input_tokens` leaves the cache classes out, ours has them in.
    """
    if start is None and delta is None:
        return None
    reports = [report for report in (start, delta) if report is not None]
    merged: dict[Any, Any] = {}
    for report in reports:
        if type(report) is dict:
            merged.update({name: value for name, value in report.items() if value is not None})
    read = _Report(merged)
    read.disputed = any(type(report) is not dict for report in reports)
    plain, completion = read.tokens("input_tokens"), read.tokens("output_tokens")
    cache_read = read.tokens("cache_read_input_tokens") or 0
    cache_write, cache_write_1h = _cache_writes(read)
    if not (plain or completion or cache_read or cache_write or read.disputed):
        return None
    outputs, calls = read.details("output_tokens_details"), read.calls()
    if plain is None or completion is None:
        read.disputed = True
    return Usage(
        input_tokens=(plain or 0) + cache_read + cache_write,
        output_tokens=completion or 0,
        cache_read_tokens=cache_read,
        cache_write_tokens=cache_write,
        cache_write_1h_tokens=cache_write_1h,
        reasoning_tokens=read.part(outputs.tokens("reasoning_tokens", "thinking_tokens"), completion or 0),
        disputed=read.disputed or outputs.disputed,
        raw=numbers_of(merged),
        calls=calls,
    )


def _cache_writes(read: _Report) -> tuple[int, int]:
    """All that Anthropic wrote to its cache, and what of it stays for an hour.

    The total runs on in a stream, but not its split. What that leaves open counts for an hour, which is dearer, if
    any of it does.
    """
    split = read.details("cache_creation")
    for_minutes = split.tokens("ephemeral_5m_input_tokens") or 0
    for_an_hour = split.tokens("ephemeral_1h_input_tokens") or 0
    total = read.tokens("cache_creation_input_tokens")
    if total is None:
        total = for_minutes + for_an_hour
    return total, max(min(for_an_hour, total), total - for_minutes) if for_an_hour else 0


def numbers_of(report: dict[Any, Any], depth: int = _RAW_DEPTH_MAX) -> dict[str, Any]:
    """The report with nothing but its numbers: no text of a provider is ever kept."""
    kept: dict[str, Any] = {}
    for name, value in report.items():
        if len(kept) >= _RAW_NUMBERS_MAX:
            break
        if name not in _USUAL_NAMES and (type(name) is not str or _NAME.fullmatch(name) is None):
            continue
        if type(value) is int:
            if -(1 << 63) <= value < 1 << 63:
                kept[name] = value
        elif type(value) is float:
            if math.isfinite(value):
                kept[name] = value
        elif type(value) is dict and depth > 1:
            inner = numbers_of(value, depth - 1)
            if inner:
                kept[name] = inner
    return kept
