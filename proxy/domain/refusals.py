"""Why a request is refused: one value per reason, and one exception that carries it out of the journey.

Refused
  unauthenticated      secret missing, malformed, unknown or revoked
  suspended            the customer is suspended
  bad_request          the body is at fault; `code` and `param` say how; `status` 400, 413 or 415
  model_not_found      not in the catalogue
  model_not_allowed    in the catalogue, not in the plan
  feature_not_allowed  a field of the body needs a feature that the plan has not
  model_unpriced       a cost budget applies and nobody knows the price
  unknown_parameter    a field unknown to the gate, and a cost budget applies
  budget               a budget would be exceeded
  rate_limited         too many requests, too many tokens, or too many at once
  request_too_large    can never fit the tokens per minute
  gate_unavailable     Redis is away, or closed
  upstream_not_configured   the model's upstream has no key
  upstream             every attempt failed
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Reason = Literal[
    "unauthenticated",
    "suspended",
    "bad_request",
    "model_not_found",
    "model_not_allowed",
    "feature_not_allowed",
    "model_unpriced",
    "unknown_parameter",
    "budget",
    "rate_limited",
    "request_too_large",
    "gate_unavailable",
    "upstream_not_configured",
    "upstream",
]


@dataclass(frozen=True, slots=True)
class BudgetState:
    """`error.budget` of DESIGN 5.4. Amounts count the meter's unit; `cost_usd` is in microdollars here.

    `limit` is the plan's and what grants and the windows before have added to it, which is `granted`. `left` is
    how much could be held just now, overage included; None: what of the limit is neither used nor held.
    """

    budget_id: str
    meter: str
    per: str
    limit: int
    used: int
    held: int
    asked: int
    can_afford: int
    resets_at_us: int | None
    upgrade_url: str
    granted: int = 0
    left: int | None = None

    @property
    def remaining(self) -> int:
        return self.limit - self.used - self.held if self.left is None else self.left


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refusal, complete: what the wire needs to say it and what the denial record needs to count it."""

    reason: Reason
    message: str
    status: int
    code: str | None = None
    type: str | None = None
    param: str | None = None
    retry_after_s: int | None = None
    budget: BudgetState | None = None
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):
    """Ends a request's journey with a refusal."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal
