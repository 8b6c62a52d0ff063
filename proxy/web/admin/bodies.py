"""What may be sent to the admin plane: one class per body and per query. Anything not named is refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from proxy.web.admin.values import (
    Amount,
    Cursor,
    Email,
    Filter,
    Id,
    Instant,
    Kind,
    Meter,
    Name,
    Phone,
    Text,
    Timezone,
    counted,
)

GROUPS = ("customer", "agent", "model", "step", "user", "day")


class Body(BaseModel):
    """The base of every body and query: no field beyond those named."""

    model_config = ConfigDict(extra="forbid")


def untouched() -> Any:
    """The default of a field that a PATCH leaves alone; its value is never read."""

    def drop_default(schema: dict[str, Any]) -> None:
        schema.pop("default", None)

    return Field(default=None, json_schema_extra=drop_default)


class NewCustomer(Body):
    """A customer to be made. `id` is made if absent; `anchor`, from which windows count, is now if absent."""

    id: Id | None = None
    name: Name
    email: Email | None = None
    phone: Phone | None = None
    address: Text | None = None
    description: Text | None = None
    timezone: Timezone = "UTC"
    status: Literal["active", "suspended"] = "active"
    plan: Id | None = None
    anchor: Instant | None = None


class CustomerChanges(Body):
    """What is to change of a customer; fields that are absent stay as they are."""

    name: Name = untouched()
    email: Email | None = untouched()
    phone: Phone | None = untouched()
    address: Text | None = untouched()
    description: Text | None = untouched()
    timezone: Timezone = untouched()
    status: Literal["active", "suspended"] = untouched()
    plan: Id = untouched()
    anchor: Instant = untouched()


class NewContact(Body):
    """A person of a customer."""

    id: Id | None = None
    name: Name
    email: Email | None = None
    phone: Phone | None = None
    description: Text | None = None


class SubscriptionChange(Body):
    """A plan, an anchor from which windows count anew, or both; what is absent stays as it is.

    `usage` "reset" sets the anchor to now. At `period_end` only the plan changes, when the month that is counted
    from the anchor ends.
    """

    plan: Id | None = None
    anchor: Instant | None = None
    when: Literal["now", "period_end"] = "now"
    usage: Literal["carry", "reset"] = "carry"

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.plan is None and self.anchor is None and self.usage == "carry":
            raise ValueError("name a `plan`, or an `anchor`; nothing would change")
        if self.when == "period_end" and (self.plan is None or self.anchor or self.usage == "reset"):
            raise ValueError("at the end of the period only the `plan` changes: leave `anchor` and `usage` out")
        if self.anchor and self.usage == "reset":
            raise ValueError('usage "reset" sets the anchor to now: leave one of the two out')
        return self


class CancelQuery(Body):
    when: Literal["now", "period_end"] = "now"


class NewGrant(Body):
    """An amount in the meter's unit; of `cost_usd` USD, as text or a whole number."""

    id: Id | None = None
    meter: Meter
    amount: Amount
    per: Literal["customer", "agent", "user"] | None = Field(
        default=None, description="Of the budgets that it raises; the budget's own, or else customer."
    )
    budget_id: Id | None = Field(default=None, description="Absent: every budget of this meter and `per`.")
    priority: int = Field(default=128, ge=1, le=255, description="Lower burns first; a plan's own has 128.")
    effective_at: Instant | None = None
    expires_at: Instant | None = None
    reason: Text | None = None

    @model_validator(mode="after")
    def _counted(self) -> Self:
        counted(self.meter, self.amount)
        return self

    def fields(self) -> dict[str, Any]:
        return self.model_dump() | {"amount": counted(self.meter, self.amount)}


class Overrides(Body):
    """What wins over the plan.

    `features` {name: value or null}, `models` [ids] or {"add", "remove"}, `rate_limits` {name: number or null},
    `budgets` {id: what differs, null, or a whole budget of the customer's own}.
    """

    features: dict[str, Any] = {}
    models: list[str] | dict[str, list[str]] | None = None
    budgets: dict[str, dict[str, Any] | None] = {}
    rate_limits: dict[str, Any] = {}


class NewAgentType(Body):
    """A product in the seller's catalogue."""

    id: Id | None = None
    name: Name
    description: Text | None = None
    kind: Kind = "custom"


class NewAgent(Body):
    """A working copy of an agent type for one customer."""

    id: Id | None = None
    name: Name
    description: Text | None = None
    customer_id: Id
    agent_type_id: Id
    contact_id: Id | None = None


class NewSecret(Body):
    """`{}`, or when the secret is to end."""

    expires_at: Instant | None = None


class NewToken(Body):
    """A token of this plane: what it is for, what it may do, and when it ends."""

    name: Name
    role: Literal["owner", "operator", "read-only"]
    expires_at: Instant | None = None


class PageQuery(Body):
    """How much of a list, and from where on: `cursor` is the `next_cursor` of the page before."""

    limit: int = Field(default=100, ge=1, le=1000)
    cursor: Cursor | None = None


class GrantsQuery(PageQuery):
    live: bool | None = Field(default=None, description="true: only those that are not over.")


class AgentsQuery(PageQuery):
    customer_id: Id | None = None


class Span(Body):
    """Times: `from` is included, `to` is not."""

    from_: Instant | None = Field(default=None, alias="from")
    to: Instant | None = None

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.from_ and self.to and self.to <= self.from_:
            raise ValueError("`to` must be later than `from`")
        return self


class _UsageFilters(Span):
    customer_id: Id | None = None
    agent_id: Id | None = None
    request_id: Filter | None = None
    user_id: Filter | None = None
    run_id: Filter | None = None
    step: Filter | None = None
    model: Filter | None = None
    status: Literal["succeeded", "failed", "cancelled", "orphaned"] | None = None


class UsageEventsQuery(_UsageFilters, PageQuery):
    pass


class UsageQuery(_UsageFilters):
    group_by: Filter | None = Field(
        default=None, description="One or more of customer, agent, model, step, user, day; comma-separated."
    )


class DenialsQuery(Span, PageQuery):
    customer_id: Id | None = None
    agent_id: Id | None = None
    model: Filter | None = None
    reason: Filter | None = None
    shadow: bool | None = Field(
        default=None, description="true: what plans in shadow mode would have refused; false: what was refused."
    )


class AuditQuery(Span, PageQuery):
    resource: Filter | None = Field(
        default=None, description="A kind, as `customer`, or one resource of it, as `customer/acme`."
    )
    actor: Filter | None = Field(default=None, description="The id of a token, or `system`.")
    outcome: Literal["done", "refused"] | None = None


class AnchorQuery(Body):
    """A head that was noted down earlier; it must still be part of the chain."""

    seq: int | None = Field(default=None, ge=1, le=2**53)
    hash: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.seq is None) != (self.hash is None):
            raise ValueError("`seq` and `hash` of an entry belong together: give both, or neither")
        return self


class NoQuery(Body):
    """For routes that take no query parameter."""


def filters_of(query: BaseModel) -> dict[str, Any]:
    """The filters that were given, by their names on the wire."""
    return query.model_dump(by_alias=True, exclude_none=True, exclude={"limit", "cursor", "group_by"})
