"""What is read off the wire before LiteLLM gets it: usage, the end, and nothing made up."""

from __future__ import annotations

from typing import Any

from proxy.providers.litellm_reports import READERS, ClaudeReports, GeminiReports


def test_claudes_last_report_overtakes_its_first() -> None:
    """The start counts one token of output; billing by it would forget the rest."""
    reports = ClaudeReports()
    start = {"input_tokens": 5, "output_tokens": 1}
    reports.event({"type": "message_start", "message": {"id": "msg_1", "model": "m", "usage": start}})
    assert (reports.usage() and reports.usage().output_tokens, reports.ended) == (1, False)  # type: ignore[union-attr]
    reports.event({"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {"output_tokens": 9}})
    usage = reports.usage()
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (5, 9)
    assert (reports.ended, reports.by_length, reports.model_served, reports.answer_id) == (
        True,
        True,
        "m",
        "msg_1",
    )


def test_geminis_last_report_wins() -> None:
    """It is a running total, given with nearly every chunk."""
    reports = GeminiReports()
    for made in (1, 2, 3):
        reports.event(
            {"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": made, "totalTokenCount": 5 + made}}
        )
    reports.event({"candidates": [{"content": {"parts": []}}]})
    usage = reports.usage()
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, reports.ended) == (5, 3, False)
    reports.event({"candidates": [{"finishReason": "STOP"}]})
    assert reports.ended


def test_without_a_report_there_is_none_whatever_litellm_is_told() -> None:
    """LiteLLM fails without a usage, so that it gets zeros; they are not the provider's."""
    for name, reader in READERS.items():
        reports = reader()
        told = reports.plain({"content": [], "candidates": []})
        assert told.keys() & {"usage", "usageMetadata"}, name
        assert reports.usage() is None


def test_odd_events_do_no_harm() -> None:
    """A provider's mistake must not become ours."""
    odd: list[Any] = [
        {"type": "message_start", "message": 7},
        {"type": "message_delta", "delta": None, "usage": "much"},
        {"candidates": "none", "usageMetadata": [1], "promptFeedback": 3, "modelVersion": 9},
        {"candidates": [None, 3, {}]},
        {},
    ]
    for reader in READERS.values():
        reports = reader()
        for event in odd:
            reports.event(event)
        usage = reports.usage()
        assert usage is None or usage.disputed
        assert not reports.ended
