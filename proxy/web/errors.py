"""The one table from a refusal to its answer: status, type, code, headers and body (DESIGN 5.4).

In: a `Refusal` (or a fault of the transport, the route or ourselves) and the request's id. Out: `(status,
headers, body)`, ready to be written. Nothing here reads a request, so nothing of it can be echoed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import orjson

from proxy.domain.money import PICO_PER_MICRO, usd_text
from proxy.domain.refusals import BudgetState, Reason, Refusal

Wire = Literal["openai", "anthropic"]
Response = tuple[int, dict[str, str], bytes]

RETRY_AFTER_MAX_S = 60
BAD_SECRET = (
    "The agent secret is missing, malformed, unknown or revoked."
    " Send it as 'Authorization: Bearer fg_live_…' (or in x-api-key, api-key or x-goog-api-key)."
)
_NO_RETRY = {"x-should-retry": "false"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RESET_HEADERS = ("retry-after", "x-ratelimit-reset", "ratelimit")


@dataclass(frozen=True, slots=True)
class _Rule:
    """What a reason is answered with. None: the refusal says it itself; its own type and code go first."""

    status: int | None
    type: str
    code: str | None
    headers: Mapping[str, str] = field(default_factory=dict)


RULES: dict[Reason, _Rule] = {
    "unauthenticated": _Rule(401, "invalid_request_error", "invalid_api_key", {"www-authenticate": "Bearer"}),
    "suspended": _Rule(403, "permission_error", "account_suspended"),
    "bad_request": _Rule(None, "invalid_request_error", "bad_request"),
    "model_not_found": _Rule(404, "invalid_request_error", "model_not_found"),
    "model_not_allowed": _Rule(403, "permission_error", "model_not_allowed"),
    "feature_not_allowed": _Rule(403, "permission_error", "feature_not_allowed"),
    "model_unpriced": _Rule(403, "permission_error", "model_unpriced"),
    "unknown_parameter": _Rule(400, "invalid_request_error", "unknown_parameter"),
    "budget": _Rule(None, "insufficient_quota", "insufficient_quota", _NO_RETRY),
    "rate_limited": _Rule(429, "requests", "rate_limit_exceeded"),
    "request_too_large": _Rule(400, "invalid_request_error", "request_too_large"),
    "gate_unavailable": _Rule(503, "server_error", "gate_unavailable", _NO_RETRY),
    "upstream_not_configured": _Rule(503, "server_error", "upstream_not_configured", _NO_RETRY),
    "upstream": _Rule(None, "upstream_error", "upstream_error"),
}

_ANTHROPIC_TYPES: dict[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def error_response(refusal: Refusal, request_id: str, wire: Wire = "openai") -> Response:
    """The answer to a refusal, complete but for what every answer carries."""
    rule = RULES[refusal.reason]
    status = refusal.status if rule.status is None else rule.status
    message = BAD_SECRET if refusal.reason == "unauthenticated" else refusal.message
    headers = {**_allowed_headers(refusal), **rule.headers, **_retry_header(refusal)}
    if wire == "anthropic":
        kind = "billing_error" if refusal.reason == "budget" else _anthropic_type(status)
        return status, headers | _ids(request_id, wire), anthropic_body(message, kind, request_id)
    body = openai_body(
        message, refusal.type or rule.type, refusal.code or rule.code, refusal.param, _budget(refusal.budget)
    )
    return status, headers | _ids(request_id, wire), body


def fault_response(
    status: int, code: str, message: str, request_id: str, wire: Wire = "openai", **headers: str
) -> Response:
    """The answer to a fault that is no refusal: broken HTTP, an unknown route, or an error of our own."""
    if wire == "anthropic":
        body = anthropic_body(message, _anthropic_type(status), request_id)
    else:
        body = openai_body(message, "server_error" if status >= 500 else "invalid_request_error", code)
    return status, {**headers, **_ids(request_id, wire)}, body


def wire_of(path: str) -> Wire:
    """In whose shape errors are told at a path."""
    return "anthropic" if path.startswith("/v1/messages") else "openai"


def openai_body(
    message: str,
    type: str,
    code: str | None,
    param: str | None = None,
    budget: dict[str, Any] | None = None,
) -> bytes:
    """OpenAI's error object; `budget` is added only where there is one."""
    error: dict[str, Any] = {"message": _text(message), "type": type, "param": _text(param), "code": _text(code)}
    if budget is not None:
        error["budget"] = budget
    return orjson.dumps({"error": error})


def anthropic_body(message: str, type: str, request_id: str) -> bytes:
    """Anthropic's error object."""
    return orjson.dumps(
        {"type": "error", "error": {"type": type, "message": _text(message)}, "request_id": request_id}
    )


def _anthropic_type(status: int) -> str:
    usual = "invalid_request_error" if 400 <= status < 500 else "api_error"
    return _ANTHROPIC_TYPES.get(status, usual)


def _ids(request_id: str, wire: Wire) -> dict[str, str]:
    common = {"content-type": "application/json", "x-request-id": request_id}
    return {**common, "request-id": request_id} if wire == "anthropic" else common


def _allowed_headers(refusal: Refusal) -> dict[str, str]:
    """A spent budget must not be waited for: several clients would sleep until the reset that a header names."""
    if refusal.reason != "budget":
        return refusal.headers
    return {n: v for n, v in refusal.headers.items() if not n.lower().startswith(_RESET_HEADERS)}


def _retry_header(refusal: Refusal) -> dict[str, str]:
    if refusal.reason == "rate_limited":
        seconds = refusal.retry_after_s if refusal.retry_after_s is not None else 1
    elif refusal.reason == "upstream" and refusal.retry_after_s is not None:
        seconds = refusal.retry_after_s
    else:
        return {}
    return {"retry-after": str(min(max(seconds, 1), RETRY_AFTER_MAX_S))}


def _budget(state: BudgetState | None) -> dict[str, Any] | None:
    if state is None:
        return None
    resets_at = None if state.resets_at_us is None else _iso(state.resets_at_us)
    return {
        "meter": state.meter,
        "per": state.per,
        "limit": _amount(state.meter, state.limit),
        "used": _amount(state.meter, state.used),
        "held": _amount(state.meter, state.held),
        "asked": _amount(state.meter, state.asked),
        # An output limit in tokens, whatever the meter: it is what the client may ask for instead.
        "can_afford": state.can_afford,
        "resets_at": resets_at,
        "upgrade_url": state.upgrade_url or None,
    }


def _amount(meter: str, amount: int) -> int | str:
    return usd_text(amount * PICO_PER_MICRO) if meter == "cost_usd" else amount


def _iso(us: int) -> str:
    return (_EPOCH + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")


def _text(text: str | None) -> str | None:
    """What JSON can carry: header values may hold lone surrogates, which orjson refuses."""
    return None if text is None else text.encode("utf-8", "replace").decode()
