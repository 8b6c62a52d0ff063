"""The directory's nouns: who pays, who may be written to, which agents there are and what lets them in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

AGENT_KINDS = ("custom", "langgraph", "langchain", "crewai", "autogen", "openai-agents", "pydantic-ai", "n8n")

CustomerStatus = Literal["active", "suspended"]


@dataclass(frozen=True, slots=True)
class Customer:
    """Who pays. `plan` and `anchor` are its subscription: the plan it is on, and where windows count from."""

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
