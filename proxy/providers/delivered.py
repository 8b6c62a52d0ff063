"""How much output an answer has delivered, for when its provider does not say: lazily, since it mostly does."""

from __future__ import annotations

import re

KEPT_BYTES_MAX = 64 * 1024

_TEXT = re.compile(
    rb'"(?:content|reasoning_content|reasoning|thinking|refusal|arguments|text)"\s*:\s*"((?:[^"\\]|\\.)+)"',
    re.DOTALL,
)


class Delivered:
    """Keeps what went by, and counts it when asked or when there is too much of it."""

    __slots__ = ("_bytes", "_kept", "_pieces", "_size")

    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._size = 0
        self._pieces = 0
        self._bytes = 0

    def add(self, chunk: bytes) -> None:
        self._kept.append(chunk)
        self._size += len(chunk)
        if self._size > KEPT_BYTES_MAX:
            self._fold()

    def tokens(self) -> int:
        """At least one token for every piece of text, and for every four bytes of it."""
        self._fold()
        return max(self._pieces, -(-self._bytes // 4))

    def _fold(self) -> None:
        for text in _TEXT.findall(b"".join(self._kept)):
            self._pieces += 1
            self._bytes += len(text)
        self._kept.clear()
        self._size = 0
