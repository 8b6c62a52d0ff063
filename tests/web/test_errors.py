"""The table from refusals to answers: clients decide by status, type, code and headers whether they try again."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from proxy.domain.refusals import BudgetState, Reason, Refusal
from proxy.web.errors import BAD_SECRET, RULES, error_response, fault_response, wire_of

TABLE: list[tuple[Refusal, int, str, str, dict[str, str]]] = [
    (
        Refusal("unauthenticated", "the secret xyz is unknown", 401),
        401,
        "invalid_request_error",
        "invalid_api_key",
        {"www-authenticate": "Bearer"},
    ),
    (Refusal("suspended", "m", 403), 403, "permission_error", "account_suspended", {}),
    (Refusal("bad_request", "m", 400, code="invalid_json"), 400, "invalid_request_error", "invalid_json", {}),
    (Refusal("bad_request", "m", 413, code="body_too_large"), 413, "invalid_request_error", "body_too_large", {}),
    (Refusal("bad_request", "m", 415, code="x"), 415, "invalid_request_error", "x", {}),
    (Refusal("bad_request", "m", 400), 400, "invalid_request_error", "bad_request", {}),
    (Refusal("model_not_found", "m", 404), 404, "invalid_request_error", "model_not_found", {}),
    (Refusal("model_not_allowed", "m", 403), 403, "permission_error", "model_not_allowed", {}),
    (Refusal("model_unpriced", "m", 403), 403, "permission_error", "model_unpriced", {}),
    (Refusal("unknown_parameter", "m", 400), 400, "invalid_request_error", "unknown_parameter", {}),
    (
        Refusal(
            "budget", "m", 402, retry_after_s=5, headers={"Retry-After": "9", "x-ratelimit-reset-tokens": "1s"}
        ),
        402,
        "insufficient_quota",
        "insufficient_quota",
        {"x-should-retry": "false"},
    ),
    (Refusal("budget", "m", 429), 429, "insufficient_quota", "insufficient_quota", {"x-should-retry": "false"}),
    (
        Refusal("rate_limited", "m", 429, type="tokens", retry_after_s=7),
        429,
        "tokens",
        "rate_limit_exceeded",
        {"retry-after": "7"},
    ),
    (
        Refusal("rate_limited", "m", 429, type="concurrent_requests", retry_after_s=0),
        429,
        "concurrent_requests",
        "rate_limit_exceeded",
        {"retry-after": "1"},
    ),
    (
        Refusal("rate_limited", "m", 429, retry_after_s=3600),
        429,
        "requests",
        "rate_limit_exceeded",
        {"retry-after": "60"},
    ),
    (Refusal("feature_not_allowed", "m", 403), 403, "permission_error", "feature_not_allowed", {}),
    (Refusal("request_too_large", "m", 400), 400, "invalid_request_error", "request_too_large", {}),
    (
        Refusal("gate_unavailable", "m", 503),
        503,
        "server_error",
        "gate_unavailable",
        {"x-should-retry": "false"},
    ),
    (
        Refusal("upstream_not_configured", "m", 503),
        503,
        "server_error",
        "upstream_not_configured",
        {"x-should-retry": "false"},
    ),
    (Refusal("upstream", "m", 502), 502, "upstream_error", "upstream_error", {}),
    (
        Refusal("upstream", "m", 429, code="rate_limit_exceeded", retry_after_s=20),
        429,
        "upstream_error",
        "rate_limit_exceeded",
        {"retry-after": "20"},
    ),
]


def said(body: bytes) -> Any:
    return json.loads(body)["error"]


def test_every_reason_is_in_the_table() -> None:
    """A reason without a line would be a 500 for somebody who only ran out of budget."""
    assert {refusal.reason for refusal, *_ in TABLE} == set(get_args(Reason)) == set(RULES)


@pytest.mark.parametrize(("refusal", "status", "type", "code", "headers"), TABLE)
def test_a_refusal_is_answered_as_the_contract_says(
    refusal: Refusal, status: int, type: str, code: str, headers: dict[str, str]
) -> None:
    """DESIGN 5.4, line by line: all four keys, and no header that makes a client wait or retry wrongly."""
    answered, sent, body = error_response(refusal, "req_1")
    error = said(body)
    assert (answered, error["type"], error["code"]) == (status, type, code)
    assert set(error) == {"message", "type", "param", "code"}
    assert sent == {"content-type": "application/json", "x-request-id": "req_1", **headers}


def test_all_bad_secrets_are_told_the_same() -> None:
    """A difference between unknown and revoked is news for whoever guesses."""
    answers = {error_response(Refusal("unauthenticated", m, 401), "r")[2] for m in ("unknown", "revoked")}
    assert len(answers) == 1
    assert said(answers.pop())["message"] == BAD_SECRET


def state(meter: str, resets_at_us: int | None = 1_796_083_200_000_000, upgrade_url: str = "") -> BudgetState:
    return BudgetState("b", meter, "customer", 5_000_000, 4_999_000, 0, 17_250, 3, resets_at_us, upgrade_url)


def test_a_budget_says_what_is_left_and_when_it_renews() -> None:
    """Machines read this; people read the message."""
    refusal = Refusal("budget", "m", 402, budget=state("tokens", upgrade_url="https://x"))
    assert said(error_response(refusal, "r")[2])["budget"] == {
        "meter": "tokens",
        "per": "customer",
        "limit": 5_000_000,
        "used": 4_999_000,
        "held": 0,
        "asked": 17_250,
        "can_afford": 3,
        "resets_at": "2026-12-01T00:00:00Z",
        "upgrade_url": "https://x",
    }


def test_money_in_a_budget_is_decimal_dollars_and_a_lifetime_never_resets() -> None:
    """Microdollars are ours alone; a float would be wrong by a cent somewhere. `can_afford` stays in tokens."""
    refusal = Refusal("budget", "m", 402, budget=state("cost_usd", None))
    budget = said(error_response(refusal, "r")[2])["budget"]
    assert [budget[key] for key in ("limit", "used", "held", "asked")] == ["5", "4.999", "0", "0.01725"]
    assert budget["can_afford"] == 3
    assert budget["resets_at"] is None
    assert budget["upgrade_url"] is None


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (Refusal("budget", "m", 402), "billing_error"),
        (Refusal("budget", "m", 429), "billing_error"),
        (Refusal("unauthenticated", "m", 401), "authentication_error"),
        (Refusal("suspended", "m", 403), "permission_error"),
        (Refusal("model_not_found", "m", 404), "not_found_error"),
        (Refusal("model_not_allowed", "m", 403), "permission_error"),
        (Refusal("feature_not_allowed", "m", 403), "permission_error"),
        (Refusal("model_unpriced", "m", 403), "permission_error"),
        (Refusal("bad_request", "m", 400), "invalid_request_error"),
        (Refusal("bad_request", "m", 408), "invalid_request_error"),
        (Refusal("bad_request", "m", 413), "invalid_request_error"),
        (Refusal("bad_request", "m", 415), "invalid_request_error"),
        (Refusal("unknown_parameter", "m", 400), "invalid_request_error"),
        (Refusal("request_too_large", "m", 400), "invalid_request_error"),
        (Refusal("rate_limited", "m", 429), "rate_limit_error"),
        (Refusal("gate_unavailable", "m", 503), "api_error"),
        (Refusal("upstream_not_configured", "m", 503), "api_error"),
        (Refusal("upstream", "m", 400), "invalid_request_error"),
        (Refusal("upstream", "m", 404), "not_found_error"),
        (Refusal("upstream", "m", 409), "invalid_request_error"),
        (Refusal("upstream", "m", 422), "invalid_request_error"),
        (Refusal("upstream", "m", 429), "rate_limit_error"),
        (Refusal("upstream", "m", 500), "api_error"),
        (Refusal("upstream", "m", 502), "api_error"),
        (Refusal("upstream", "m", 529), "overloaded_error"),
    ],
)
def test_anthropics_shape(refusal: Refusal, kind: str) -> None:
    status, headers, body = error_response(refusal, "req_1", "anthropic")
    assert json.loads(body)["error"]["type"] == kind
    assert json.loads(body)["request_id"] == headers["request-id"] == "req_1"
    usual_status, usual_headers, usual_body = error_response(refusal, "req_1")
    assert status == usual_status
    assert headers == {**usual_headers, "request-id": "req_1"}
    assert set(json.loads(body)) == {"type", "error", "request_id"}
    assert json.loads(body)["type"] == "error"
    assert json.loads(body)["error"] == {"type": kind, "message": said(usual_body)["message"]}


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "invalid_request_error"), (404, "not_found_error"), (405, "invalid_request_error"),
                         (500, "api_error"), (503, "api_error")]
)  # fmt: skip
def test_anthropics_shape_of_a_fault(status: int, kind: str) -> None:
    """Broken HTTP, an unknown path or an error of ours, at a path that speaks its wire."""
    _, headers, body = fault_response(status, "x", "m", "req_1", wire_of("/v1/messages/batches"))
    assert json.loads(body) == {"type": "error", "error": {"type": kind, "message": "m"}, "request_id": "req_1"}
    assert headers["request-id"] == headers["x-request-id"] == "req_1"


def test_text_that_json_cannot_carry_does_not_fail_the_answer() -> None:
    """Header values may hold lone surrogates, and may have found their way into a sentence."""
    _, _, body = error_response(Refusal("model_not_found", "no \udcff here", 404, param="m"), "r")
    assert said(body)["message"] == "no ? here"


def test_a_fault_of_ours_is_a_server_error_and_one_of_the_clients_is_not() -> None:
    status, headers, body = fault_response(405, "method_not_allowed", "m", "r", allow="GET")
    assert (status, said(body)["type"], headers["allow"]) == (405, "invalid_request_error", "GET")
    assert said(fault_response(500, "internal_error", "m", "r")[2])["type"] == "server_error"
