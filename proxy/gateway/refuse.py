"""The sentences of refusals that the journey gives, each for the person who will read it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from proxy.domain.asks import Extra
from proxy.domain.bounds import first_exceeded
from proxy.domain.denials import denial_message
from proxy.domain.features import HOSTED_TOOLS
from proxy.domain.policy import Plan, Policy, RateLimits
from proxy.domain.quotations import without_quotations
from proxy.domain.refusals import BudgetState, Refusal
from proxy.domain.reservations import Exceeded, Hold, Limited
from proxy.gateway.ports import UpstreamFailed
from proxy.gateway.standing import Standing

RETRY_AFTER_MAX_S = 60
# Clients sleep for as long as they are told, and do so twice; their users should hear that a provider is down.
RESTING_RETRY_MAX_S = 5
SHOWN_NAME_MAX = 80

SATURATED = "The model's provider takes no more requests at once; nothing was sent. Please try again shortly."
# Long enough for some of those who wait to be served, short enough that their slots do not stand empty.
SATURATED_RETRY_S = 5


def model_not_found(model_id: str) -> Refusal:
    return Refusal(
        "model_not_found",
        f"The model {_shown(model_id)} does not exist here. GET /v1/models lists those you may use.",
        404,
        code="model_not_found",
        type="invalid_request_error",
        param="model",
    )


def model_not_allowed(model_id: str, plan: Plan, policy: Policy) -> Refusal:
    having = sorted(p.name for p in policy.plans.values() if p.allows(model_id))
    hint = f" It is part of: {', '.join(having)}." if having else ""
    return Refusal(
        "model_not_allowed",
        f"The model {_shown(model_id)} is not part of your {plan.name} plan.{hint}",
        403,
        code="model_not_allowed",
        type="permission_error",
        param="model",
    )


def user_required() -> Refusal:
    return Refusal(
        "bad_request",
        "Your plan needs to know for which user this request is: send the header faregate-user-id, or the field"
        " 'user'.",
        400,
        code="user_required",
        type="invalid_request_error",
        param="user",
    )


def model_unpriced(model_id: str) -> Refusal:
    return Refusal(
        "model_unpriced",
        f"The model {_shown(model_id)} has no known price, and your plan limits costs. An admin can give it"
        " a price in the model catalogue.",
        403,
        code="model_unpriced",
        type="permission_error",
        param="model",
    )


def unknown_parameter(name: str) -> Refusal:
    return Refusal(
        "unknown_parameter",
        f"Unknown parameter: {_shown(name)}. Your plan limits costs, and what this field would cost is not known.",
        400,
        code="unknown_parameter",
        type="invalid_request_error",
        param=name[:SHOWN_NAME_MAX],
    )


def feature_not_allowed(extra: Extra, plan: Plan, policy: Policy) -> Refusal:
    having = sorted(p.name for p in policy.plans.values() if p.features.get(extra.feature))
    hint = f" It is part of: {', '.join(having)}." if having else ""
    return Refusal(
        "feature_not_allowed",
        f"{_shown(extra.param)} needs the feature {extra.feature!r}, which is not part of your {plan.name} plan."
        + hint,
        403,
        code="feature_not_allowed",
        type="permission_error",
        param=extra.param,
    )


def extra_unpriced(extra: Extra, model_id: str) -> Refusal:
    mend = (
        f"An admin can write what a call costs into its price, as {extra.feature}."
        if extra.feature in HOSTED_TOOLS
        else "Leave it out."
    )
    return Refusal(
        "model_unpriced",
        f"What {_shown(extra.param)} ({extra.feature}) costs with the model {_shown(model_id)} is not known, and"
        f" your plan limits costs. {mend}",
        403,
        code="model_unpriced",
        type="permission_error",
        param=extra.param,
    )


def unbounded_tool(extra: Extra) -> Refusal:
    mend = (
        f"Set {_shown(extra.limited_by)} to the most that you need."
        if extra.limited_by
        else "Nothing in a request can say that of this tool, so it needs a plan without such limits."
    )
    return Refusal(
        "bad_request",
        f"{_shown(extra.param)} lets the provider call a tool as often as it likes, reading everything anew each"
        f" time, and your plan limits tokens or costs. {mend}",
        400,
        code="unbounded_tool",
        type="invalid_request_error",
        param=extra.limited_by or extra.param,
    )


def endpoint_not_served(model_id: str, endpoint: str) -> Refusal:
    return Refusal(
        "bad_request",
        f"The model {_shown(model_id)} cannot be called at {endpoint}.",
        400,
        code="unsupported_endpoint",
        type="invalid_request_error",
        param="model",
    )


def upstream_not_configured(upstream: str) -> Refusal:
    return Refusal(
        "upstream_not_configured",
        f"The upstream {upstream!r} of this model has no API key configured; its operator can set one.",
        503,
        code="upstream_not_configured",
        type="server_error",
    )


def no_target(model_id: str) -> Refusal:
    return Refusal(
        "upstream_not_configured",
        f"No upstream of the model {_shown(model_id)} is left to be tried.",
        503,
        code="upstream_not_configured",
        type="server_error",
    )


def kept_elsewhere() -> Refusal:
    return Refusal(
        "bad_request",
        "What this request continues is kept by an upstream that does not serve this model.",
        400,
        code="invalid_value",
        type="invalid_request_error",
        param="previous_response_id",
    )


def upstream_resting(wait_us: int) -> Refusal:
    wait_s = max(1, min(RESTING_RETRY_MAX_S, -(-wait_us // 1_000_000)))
    return Refusal(
        "upstream",
        "The model's provider has failed again and again, so it is given a rest; nothing was sent."
        f" Please try again in {_seconds(wait_s)}.",
        503,
        code="upstream_resting",
        type="upstream_error",
        retry_after_s=wait_s,
    )


def upstream_saturated() -> Refusal:
    return Refusal(
        "upstream",
        SATURATED,
        503,
        code="upstream_saturated",
        type="upstream_error",
        retry_after_s=SATURATED_RETRY_S,
    )


def request_too_large(asked: int, per_minute: int) -> Refusal:
    return Refusal(
        "request_too_large",
        f"This request may use {asked:,} tokens, and your plan allows {per_minute:,} per minute: it can never fit."
        " Send less input or ask for fewer output tokens.",
        400,
        code="request_too_large",
        type="invalid_request_error",
    )


LIMITED_SENTENCES: Mapping[str, str] = {
    "requests": "You have reached your limit of {limit:,} requests per minute. Please try again in {wait}.",
    "tokens": "You have reached your limit of {limit:,} tokens per minute. Please try again in {wait}.",
    "concurrent_requests": "You have {limit:,} requests under way, as many as your plan allows at once."
    " Please wait for one to end.",
}


def rate_limited(reply: Limited, limits: RateLimits) -> Refusal:
    by_name = {
        "requests": limits.requests_per_minute,
        "tokens": limits.tokens_per_minute,
        "concurrent_requests": limits.concurrent_requests,
    }
    wait_s = max(1, min(RETRY_AFTER_MAX_S, -(-reply.wait_us // 1_000_000)))
    limit = by_name[reply.limit] or 0
    sentence = LIMITED_SENTENCES[reply.limit].format(limit=limit, wait=_seconds(wait_s))
    return Refusal(
        "rate_limited",
        re.sub(r"\b1 (request|token)s\b", r"1 \1", sentence),
        429,
        code="rate_limit_exceeded",
        type=reply.limit,
        retry_after_s=wait_s,
    )


def budget(reply: Exceeded, holds: tuple[Hold, ...], affordable: int, standing: Standing) -> Refusal:
    """The refusal for the first budget that would be exceeded, with what every budget would admit."""
    index = first_exceeded([hold.amount for hold in holds], [state.left for state in reply.states])
    hold, balance = holds[index], reply.states[index]
    counter, plan = hold.counter, standing.plan
    state = BudgetState(
        counter.budget.id,
        counter.budget.meter,
        counter.budget.per,
        counter.budget.limit + balance.granted,
        balance.used,
        balance.held,
        hold.amount,
        affordable,
        counter.ends_us,
        plan.denial.upgrade_url,
        balance.granted,
        balance.left,
    )
    return Refusal(
        "budget",
        denial_message(plan, counter.budget, state, standing.zone),
        plan.denial.status,
        code="insufficient_quota",
        type="insufficient_quota",
        budget=state,
    )


def upstream(failed: UpstreamFailed, skipped: Mapping[str, str] | None, prompt: Any) -> Refusal:
    """What the client reads when every attempt failed: the last upstream's trouble, in the gate's own words.

    An upstream's complaint about its key, its access or its own quota is the operator's trouble and no
    matter for a customer: 502. What concerns the request itself keeps its status and the upstream's words, but
    for those that it quotes of the `prompt`: an error is shown and logged where a prompt must not be.
    """
    said: str | None = failed.message
    if failed.blame == "request":
        said = without_quotations(failed.message, prompt)
    status = failed.status if failed.blame != "operator" else None
    if status is None or status < 400:
        status = 504 if failed.error_type.endswith("timeout") else 502
    told = "".join(f" Fallback {_shown(model)} was skipped: {why}." for model, why in (skipped or {}).items())
    return Refusal(
        "upstream",
        (said or "The model's provider refused the request.") + told,
        status,
        code=failed.code or failed.error_type,
        type="invalid_request_error" if failed.blame == "request" else "upstream_error",
        param=failed.param,
        retry_after_s=failed.retry_after_s if status in (429, 503) else None,
    )


def _seconds(count: int) -> str:
    return "1 second" if count == 1 else f"{count} seconds"


def _shown(name: str) -> str:
    """A name that a client sent, short enough and without control characters, to be shown back."""
    text = name if len(name) <= SHOWN_NAME_MAX else name[:SHOWN_NAME_MAX] + "…"
    return "'" + "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text) + "'"
