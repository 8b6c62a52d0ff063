"""Gemini counts in its own way; what it is paid for must come out whatever the way."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.providers.gemini_usage import read_gemini_usage


def parts(report: Any) -> tuple[Any, ...] | None:
    usage = read_gemini_usage(report)
    return usage and (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.audio_input_tokens,
        usage.reasoning_tokens,
        usage.audio_output_tokens,
        usage.disputed,
    )


AUDIO = [{"modality": "TEXT", "tokenCount": 10}, {"modality": "AUDIO", "tokenCount": 20}]


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ({"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 7}, (3, 4, 0, 0, 0, 0, False)),
        (
            {"promptTokenCount": 3, "candidatesTokenCount": 4, "thoughtsTokenCount": 5, "totalTokenCount": 12},
            (3, 9, 0, 0, 5, 0, False),
        ),
        (
            {"promptTokenCount": 3, "candidatesTokenCount": 9, "thoughtsTokenCount": 5, "totalTokenCount": 12},
            (3, 9, 0, 0, 5, 0, False),
        ),
        ({"promptTokenCount": 3, "thoughtsTokenCount": 5, "totalTokenCount": 8}, (3, 5, 0, 0, 5, 0, False)),
        ({"promptTokenCount": 3, "totalTokenCount": 3}, (3, 0, 0, 0, 0, 0, False)),
        (
            {"promptTokenCount": 3, "toolUsePromptTokenCount": 2, "candidatesTokenCount": 4, "totalTokenCount": 9},
            (5, 4, 0, 0, 0, 0, False),
        ),
        (
            {
                "promptTokenCount": 30,
                "cachedContentTokenCount": 8,
                "candidatesTokenCount": 30,
                "totalTokenCount": 60,
                "promptTokensDetails": AUDIO,
                "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 8}],
                "candidatesTokensDetails": AUDIO,
            },
            (30, 30, 8, 12, 0, 20, False),
        ),
        ({"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 99}, (3, 4, 0, 0, 0, 0, True)),
        ({"promptTokenCount": 3, "candidatesTokenCount": -4, "totalTokenCount": 7}, (3, 4, 0, 0, 0, 0, True)),
        ({"promptTokenCount": "3", "candidatesTokenCount": 4, "totalTokenCount": 7}, (3, 4, 0, 0, 0, 0, True)),
        ({"promptTokenCount": 0, "candidatesTokenCount": 0, "totalTokenCount": 0}, None),
        ({}, None),
        (None, None),
        ("much", None),
    ],
)
def test_totals_are_geminis_own(report: Any, expected: tuple[Any, ...] | None) -> None:
    """Input and output add up to what Gemini bills, thoughts among the output."""
    assert parts(report) == expected
