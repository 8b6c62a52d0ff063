"""What an upstream's refusal means: whose trouble it is, and what of its words a customer may read.

A provider's text may quote our key, our organisation or the request, so it is passed on only where the
request itself is at fault, and redacted; everything else is said in our own words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import orjson

from proxy.gateway.ports import UpstreamFailed
from proxy.providers.usage_readers import read_chat_usage

MESSAGE_CHARACTERS_MAX = 500
ERROR_BODY_BYTES_MAX = 64 * 1024

_QUOTA = {
    "insufficient_quota",
    "billing_error",
    "billing_hard_limit_reached",
    "billing_not_active",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "project_spend_limit_exceeded",
    "invalid_api_key",
}
# Anthropic's account troubles are bad requests; only their sentences tell.
_SPENT = ("credit balance is too low", "reached your specified api usage limits")

# What Anthropic's kinds of errors mean, where their status is lost: in an answer of 2xx, or in a stream.
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}

_SECRETS = re.compile(
    r"(?i:bearer|basic)\s+[^\s\"',;]+"
    r"|\b(?:sk|pk|rk|gsk|xai|hf|key|org|proj|user|req|fga?_live|fga?_test)[-_][A-Za-z0-9_\-*.…]{4,}"
    r"|\bAIza[A-Za-z0-9_\-]{10,}"
    r"|https?://\S+"
    r"|(?=[A-Za-z_\-]*\d)[A-Za-z0-9_\-]{32,}"
)
_WORD = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_PATH = re.compile(r"[A-Za-z0-9_.\-\[\]]{1,128}")


def refusal_of(status: int, headers: Mapping[str, str], body: bytes, api_key: str | None) -> UpstreamFailed:
    """The failure that a status other than 2xx means; `body` is what was read of it, perhaps nothing."""
    said = parsed_object(body)
    error = _error_object(said)
    kind, blame, sentence = _meaning(402 if _spent(error) else status, _ours(error), error is not None)
    code = param = None
    if blame == "request" and error is not None:
        text = error.get("message")
        if isinstance(text, str) and text.strip():
            sentence = redacted(text, api_key)
        code, param = _matching(_WORD, error.get("code"), api_key), _matching(_PATH, error.get("param"), api_key)
    return UpstreamFailed(
        "refused",
        kind,
        sentence,
        status=status,
        code=code,
        param=param,
        blame=blame,
        retry_after_s=retry_after_s(headers),
        provider_request_id=request_id_of(headers),
        usage=read_chat_usage(said.get("usage")) if said else None,
    )


def _ours(error: dict[str, Any] | None) -> bool:
    """Whether the refusal is about our account, whatever its status says."""
    if error is None:
        return False
    words = {error.get("code"), error.get("type")}
    return bool(words & _QUOTA) or "api key" in str(error.get("message")).lower()


def _spent(error: dict[str, Any] | None) -> bool:
    """Whether the refusal says in a sentence that our account is used up."""
    sentence = str(error.get("message")).lower() if error else ""
    return any(words in sentence for words in _SPENT)


def _meaning(
    status: int, quota: bool, understood: bool
) -> tuple[str, Literal["request", "operator", "upstream"], str]:
    if status < 400:
        return "upstream_redirect", "operator", "The model's provider is not where the gate was told to find it."
    if status in (401, 403) or (quota and status < 500 and status != 402 and status != 429):
        return "upstream_rejected_key", "operator", "The model's provider did not accept the gate's own key."
    if status == 402 or (quota and status < 500):
        return "upstream_quota", "operator", "The gate's own account at the model's provider is used up."
    if status == 429:
        return "upstream_rate_limited", "upstream", "The model's provider takes no more requests just now."
    if status == 408:
        return "upstream_timeout", "upstream", "The model's provider did not finish in time."
    if status == 409:
        return "upstream_conflict", "upstream", "The model's provider could not take the request just now."
    if status >= 500:
        return "upstream_server_error", "upstream", "The model's provider failed to answer."
    if status in (404, 405) and not understood:
        return "upstream_misconfigured", "operator", "The model's provider has no such address."
    return "upstream_rejected", "request", "The model's provider refused the request without saying why."


def error_in_answer(
    said: Mapping[str, Any], status: int, headers: Mapping[str, str], api_key: str | None = None
) -> UpstreamFailed:
    """A plain answer that is an error under a status of 2xx, as some aggregators send it."""
    error = _error_object(dict(said)) or {}
    code = error.get("code")
    usual = _STATUSES.get(str(error.get("type")), 502) if said.get("type") == "error" else 502
    meant = code if type(code) is int and 400 <= code <= 599 else usual
    return refusal_of(meant, headers, orjson.dumps({"error": error, "usage": said.get("usage")}), api_key)


def redacted(text: str, api_key: str | None) -> str:
    """Provider text without keys, accounts and addresses, on one line and not too long."""
    if api_key:
        text = text.replace(api_key, "[redacted]")
    text = _SECRETS.sub("[redacted]", text[: 4 * MESSAGE_CHARACTERS_MAX])
    text = "".join(character if character.isprintable() else " " for character in text).strip()
    return text if len(text) <= MESSAGE_CHARACTERS_MAX else text[: MESSAGE_CHARACTERS_MAX - 1] + "…"


def parsed_object(body: bytes) -> dict[str, Any] | None:
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return said if isinstance(said, dict) else None


def _error_object(said: dict[str, Any] | None) -> dict[str, Any] | None:
    if said is None:
        return None
    error = said.get("error")
    if isinstance(error, str):
        return {"message": error}
    if isinstance(error, dict):
        return {name: value for name, value in error.items() if isinstance(value, str | int)}
    if said.get("object") == "error":
        return {name: value for name, value in said.items() if isinstance(value, str | int)}
    return None


def _matching(pattern: re.Pattern[str], value: Any, api_key: str | None) -> str | None:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        return None
    return value if redacted(value, api_key) == value else None


def tells_secrets(text: str, api_key: str | None) -> bool:
    """Whether a provider's text quotes what `redacted` would take out of it."""
    return bool((api_key and api_key in text) or _SECRETS.search(text))


def harmless_word(value: Any) -> str | None:
    """A type or code as providers use them; None for what may be more than that."""
    return _matching(_WORD, value, None)


def retry_after_s(headers: Mapping[str, str]) -> int | None:
    """Whole seconds, rounded up; a date or anything else is not taken."""
    milliseconds = headers.get("retry-after-ms")
    if milliseconds and milliseconds.isascii() and milliseconds.isdigit() and len(milliseconds) <= 9:
        return -(-int(milliseconds) // 1000)
    seconds = headers.get("retry-after")
    if seconds and seconds.isascii() and seconds.isdigit() and len(seconds) <= 6:
        return int(seconds)
    return None


def request_id_of(headers: Mapping[str, str]) -> str | None:
    value = headers.get("x-request-id") or headers.get("request-id")
    return value if value and len(value) <= 128 and value.isascii() and value.isprintable() else None
