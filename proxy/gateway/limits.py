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
    if limits.requests_per_minute is not None:
        _limit(headers, "requests", limits.requests_per_minute, held.requests_tat_us, held.now_us)
    if limits.tokens_per_minute is not None:
        _limit(headers, "tokens", limits.tokens_per_minute, held.tokens_tat_us, held.now_us)
    return headers


def _limit(headers: dict[str, str], name: str, limit: int, tat_us: int, now_us: int) -> None:
    """A GCRA's state in OpenAI's words: what would be admitted now, and when the limit is whole again."""
    spent_us = max(0, tat_us - now_us)
    headers[f"x-ratelimit-limit-{name}"] = str(limit)
    headers[f"x-ratelimit-remaining-{name}"] = str(max(0, (MINUTE_US - spent_us) * limit // MINUTE_US))
    headers[f"x-ratelimit-reset-{name}"] = (
        f"{-(-spent_us // 1000)}ms" if spent_us < 1_000_000 else f"{-(-spent_us // 1_000_000)}s"
    )
