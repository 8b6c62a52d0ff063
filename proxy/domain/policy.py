"""The policy: the catalogue of models and the plans that grant them. Immutable once compiled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

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

    `window` is an ISO 8601 duration counted from the subscription's anchor, or "lifetime".
    `models` None means every model counts.
    """

    id: str
    meter: Meter
    limit: int
    window: str = "P1M"
    per: Literal["customer", "agent"] = "customer"
    models: frozenset[str] | None = None

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
    """A named policy for customers, at one immutable version. `models` None means every model."""

    id: str
    name: str
    version: int
    models: frozenset[str] | None = frozenset()
    budgets: tuple[Budget, ...] = ()
    rate_limits: RateLimits = RateLimits()
    denial: DenialTexts = DenialTexts()
    features: dict[str, bool] = field(default_factory=dict)
    default_max_output_tokens: int | None = None
    min_output_tokens: int = 16
    on_exceed: Literal["refuse", "clamp"] = "refuse"
    hold: Literal["strict", "rolling"] = "strict"

    def allows(self, model_id: str) -> bool:
        return self.models is None or model_id in self.models


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that admins edit, at one revision. A higher revision replaces a lower one whole."""

    revision: int
    models: dict[str, Model]
    plans: dict[str, Plan]
