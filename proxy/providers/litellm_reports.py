"""What an upstream behind LiteLLM really said: its usage, whether it ended, and why.

LiteLLM makes up what is missing, a usage as well as a clean end, so the bodies are read before it gets them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from proxy.domain.usage import Usage
from proxy.providers.gemini_usage import read_gemini_usage
from proxy.providers.usage_readers import read_messages_usage


class Reports(Protocol):
    """What is read of one answer. `ended` says that its last event has come, whatever came after it."""

    ended: bool
    by_length: bool
    model_served: str | None
    answer_id: str | None

    def plain(self, said: dict[str, Any]) -> dict[str, Any]:
        """Reads a whole answer; returns it with a usage, without which LiteLLM fails: zeros where it had none."""
        ...

    def event(self, said: Mapping[str, Any]) -> None: ...

    def usage(self) -> Usage | None:
        """As reported by now; None where nothing was."""
        ...


class ClaudeReports:
    """Anthropic's messages. `output_tokens` of the start is a beginning, that of the last delta counts."""

    # LiteLLM tells the client "stop" there.
    _BY_LENGTH = ("max_tokens", "model_context_window_exceeded")

    def __init__(self) -> None:
        self.ended = False
        self.by_length = False
        self.model_served: str | None = None
        self.answer_id: str | None = None
        self._start: Any = None
        self._delta: Any = None

    def plain(self, said: dict[str, Any]) -> dict[str, Any]:
        self._begin(said)
        self._stopped(said)
        self.ended = True
        if type(said.get("usage")) is not dict:
            return {**said, "usage": {"input_tokens": 0, "output_tokens": 0}}
        return said

    def event(self, said: Mapping[str, Any]) -> None:
        kind = said.get("type")
        if kind == "message_start" and type(said.get("message")) is dict:
            self._begin(said["message"])
        elif kind == "message_delta":
            if said.get("usage") is not None:
                self._delta = said["usage"]
            if type(said.get("delta")) is dict:
                self._stopped(said["delta"])
        elif kind == "message_stop":
            self.ended = True

    def usage(self) -> Usage | None:
        return read_messages_usage(self._start, self._delta)

    def _begin(self, message: Mapping[str, Any]) -> None:
        self._start = message.get("usage")
        self.model_served, self.answer_id = _text(message.get("model")), _text(message.get("id"))

    def _stopped(self, holder: Mapping[str, Any]) -> None:
        reason = holder.get("stop_reason")
        self.ended = self.ended or reason is not None
        self.by_length = reason in self._BY_LENGTH


class GeminiReports:
    """Gemini's `generateContent`. The last usage wins: it is a running total."""

    def __init__(self) -> None:
        self.ended = False
        self.by_length = False
        self.model_served: str | None = None
        self.answer_id: str | None = None
        self._report: Any = None

    def plain(self, said: dict[str, Any]) -> dict[str, Any]:
        self.event(said)
        self.ended = True
        if type(self._report) is not dict:
            return {
                **said,
                "usageMetadata": {"promptTokenCount": 0, "candidatesTokenCount": 0, "totalTokenCount": 0},
            }
        return said

    def event(self, said: Mapping[str, Any]) -> None:
        self._report = said.get("usageMetadata") or self._report
        self.model_served = self.model_served or _text(said.get("modelVersion"))
        self.answer_id = self.answer_id or _text(said.get("responseId"))
        feedback = said.get("promptFeedback")
        if type(feedback) is dict and feedback.get("blockReason"):
            self.ended = True
        candidates = said.get("candidates")
        for candidate in candidates if type(candidates) is list else []:
            if type(candidate) is dict and candidate.get("finishReason"):
                self.ended = True

    def usage(self) -> Usage | None:
        return read_gemini_usage(self._report)


def _text(value: Any) -> str | None:
    return value[:256] if isinstance(value, str) else None


READERS: Mapping[str, type[ClaudeReports] | type[GeminiReports]] = {
    "anthropic": ClaudeReports,
    "gemini": GeminiReports,
}
"""By LiteLLM's name for the provider. What others report is taken from LiteLLM's own objects."""
