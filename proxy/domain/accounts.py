"""The directory's nouns: who pays, who may be written to, which agents there are and what lets them in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

AGENT_KINDS = ("custom", "langgraph", "langchain", "crewai", "autogen", "openai-agents", "pydantic-ai", "n8n")

CustomerStatus = Literal["active", "suspended"]


@dataclass(frozen=True, slots=True)
class ScheduledChange:
    """What a subscription becomes at `at`: another plan, or with `cancels` none, so that `plan` is the default."""

    plan: str
    at: datetime
    cancels: bool = False


@dataclass(frozen=True, slots=True)
class Customer:
    """Who pays. `plan` and `anchor` are its subscription: the plan it is on, and where windows count from.

    Not `subscribed`: the plan is the default plan of the settings. `overrides` wins over the plan, and is what
    `domain.overrides` takes.
    """

    id: str
    name: str
    email: str | None
    phone: str | None
    address: str | None
    description: str | None
    timezone: str
    status: CustomerStatus
    plan: str
    anchor: datetime
    created_at: datetime
    subscribed: bool = True
    scheduled: ScheduledChange | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SubscriptionChange:
    """One line of a subscription's history: what happened, when it was asked and from when on it holds.

    `what` is started, changed, re-anchored, scheduled, unscheduled, canceled or default_changed.
    """

    id: int
    customer_id: str
    changed_at: datetime
    what: str
    from_plan: str | None
    plan: str
    anchor: datetime
    effective_at: datetime


@dataclass(frozen=True, slots=True)
class IssuedGrant:
    """A grant as it was given to a customer: immutable, but that it can be voided.

    `amount` is in the meter's unit, of `cost_usd` in microdollars.
    """

    id: str
    customer_id: str
    meter: str
    amount: int
    per: str
    budget_id: str | None
    priority: int
    effective_at: datetime
    expires_at: datetime | None
    reason: str | None
    created_at: datetime
    voided_at: datetime | None

    def live(self, now: datetime) -> bool:
        """Not over: usable now, or yet to be."""
        return self.voided_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class Contact:
    """A person of a customer, who gets invoices and alerts."""

    id: str
    customer_id: str
    name: str
    email: str | None
    phone: str | None
    description: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class AgentType:
    """A product in the seller's catalogue. `kind` is one of `AGENT_KINDS`."""

    id: str
    name: str
    description: str | None
    kind: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Agent:
    """A working copy of an agent type for one customer."""

    id: str
    name: str
    description: str | None
    customer_id: str
    agent_type_id: str
    contact_id: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class AgentSecret:
    """What is kept of an agent secret: never the secret itself. `digest` is the keyed digest in hex."""

    id: str
    agent_id: str
    digest: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
