"""What must never leave, in every form it may come in."""

from __future__ import annotations

import pytest

from proxy.telemetry.redaction import TEXT_LENGTH_MAX, Redactor


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("agent fg_live_a1_9XyZ0 called", "9XyZ0"),
        ("key sk-proj-abcDEF123456_-x failed", "abcDEF123456"),
        ("key sk-ant-api03-abcdef refused", "api03"),
        ("Authorization: Bearer abc.def-123", "abc.def-123"),
        ("{'authorization': 'bearer tok123'}", "tok123"),
        ("Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("x-api-key: plainvalue", "plainvalue"),
        ('{"api_key":"plainvalue"}', "plainvalue"),
        ("redis://:pass@word@localhost:6379/0", "word"),
        ("postgresql://gate:s3cr3t@db/ledger", "s3cr3t"),
        ("GET /v1beta/models?key=AIzaplain&alt=sse", "AIzaplain"),
        ("AIzaSyA1234567890abcdefghijklmnop", "SyA123"),
        ("token hunter2-hunter2 is wrong", "hunter2"),
        ("form pass%20word%2F sent", "pass%20word"),
        ('json {"a": "say \\"pass\\" \\u00e4"}', "\\u00e4"),
    ],
)
def test_a_secret_is_replaced(text: str, hidden: str) -> None:
    """One log line read by the wrong person is one leaked key."""
    redactor = Redactor(["hunter2-hunter2", "pass word/", 'say "pass" ä'])
    assert hidden not in redactor.text(text)
    assert "[redacted]" in redactor.text(text)


@pytest.mark.parametrize(
    "text",
    [
        "Port 8080 on 127.0.0.1 is taken by another program.",
        "models/gpt-4o-mini and task-force-alpha",
        "https://api.openai.com/v1/chat/completions",
        "bearer",
        "risk-assessment-report",
    ],
)
def test_ordinary_sentences_stay_as_they_are(text: str) -> None:
    """A log that hides what it should say is switched off."""
    assert Redactor().text(text) == text


def test_message_content_is_dropped_at_any_depth() -> None:
    """No prompt and no completion is ever logged, however it was passed."""
    fields = {
        "model": "m",
        "messages": [{"content": "my illness"}],
        "request": {"Prompt": "my illness", "params": [{"content": "my illness", "n": 1}]},
        "x-api-key": "plain",
    }
    assert Redactor().fields(fields) == {
        "model": "m",
        "request": {"params": [{"n": 1}]},
        "x-api-key": "[redacted]",
    }


def test_anything_becomes_a_plain_and_bounded_value() -> None:
    """A log call must neither fail nor write a document."""

    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    deep: dict[str, object] = {}
    deep["again"] = deep
    safe = Redactor().fields({"odd": Odd(), "raw": b"secret", "long": "x" * 5_000, "deep": deep, "int": 1 << 70})
    assert safe["odd"] == "(Odd, whose repr raises RuntimeError)"
    assert safe["raw"] == "(6 bytes)"
    assert len(safe["long"]) < TEXT_LENGTH_MAX + 30
    assert safe["int"] == str(1 << 70)
    assert Redactor().text("\ud800") == "?"


def test_a_secret_across_the_cut_is_replaced_before_it_is_cut() -> None:
    redactor = Redactor(["hunter2-hunter2"])
    assert "hunter2" not in redactor.text("x" * (TEXT_LENGTH_MAX - 7) + "hunter2-hunter2")
