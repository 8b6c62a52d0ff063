"""The headers of an answer: which model served it, and what is left of the customer's own rate limits."""

from __future__ import annotations

from proxy.gateway.admission import Admission
from proxy.gateway.ports import Answer

MINUTE_US = 60_000_000


def answer_headers(answer: Answer, admission: Admission) -> dict[str, str]:
    """The gate's own headers; nothing of the upstream's but its content type."""
    headers = {
        "content-type": answer.content_type,
        "faregate-model": admission.model.id,
        "faregate-attempts": str(admission.trail.attempts),
    }
    if admission.trail.ask.endpoint.startswith("/v1/messages"):
        headers["request-id"] = admission.trail.request_id
    if admission.trail.skipped:
        headers["faregate-fallbacks-skipped"] = ", ".join(admission.trail.skipped)
    limits, held = admission.standing.plan.rate_limits, admission.held
    requests, tokens = limits.requests_per_minute, limits.tokens_per_minute
    if requests is not None:
        spent_us = max(0, held.requests_tat_us - held.now_us)
        headers["x-ratelimit-limit-requests"] = str(requests)
        headers["x-ratelimit-remaining-requests"] = _remaining(requests, spent_us)
        headers["x-ratelimit-reset-requests"] = _reset(spent_us)
    if tokens is not None:
        spent_us = max(0, held.tokens_tat_us - held.now_us)
        headers["x-ratelimit-limit-tokens"] = str(tokens)
        headers["x-ratelimit-remaining-tokens"] = _remaining(tokens, spent_us)
        headers["x-ratelimit-reset-tokens"] = _reset(spent_us)
    return headers


def _remaining(limit: int, spent_us: int) -> str:
    """What a GCRA would admit now."""
    return str((MINUTE_US - spent_us) * limit // MINUTE_US) if spent_us < MINUTE_US else "0"


def _reset(spent_us: int) -> str:
    """When the limit is whole again, in OpenAI's words: "1ms", "6s"."""
    return f"{-(-spent_us // 1000)}ms" if spent_us < 1_000_000 else f"{-(-spent_us // 1_000_000)}s"
