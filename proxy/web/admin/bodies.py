"""What may be sent to the admin plane: one class per body and per query. Anything not named is refused."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from proxy.web.admin.values import Cursor, Email, Filter, Id, Instant, Kind, Name, Phone, Text, Timezone

GROUPS = ("customer", "agent", "model", "step", "user", "day")


class Body(BaseModel):
    """The base of every body and query: no field beyond those named."""

    model_config = ConfigDict(extra="forbid")


def _untouched() -> Any:
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

    name: Name = _untouched()
    email: Email | None = _untouched()
    phone: Phone | None = _untouched()
    address: Text | None = _untouched()
    description: Text | None = _untouched()
    timezone: Timezone = _untouched()
    status: Literal["active", "suspended"] = _untouched()
    plan: Id = _untouched()
    anchor: Instant = _untouched()


class NewContact(Body):
    """A person of a customer."""

    id: Id | None = None
    name: Name
    email: Email | None = None
    phone: Phone | None = None
    description: Text | None = None


class SubscriptionChange(Body):
    """The plan to put a customer on. `anchor` stays as it is if absent."""

    plan: Id
    anchor: Instant | None = None


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


class PageQuery(Body):
    """How much of a list, and from where on: `cursor` is the `next_cursor` of the page before."""

    limit: int = Field(default=100, ge=1, le=1000)
    cursor: Cursor | None = None


class AgentsQuery(PageQuery):
    customer_id: Id | None = None


class _Span(Body):
    """Times: `from` is included, `to` is not."""

    from_: Instant | None = Field(default=None, alias="from")
    to: Instant | None = None

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.from_ and self.to and self.to <= self.from_:
            raise ValueError("`to` must be later than `from`")
        return self


class _UsageFilters(_Span):
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


class DenialsQuery(_Span, PageQuery):
    customer_id: Id | None = None
    agent_id: Id | None = None
    model: Filter | None = None
    reason: Filter | None = None


class NoQuery(Body):
    """For routes that take no query parameter."""


def filters_of(query: BaseModel) -> dict[str, Any]:
    """The filters that were given, by their names on the wire."""
    return query.model_dump(by_alias=True, exclude_none=True, exclude={"limit", "cursor", "group_by"})
