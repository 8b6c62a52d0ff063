"""How much output an answer has delivered, for when its provider does not say: lazily, since it mostly does."""

from __future__ import annotations

import re

import orjson

from proxy.domain.asks import Ask
from proxy.domain.usage import Usage
from proxy.providers.events import data_of, split

KEPT_BYTES_MAX = 64 * 1024

_TEXT = re.compile(
    rb'"(?:content|reasoning_content|reasoning|thinking|refusal|arguments|partial_json|text)"\s*:\s*"((?:[^"\\]|\\.)+)"',
    re.DOTALL,
)
# Inside text the quotes are escaped.
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')


class Delivered:
    """Keeps what went by, and counts it when asked or when there is too much of it.

    `echoed_bytes` of it are the prompt, given back, which nobody made.
    """

    __slots__ = ("_bytes", "_finished", "_kept", "_pieces", "_size")

    def __init__(self, echoed_bytes: int = 0) -> None:
        self._kept: list[bytes] = []
        self._finished: frozenset[int] = frozenset()
        self._size = 0
        self._pieces = 0
        self._bytes = -echoed_bytes

    def add(self, chunk: bytes) -> None:
        self._kept.append(chunk)
        self._size += len(chunk)
        if self._size > KEPT_BYTES_MAX:
            self._fold()

    def tokens(self) -> int:
        """At least one token for every piece of text, and for every four bytes of it."""
        self._fold()
        return max(self._pieces, -(-self._bytes // 4), 0)

    def finished(self) -> frozenset[int]:
        """The choices of a stream that have ended, by their indexes."""
        self._fold()
        return self._finished

    def _fold(self) -> None:
        kept = b"".join(self._kept)
        for text in _TEXT.findall(kept):
            self._pieces += 1
            self._bytes += len(text)
        if _FINISHED.search(kept):
            self._finished |= {index for event in split(kept) for index in _finished_in(event)}
        self._kept.clear()
        self._size = 0


def estimated(ask: Ask, delivered: Delivered) -> Usage:
    """The best guess where a provider reports nothing, and it says that it is one."""
    made = delivered.tokens() if ask.generates else 0
    return Usage(input_tokens=ask.input_estimate, output_tokens=made, source="estimated")


def _finished_in(event: bytes) -> list[int]:
    if not _FINISHED.search(event):
        return []
    try:
        choices = orjson.loads(data_of(event))["choices"]
        return [int(choice.get("index") or 0) for choice in choices if choice.get("finish_reason")]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError):
        return []
