"""The policy: the catalogue of models and the plans that grant them. Immutable once compiled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from proxy.domain.pricing import Price

Meter = str
"""`tokens`, `input_tokens`, `output_tokens`, `requests` or `cost_usd`; later also an action's name."""

ATTEMPT_METERS = ("tokens", "input_tokens", "output_tokens", "requests", "cost_usd")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a model is served: an upstream of the settings, and what that upstream calls the model."""

    upstream: str
    upstream_model: str


@dataclass(frozen=True, slots=True)
class Model:
    """A catalogue entry. `price` is None when nobody knows it: a cost budget then refuses the model.

    `targets` has at least one, in the order in which they are tried.
    """

    id: str
    targets: tuple[Target, ...]
    max_output_tokens: int
    context_tokens: int
    output_limit_field: str
    fallbacks: tuple[str, ...] = ()
    price: Price | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on one meter over one window. `limit` counts the meter's unit; `cost_usd` in microdollars.

    `window` is an ISO 8601 duration counted from `anchor` (the subscription's, or the calendar), or "lifetime".
    `models` None means every model counts. Calls without a user share one budget of those `per` user, and so do
    all users beyond the first `users_max` of a window: inventing users mints nothing.

    What goes beyond the limit: nothing if it is `hard`, but for `overage_limit`; anything if it is not. What a
    window leaves over is carried into the next: min(rollover_max, max(left, rollover_min)). `alert_at` are
    thresholds in percent of the limit ("80%") or in the meter's unit ("500000").
    """

    id: str
    meter: Meter
    limit: int
    window: str = "P1M"
    per: Literal["customer", "agent", "user"] = "customer"
    models: frozenset[str] | None = None
    anchor: Literal["subscription", "calendar"] = "subscription"
    hard: bool = True
    overage_limit: int = 0
    rollover_max: int = 0
    rollover_min: int = 0
    users_max: int = 10_000
    alert_at: tuple[str, ...] = ("80%", "95%", "100%")

    def counts(self, model_id: str) -> bool:
        return self.models is None or model_id in self.models


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Per customer; None: no such limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None


@dataclass(frozen=True, slots=True)
class DenialTexts:
    """How a spent budget is told to the end user."""

    status: int = 402
    message_exhausted: str = (
        "You have used {used} of the {limit} {meter} in your {plan} plan. They renew on {resets_at}."
    )
    message_too_large: str = (
        "This request may use {asked} {meter}; {remaining} are left until {resets_at}."
        " Ask for at most {can_afford}."
    )
    message_lifetime: str = "You have used the {limit} {meter} of your {plan} plan."
    upgrade_url: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """A named policy for customers, at one immutable version. `models` None means every model.

    In `shadow` mode everything is decided and recorded, and nothing refused. `require_user`: a call must say for
    which user it is. `on_store_failure` "open" lets calls through while Redis is away (only without any limits).
    """

    id: str
    name: str
    version: int
    models: frozenset[str] | None = frozenset()
    budgets: tuple[Budget, ...] = ()
    rate_limits: RateLimits = RateLimits()
    denial: DenialTexts = DenialTexts()
    features: dict[str, Any] = field(default_factory=dict)
    default_max_output_tokens: int | None = None
    min_output_tokens: int = 16
    on_exceed: Literal["refuse", "clamp"] = "refuse"
    hold: Literal["strict", "rolling"] = "strict"
    mode: Literal["enforce", "shadow"] = "enforce"
    require_user: bool = False
    on_store_failure: Literal["closed", "open"] = "closed"

    def allows(self, model_id: str) -> bool:
        return self.models is None or model_id in self.models


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that admins edit, at one revision. A higher revision replaces a lower one whole."""

    revision: int
    models: dict[str, Model]
    plans: dict[str, Plan]
