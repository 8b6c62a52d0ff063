"""Providers' refusals reach customers, and carry what customers must not read."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.providers.upstream_errors import redacted, refusal_of, retry_after_s

KEY = "sk-proj-Abc123Def456Ghi789"


def error(message: str = "Bad thing", **more: Any) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": "invalid_request_error", "param": None, **more}})


@pytest.mark.parametrize(
    ("status", "body", "blame", "error_type"),
    [
        (301, b"", "operator", "upstream_redirect"),
        (400, error(), "request", "upstream_rejected"),
        (400, error(code="invalid_api_key"), "operator", "upstream_rejected_key"),
        (400, error("API key not valid."), "operator", "upstream_rejected_key"),
        (401, error(), "operator", "upstream_rejected_key"),
        (402, b"", "operator", "upstream_quota"),
        (403, error(), "operator", "upstream_rejected_key"),
        (404, error(code="model_not_found"), "request", "upstream_rejected"),
        (404, b"<html>not here</html>", "operator", "upstream_misconfigured"),
        (405, b"", "operator", "upstream_misconfigured"),
        (408, error(), "upstream", "upstream_timeout"),
        (409, error(), "upstream", "upstream_conflict"),
        (413, error(), "request", "upstream_rejected"),
        (422, b'{"detail":"x"}', "request", "upstream_rejected"),
        (429, error(), "upstream", "upstream_rate_limited"),
        (429, error(code="insufficient_quota"), "operator", "upstream_quota"),
        (429, error(type="insufficient_quota"), "operator", "upstream_quota"),
        (500, error(), "upstream", "upstream_server_error"),
        (503, b"<html>", "upstream", "upstream_server_error"),
        (529, b"", "upstream", "upstream_server_error"),
    ],
)
def test_whose_trouble_a_status_is(status: int, body: bytes, blame: str, error_type: str) -> None:
    """A customer can mend its request; the operator's key and account it cannot."""
    failed = refusal_of(status, {}, body, KEY)
    assert (failed.kind, failed.status, failed.blame, failed.error_type) == ("refused", status, blame, error_type)
    if blame != "request":
        assert "Bad thing" not in failed.message
        assert failed.code is None


@pytest.mark.parametrize(
    "secret",
    [
        KEY,
        "sk-abc123...xyz9",
        "Bearer abcdefgh",
        "org-AbCdEf123456",
        "proj_abc123",
        "AIzaSyA1234567890abcdefg",
        "https://internal.example/v1?key=1",
        "fg_live_abc_def123",
        "0123456789abcdef0123456789abcdef0123",
    ],
)
def test_no_key_or_account_passes_in_a_message(secret: str) -> None:
    """Providers quote keys and organisations in the very errors that are passed on."""
    failed = refusal_of(
        400, {}, error(f"You gave {secret}, which is wrong\r\nhere.", code=secret, param=secret), KEY
    )
    assert secret not in failed.message
    assert failed.message.startswith("You gave [redacted]")
    assert "\n" not in failed.message
    assert failed.code is None or secret not in failed.code
    assert failed.param is None or secret not in failed.param


def test_a_message_on_the_request_passes_with_its_code_and_param() -> None:
    """It is the only thing that tells the customer what to mend."""
    failed = refusal_of(400, {}, error("'messages' is too long", code="too_long", param="messages.0"), KEY)
    assert (failed.message, failed.code, failed.param) == ("'messages' is too long", "too_long", "messages.0")
    assert len(redacted("word " * 1000, None)) <= 500


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[1]", b'{"error":[1]}', b'{"error":{"message":{"a":1}}}', b"\xff\xfe", b"[" * 10_000],
)
def test_garbage_gets_a_sentence_of_our_own(body: bytes) -> None:
    """Proxies between us and a provider answer with pages that nobody should be shown."""
    assert refusal_of(400, {}, body, KEY).message == "The model's provider refused the request without saying why."


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "1500"}, 2),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "9" * 30}, None),
        ({"retry-after": "²"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_whole_seconds_or_nothing(headers: dict[str, str], seconds: int | None) -> None:
    """It is passed on to clients that sleep as long as it says."""
    assert retry_after_s(headers) == seconds


def test_usage_in_an_error_is_kept() -> None:
    """A 5xx that reports usage was billed."""
    body = orjson.dumps({"error": {"message": "x"}, "usage": {"prompt_tokens": 9, "completion_tokens": 1}})
    failed = refusal_of(500, {"x-request-id": "r1"}, body, KEY)
    assert failed.usage is not None
    assert failed.usage.input_tokens == 9
    assert failed.provider_request_id == "r1"
