"""What the admin plane answers: one class per resource, which is also the list of what may leave the house.

An `Answer` is shaped by its class, so that nothing goes out that it does not name (a secret's digest, say).
A `Record` was already shaped where it was written; its class only describes it.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

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


class AdminToken(Answer):
    """What is kept of an admin token: never the token itself. `bootstrap`: the one the gate was started with.

    `created_by` is the id of the token that made it; `last_used_at` is right to within a minute or so.
    """

    id: str
    name: str
    role: str
    created_at: Instant | None
    created_by: str | None
    expires_at: Instant | None
    revoked_at: Instant | None
    last_used_at: Instant | None


class CreatedToken(AdminToken):
    """An admin token, the only time that it is shown."""

    token: str


class AuditActor(Record):
    """An admin token; or the gate itself, with the role `system`."""

    id: str
    name: str
    role: str


class AuditResource(Record):
    """What was written."""

    kind: str
    id: str


class AuditChange(BaseModel):
    """A field before and after."""

    model_config = ConfigDict(json_schema_extra={"required": ["from", "to"]})
    from_: Any = Field(default=None, alias="from")
    to: Any = None


class AuditEntry(Record):
    """One deed. `resource` is null where it was refused; `hash` seals this entry and all before it."""

    seq: int
    at: Instant
    actor: AuditActor
    method: str
    route: str
    resource: AuditResource | None
    outcome: Literal["done", "refused"]
    changes: dict[str, AuditChange]
    request_id: str
    idempotency_key: str | None
    network: str
    hash: str


class AuditHead(Answer):
    """The newest entry. Noted down elsewhere, it proves later that nothing before it was changed."""

    seq: int
    hash: str


class AuditVerification(Answer):
    """`entries` are as they were written; `fault` says what is wrong with the next."""

    ok: bool
    entries: int
    head: AuditHead
    fault: str | None


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
    """What a customer may use now: the plan with its overrides, and balances by what Redis says."""

    customer_id: str
    plan: str
    plan_version: int
    models: list[str]
    features: dict[str, Any]
    budgets: list[EntitledBudget]
    overrides: dict[str, Any] = Field(description="What of this is the customer's own, and not its plan's.")


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
    """How often requests were refused in one minute, by customer, agent, model and reason; with one sample.

    `shadow`: by a plan in shadow mode, which only says so and lets them through.
    """

    customer_id: str
    agent_id: str
    model: str
    reason: str
    shadow: bool
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
