"""Shadow mode: what a plan would have refused is counted as a denial, and let through all the same.

It is decided as it will be once the plan is enforced; only then is it admitted, by the same plan laid open.
"""

from __future__ import annotations

from proxy.domain.refusals import Refusal, Refused
from proxy.gateway.admission import Trail
from proxy.gateway.house import House
from proxy.gateway.ports import DenialKey
from proxy.gateway.standing import Standing

SHADOW = "shadow:"
"""Before the reason of a denial that was only recorded."""

MINUTE_US = 60_000_000

# What a plan's own terms refuse. A secret, an account, a body and what does not exist are none of them.
_TERMS = frozenset(
    (
        "budget",
        "rate_limited",
        "request_too_large",
        "model_not_allowed",
        "feature_not_allowed",
        "model_unpriced",
        "unknown_parameter",
    )
)
_TERMS_BY_CODE = frozenset(("user_required", "unbounded_tool"))


class Lowered(Refused):
    """The plan would have admitted it with a smaller output limit: in shadow mode it is sent as it came."""


def laid_open(refused: Refused, model_id: str, trail: Trail, standing: Standing, house: House) -> Standing | None:
    """The standing by which a refused request is admitted all the same, the refusal counted; None: it stands."""
    refusal = refused.refusal
    if refusal.reason not in _TERMS and refusal.code not in _TERMS_BY_CODE:
        return None
    # By now the plan may be another one than the request came with.
    current = house.knowledge.remembered(standing.digest)
    if current is None or current.plan.mode != "shadow":
        return None
    if refusal.reason == "model_not_allowed" and model_id != trail.ask.model:
        return None
    if not isinstance(refused, Lowered) and refusal.reason not in trail.shadowed:
        trail.shadowed = (*trail.shadowed, refusal.reason)
        _count(refusal, trail, current, house)
    return current.laid_open()


def _count(refusal: Refusal, trail: Trail, standing: Standing, house: House) -> None:
    who, asked = standing.identity, trail.ask.model
    model = asked if asked in standing.policy.models else ""
    minute = house.clock.now_us() // MINUTE_US
    key = DenialKey(minute, who.customer_id, who.agent_id, model, SHADOW + refusal.reason)
    house.denials.count(key, trail.request_id, refusal.message)
