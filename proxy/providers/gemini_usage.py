"""Gemini's usage report, `usageMetadata`, in the shape that all chat reports are read in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from proxy.domain.usage import Usage
from proxy.providers.usage_readers import numbers_of, read_chat_usage


def read_gemini_usage(report: Any) -> Usage | None:
    """What `usageMetadata` says; None if it says nothing.

    Its candidates leave the thoughts out, but for some models that count them in: the total tells which.
    Prompts of tools that the provider ran are input. A total without candidates is all input, as for a prompt
    that was blocked.
    """
    if type(report) is not dict:
        return None
    prompt = _sum(report, "promptTokenCount", "toolUsePromptTokenCount")
    candidates, thoughts = _sum(report, "candidatesTokenCount"), _sum(report, "thoughtsTokenCount")
    total = report.get("totalTokenCount")
    counted_in = prompt + candidates == total
    read = read_chat_usage(
        {
            "prompt_tokens": prompt,
            "completion_tokens": candidates if counted_in else candidates + thoughts,
            "total_tokens": total,
            "prompt_tokens_details": {
                "cached_tokens": report.get("cachedContentTokenCount"),
                "audio_tokens": _heard(report, "promptTokensDetails") - _heard(report, "cacheTokensDetails"),
            },
            "completion_tokens_details": {
                "reasoning_tokens": thoughts,
                "audio_tokens": _heard(report, "candidatesTokensDetails"),
            },
        }
    )
    return read and replace(read, raw=numbers_of(report))


def _sum(report: Mapping[str, Any], *names: str) -> int:
    """What is no count at all stays so: it is beyond belief, and the reader says so."""
    values = [report.get(name) for name in names]
    odd = [value for value in values if value is not None and (type(value) is not int or value < 0)]
    return -1 if odd else sum(value for value in values if value is not None)


def _heard(report: Mapping[str, Any], name: str) -> int:
    details = report.get(name)
    if type(details) is not list:
        return 0
    counts = [each.get("tokenCount") for each in details if type(each) is dict and each.get("modality") == "AUDIO"]
    return sum(count for count in counts if type(count) is int and count > 0)
