"""Nothing secret and nothing a person wrote to a model leaves through the log.

Three nets, because each misses what another holds: keys that name message content are dropped, strings that
look like a secret are replaced, and the very secrets this process knows are replaced wherever they stand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

HIDDEN = "[redacted]"

# A value longer than this is no log field but a document, and documents are what people wrote.
TEXT_LENGTH_MAX = 2_000
_DEPTH_MAX = 6
_ITEMS_MAX = 100
# Shorter than this is no secret, and replacing it would shred every line.
SECRET_LENGTH_MIN = 4

_CONTENT_KEYS = frozenset(
    (
        "messages",
        "message_content",
        "prompt",
        "prompts",
        "completion",
        "completions",
        "content",
        "contents",
        "body",
        "input",
        "inputs",
        "instructions",
        "output_text",
        "choices",
        "delta",
        "tools",
        "tool_calls",
        "arguments",
        "payload",
        "raw_body",
        "request_body",
        "response_body",
    )
)
_SECRET_KEYS = frozenset(
    (
        "authorization",
        "proxy_authorization",
        "api_key",
        "x_api_key",
        "x_goog_api_key",
        "apikey",
        "secret",
        "secrets",
        "password",
        "passwd",
        "token",
        "admin_token",
        "access_token",
        "pepper",
        "secret_pepper",
        "cookie",
        "set_cookie",
    )
)

_LOOKS_SECRET: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"fg_(?:live|test)_[0-9A-Za-z_]+"), "fg_live_" + HIDDEN),
    (re.compile(r"fga_(?:live|test)_[0-9A-Za-z_]+"), "fga_live_" + HIDDEN),
    (re.compile(r"(?i)\b(bearer|basic)\s+[^\s\"',;]+"), r"\1 " + HIDDEN),
    (re.compile(r"(?<![0-9A-Za-z])(?:sk|pk|rk|xai|gsk|whsec)[-_][0-9A-Za-z_-]{6,}"), "sk-" + HIDDEN),
    (re.compile(r"(?<![0-9A-Za-z])AIza[0-9A-Za-z_-]{20,}"), HIDDEN),
    # Passwords in addresses (redis://:password@host), and keys in queries, as some providers take them.
    (re.compile(r"(://)[^\s/\"']+@"), r"\1" + HIDDEN + "@"),
    (re.compile(r"(?i)([?&](?:key|api[-_]key|token|access_token)=)[^\s&\"'#]+"), r"\1" + HIDDEN),
    (
        re.compile(
            r"(?i)\b(authorization|x-api-key|api[-_]key|x-goog-api-key)([\"']?\s*[:=]\s*[\"']?)(?!bearer|basic)[^\s\"',]+"
        ),
        r"\1\2" + HIDDEN,
    ),
)


class Redactor:
    """Makes a log record safe to leave. `know` registers the secrets of this process, whatever their form."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._known: set[str] = set()
        self._known_pattern: re.Pattern[str] | None = None
        self.know(*secrets)

    def know(self, *secrets: str) -> None:
        """Replaces these strings from now on, and their JSON-escaped and percent-encoded forms."""
        for secret in secrets:
            if len(secret) >= SECRET_LENGTH_MIN:
                self._known |= {secret, json.dumps(secret)[1:-1], quote(secret, safe="")}
        if self._known:
            longest_first = sorted(self._known, key=len, reverse=True)
            self._known_pattern = re.compile("|".join(map(re.escape, longest_first)))

    def text(self, text: str) -> str:
        """The text without secrets, cut at `TEXT_LENGTH_MAX` characters (after the replacing, never before)."""
        if not text.isascii():
            # A lone surrogate (an undecodable file name, say) cannot be rendered, and a log call must not fail.
            text = text.encode("utf-8", "replace").decode()
        if self._known_pattern is not None:
            text = self._known_pattern.sub(HIDDEN, text)
        for pattern, replacement in _LOOKS_SECRET:
            text = pattern.sub(replacement, text)
        if len(text) > TEXT_LENGTH_MAX:
            return f"{text[:TEXT_LENGTH_MAX]}… ({len(text)} characters)"
        return text

    def fields(self, fields: Mapping[Any, Any], depth: int = 0) -> dict[str, Any]:
        """The mapping as plain JSON values: content dropped, secrets replaced, anything unknown as its text."""
        safe: dict[str, Any] = {}
        for key, value in list(fields.items())[:_ITEMS_MAX]:
            word = str(key).lower().replace("-", "_")
            if word in _CONTENT_KEYS:
                continue
            safe[self.text(str(key))] = HIDDEN if word in _SECRET_KEYS else self._value(value, depth + 1)
        return safe

    def _value(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, int):
            # The renderer takes 64 bits; a longer integer is told as text rather than lost with its line.
            return int(value) if -(1 << 63) <= value < 1 << 63 else str(value)
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, BaseException):
            return type(value).__qualname__
        if depth > _DEPTH_MAX:
            return f"({type(value).__name__})"
        if isinstance(value, Mapping):
            return self.fields(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return [self._value(item, depth + 1) for item in list(value)[:_ITEMS_MAX]]
        if isinstance(value, bytes | bytearray | memoryview):
            return f"({len(value)} bytes)"
        return self.text(_repr(value))


def _repr(value: object) -> str:
    """A log call must not fail on an object whose repr does."""
    try:
        return repr(value)
    except Exception as fault:
        return f"({type(value).__name__}, whose repr raises {type(fault).__name__})"
