"""What the admin plane answers: one class per resource, which is also the list of what may leave the house.

An `Answer` is shaped by its class, so that nothing goes out that it does not name (a secret's digest, say).
A `Record` was already shaped where it was written; its class only describes it.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from proxy.domain import policy
from proxy.domain.money import PICO_PER_MICRO, usd_text
from proxy.web.admin.values import Instant

T = TypeVar("T")
Amount = Annotated[Any, WithJsonSchema({"type": ["integer", "string"]})]
"""An integer; of `cost_usd` a decimal string of USD."""
Usd = Annotated[Any, WithJsonSchema({"type": "string", "examples": ["0.00001725"]})]


class Answer(BaseModel):
    model_config = ConfigDict(from_attributes=True, extra="ignore")


class Record(BaseModel):
    model_config = ConfigDict(extra="allow")


class Listed(BaseModel, Generic[T]):
    """One page of a list; `next_cursor` is null on the last."""

    data: list[T]
    next_cursor: str | None


class Customer(Answer):
    """Who pays."""

    id: str
    name: str
    email: str | None
    phone: str | None
    address: str | None
    description: str | None
    timezone: str
    status: str
    plan: str
    anchor: Instant
    created_at: Instant


class Contact(Answer):
    """A person of a customer, who gets invoices and alerts."""

    id: str
    customer_id: str
    name: str
    email: str | None
    phone: str | None
    description: str | None
    created_at: Instant


class Subscription(Answer):
    """The plan a customer is on, and the time from which its windows count."""

    customer_id: str
    plan: str
    anchor: Instant


class AgentType(Answer):
    """A product in the seller's catalogue."""

    id: str
    name: str
    description: str | None
    kind: str
    created_at: Instant


class Agent(Answer):
    """A working copy of an agent type for one customer."""

    id: str
    name: str
    description: str | None
    customer_id: str
    agent_type_id: str
    contact_id: str | None
    created_at: Instant


class AgentSecret(Answer):
    """What is kept of an agent secret: never the secret itself."""

    id: str
    agent_id: str
    created_at: Instant
    expires_at: Instant | None
    revoked_at: Instant | None


class CreatedSecret(Answer):
    """An agent secret, the only time that it is shown."""

    id: str
    secret: str
    agent_id: str
    created_at: Instant
    expires_at: Instant | None


class PlanBudget(Answer):
    """A limit on one meter over one window; `models` ["*"]: calls to any model count."""

    id: str
    meter: str
    limit: Amount
    window: str
    per: str
    models: list[str]


class RateLimits(Answer):
    """Null: no such limit."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrent_requests: int | None


class Denial(Answer):
    """How a spent budget is told to the end user."""

    status: int
    message_exhausted: str
    message_too_large: str
    message_lifetime: str
    upgrade_url: str


class Plan(Answer):
    """A plan at its newest version; `models` ["*"]: every model."""

    id: str
    name: str
    version: int
    models: list[str]
    features: dict[str, bool]
    default_max_output_tokens: int | None
    min_output_tokens: int
    on_exceed: str
    hold: str
    budgets: list[PlanBudget]
    rate_limits: RateLimits
    denial: Denial


class PlanVersion(Record):
    """A plan as it was at one version."""

    version: int
    applied_at: Instant
    document: dict[str, Any]


class EntitledBudget(Record):
    """What one budget still allows. `starts_at` and `resets_at` are null for a lifetime."""

    budget_id: str
    meter: str
    per: str
    window: str
    limit: Amount
    granted: Amount
    used: Amount
    held: Amount
    remaining: Amount
    starts_at: Instant | None
    resets_at: Instant | None


class Entitlements(Record):
    """What a customer may use now, by what Redis says."""

    customer_id: str
    plan: str
    plan_version: int
    models: list[str]
    features: dict[str, Any]
    budgets: list[EntitledBudget]


class UsageEvent(Record):
    """The record of one attempt, id `{request_id}:{attempt}`; a correction is an event of its own."""

    id: str
    request_id: str
    attempt: int
    customer_id: str
    agent_id: str
    model: str
    status: str
    usage_source: str
    input_tokens: int
    output_tokens: int
    cost_usd: Usd | None


class UsageSum(Record):
    """Sums of one group; the group's own keys stand beside them."""

    requests: int
    attempts: int
    input_tokens: int
    output_tokens: int
    cost_usd: Usd


class DeniedCount(Record):
    """How often requests were refused in one minute, by customer, agent, model and reason; with one sample."""

    customer_id: str
    agent_id: str
    model: str
    reason: str
    count: int


class Check(Record):
    """One thing that must be true, what was seen and what was expected."""

    id: str
    ok: bool
    seen: Any = None
    expected: Any = None


class Checks(Record):
    """`ok` if every check is."""

    ok: bool
    checks: list[Check]


class Alive(Answer):
    """The listener answers."""

    ok: bool


class Document(Record):
    """An OpenAPI 3.1 document."""

    openapi: str
    paths: dict[str, Any]


class ErrorDetail(BaseModel):
    """`message` is for people, `code` for programs; `param` is the field at fault, if there is one."""

    message: str
    type: str
    param: str | None
    code: str


class Error(BaseModel):
    """What went wrong."""

    error: ErrorDetail = Field()


def plan_fields(plan: policy.Plan) -> dict[str, Any]:
    """A plan as its `Plan` answer takes it: sets as sorted lists, money as USD."""
    return {
        "id": plan.id,
        "name": plan.name,
        "version": plan.version,
        "models": _models(plan.models),
        "features": dict(plan.features),
        "default_max_output_tokens": plan.default_max_output_tokens,
        "min_output_tokens": plan.min_output_tokens,
        "on_exceed": plan.on_exceed,
        "hold": plan.hold,
        "budgets": [_budget_fields(budget) for budget in plan.budgets],
        "rate_limits": plan.rate_limits,
        "denial": plan.denial,
    }


def _budget_fields(budget: policy.Budget) -> dict[str, Any]:
    money = budget.meter == "cost_usd"
    return {
        "id": budget.id,
        "meter": budget.meter,
        "limit": usd_text(budget.limit * PICO_PER_MICRO) if money else budget.limit,
        "window": budget.window,
        "per": budget.per,
        "models": _models(budget.models),
    }


def _models(models: frozenset[str] | None) -> list[str]:
    return ["*"] if models is None else sorted(models)
